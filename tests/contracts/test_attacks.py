"""Every kind of attack obeys the Attack contract. A new file is picked up by itself."""

import inspect
from dataclasses import fields, is_dataclass, replace

import pytest
import torch

import ilu.attacks
from ilu.attacks.finetune import FineTune
from ilu.attacks.kind import AttackInputs
from ilu.attacks.registry import attack_kinds
from ilu.data.stream import Feed
from ilu.lab.sources import TaskTrain
from ilu.models.load import load_model, weights_hash
from ilu.system.discover import modules
from ilu.system.record import describe, restore
from ilu.training.fit import Optim
from ilu.types import LM, Attack
from tests.conftest import make_tiny


def kinds():
    return [pytest.param(kind, id=name) for name, kind in attack_kinds().items()]


def attack_classes():
    """The dataclasses of the package that have the members of an attack."""
    for module in modules(ilu.attacks):
        for _, cls in inspect.getmembers(module, inspect.isclass):
            own = cls.__module__ == module.__name__ and is_dataclass(cls)
            if own and {"steps", "data", "__call__"} <= set(vars(cls)):
                yield pytest.param(cls, id=cls.__name__)


KINDS = kinds()
CLASSES = list(attack_classes())


@pytest.fixture(scope="module")
def tokenizer():
    return load_model("lab").tokenizer


@pytest.fixture
def lm(tokenizer):
    return LM(make_tiny(len(tokenizer)), tokenizer)


@pytest.fixture(scope="module")
def original(tokenizer, tmp_path_factory):
    """Another model of the same architecture, for what goes back to one."""
    model, place = make_tiny(len(tokenizer)), tmp_path_factory.mktemp("original")
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


@pytest.fixture
def inputs(original):
    tune = FineTune(Feed(TaskTrain("mood", 12), 4), Optim(lr=1e-2, steps=2))
    kept = replace(tune, feed=Feed(TaskTrain("sums", 12), 4))
    return AttackInputs(
        task=lambda task: tune,
        documents=lambda role, count: kept if role == "retain" else tune,
        half=lambda half: tune if half == "a" else refused(half),
        original=original,
        lora_rank=2,
    )


def refused(half):
    raise ValueError(f"no half {half}")


def carry_out(attack, lm):
    """The stages and the progress that the attack reports, in order."""
    stages: list[str] = []
    done: list[tuple[int, int]] = []
    attack(lm, reached=stages.append, progress=lambda now, total: done.append((now, total)))
    return stages, done


def state(model):
    """What an attack must leave as it was."""
    modes = [(n, module.training) for n, module in model.named_modules()]
    return modes, [(n, p.dtype, p.requires_grad) for n, p in model.named_parameters()]


def test_the_kinds_and_the_classes_were_found():
    assert {p.id for p in KINDS} >= {"lora", "relearn", "quantise", "noise", "in-turn"}
    assert {p.id for p in CLASSES} >= {"FineTune", "WeightEdit", "InTurn"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_says_what_it_does_and_reads_its_example(kind, inputs):
    assert (inspect.getdoc(kind.build) or "").splitlines()[0].endswith(".")
    attack = kind.build(kind.example, inputs)
    assert isinstance(attack, Attack)
    assert restore(describe(attack)) == attack


@pytest.mark.parametrize("kind", KINDS)
def test_an_argument_that_it_cannot_read_is_a_users_error(kind, inputs):
    def refuse(task):
        raise ValueError(f"no task {task}")

    with pytest.raises(ValueError, match=r"\w"):
        kind.build("?", replace(inputs, task=refuse))


@pytest.mark.parametrize("kind", KINDS)
def test_changes_weights_and_ends_with_the_stage_end(kind, inputs, lm):
    attack, before = kind.build(kind.example, inputs), weights_hash(lm.model)
    attack.data(lm)
    assert weights_hash(lm.model) == before
    stages, done = carry_out(attack, lm)
    assert weights_hash(lm.model) != before
    assert stages[-1] == "end"
    assert stages.count("end") == 1
    assert [now for now, _ in done] == list(range(1, attack.steps + 1))
    assert {total for _, total in done} <= {attack.steps}


@pytest.mark.parametrize("kind", KINDS)
def test_gives_the_same_weights_whatever_was_drawn_before(kind, inputs, tokenizer):
    attack = kind.build(kind.example, inputs)
    found = set()
    for seed in (0, 1):
        lm = LM(make_tiny(len(tokenizer)), tokenizer)
        torch.manual_seed(seed)
        carry_out(attack, lm)
        found.add(weights_hash(lm.model))
    assert len(found) == 1


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_leaves_mode_gradients_and_dtype_as_they_were(kind, training, inputs, lm):
    lm.model.train(training)
    lm.model.lm_head.train(not training)  # each module has a mode of its own
    next(lm.model.parameters()).requires_grad_(False)
    before = state(lm.model)
    carry_out(kind.build(kind.example, inputs), lm)
    assert state(lm.model) == before
    assert all(p.grad is None for p in lm.model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_leaves_the_global_random_state(kind, inputs, lm):
    before = torch.random.get_rng_state()
    carry_out(kind.build(kind.example, inputs), lm)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", [p for p in KINDS if p.values[0].zero is not None])
def test_at_zero_strength_no_weight_changes(kind, inputs, lm):
    before = weights_hash(lm.model)
    assert carry_out(kind.build(kind.zero, inputs), lm)[0] == ["end"]
    assert weights_hash(lm.model) == before


def test_an_attack_that_trains_takes_at_least_one_step(inputs):
    attack = inputs.task("mood")
    with pytest.raises(ValueError, match="an attack of 0 steps: it must take at least 1"):
        replace(attack, optim=replace(attack.optim, steps=0))


@pytest.mark.parametrize("cls", CLASSES)
def test_is_final_frozen_and_documented(cls):
    assert cls.__bases__ == (object,)
    assert cls.__dataclass_params__.frozen
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}(")  # what a dataclass writes by itself
    assert all(f.type for f in fields(cls))
