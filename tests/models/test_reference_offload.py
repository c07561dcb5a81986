"""Original weights in host memory: the same numbers, a block at a time, the model as it was."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from ilu.methods.forget.npo import NPO
from ilu.methods.forget.rmu import RMU
from ilu.methods.retain.likelihood import KL, NLL
from ilu.methods.retain.states import StateNorms, States
from ilu.models import reference_offload
from ilu.models.blocks import blocks
from ilu.models.forward import Frozen
from ilu.models.lm_head import head_of
from ilu.models.reference_cache import ReferenceCache
from ilu.models.reference_offload import host_copy
from ilu.system.distributed import Ranks
from ilu.training.fit import Optim, check_training, engine_for
from ilu.training.objective import Term
from tests.build import batch
from tests.conftest import make_tiny
from tests.training.test_stepping import TWO, same, tied, trained

OPTIM = Optim(lr=1e-2, steps=3)
KL_RETAIN = Term(KL(), on="retain")
CASES = {
    "npo": (TWO, {}, make_tiny),
    "kl": ({"forget": Term(NLL(), on="forget", weight=-0.1), "retain": KL_RETAIN}, {}, make_tiny),
    "kl, recompute, micro-batches": ({"retain": KL_RETAIN, **TWO},
                                     {"recompute": True, "micro_batch": 2}, make_tiny),
    "kl, tied, bfloat16": ({**TWO, "retain": KL_RETAIN}, {"precision": "bfloat16"}, tied),
    "rmu": ({"forget": Term(RMU(layer=1), on="forget"), "retain": Term(States(1), on="retain")},
            {"parameters": r"\.[01]\.mlp\.down"}, make_tiny),
    "states of several blocks": ({**TWO, "retain": Term(StateNorms((0, 1)), on="retain")},
                                 {"clip": None}, make_tiny),
}  # fmt: skip


@pytest.fixture(autouse=True)
def copied(monkeypatch):
    """What is copied is a tensor of its own, as it is on another device."""
    copied: list[StorageWeakRef] = []

    def bring(copy, device):
        mine = copy.clone()
        copied.append(StorageWeakRef(mine.untyped_storage()))
        return mine

    monkeypatch.setattr(reference_offload, "on_device", bring)
    return copied


@pytest.mark.parametrize(("objective", "settings", "make"), CASES.values(), ids=CASES)
def test_the_same_weights_and_log_to_the_bit(objective, settings, make, copied):
    optim = replace(OPTIM, **settings)
    whole, rows = trained(objective, optim, make)
    assert not copied
    away, seen = trained(objective, replace(optim, offload_reference=True), make)
    assert copied
    assert same(whole, away)
    assert rows == seen
    assert not same(whole, make())


def frozen(model):
    """The original model, beside one that has moved."""
    optim = replace(OPTIM, offload_reference=True)
    named = dict(model.named_parameters())
    engine = engine_for(model, {"r": KL_RETAIN}, named, optim, ReferenceCache())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05)
    assert isinstance(engine.views.reference, Frozen)
    return engine.views.reference


def test_the_copies_are_in_host_memory_and_have_the_values(tiny):
    before = {n: p.detach().clone() for n, p in tiny.named_parameters()}
    copies = frozen(tiny).weights
    assert {n: w.device.type for n, w in copies.items()} == dict.fromkeys(before, "cpu")
    assert all(torch.equal(copies[n], before[n]) for n in before)
    assert host_copy(tiny.lm_head.weight).data_ptr() != tiny.lm_head.weight.data_ptr()


@pytest.mark.parametrize("make", [make_tiny, tied])
def test_a_block_is_there_while_it_runs_and_the_output_layer_as_long_as_it_is_needed(make, copied):
    model = make()
    head_of(model)  # which runs the model to try it
    reference = frozen(model)
    of_block = len(list(blocks(model)[0].parameters()))
    outside = len(list(model.parameters())) - of_block * len(blocks(model))
    there: list[int] = []

    def count(*given):
        there.append(sum(not ref.expired() for ref in copied))

    hooks = [one.mlp.register_forward_hook(count) for one in blocks(model)]
    out = reference(batch())
    for hook in hooks:
        hook.remove()
    assert there == [outside + of_block] * len(blocks(model))
    count()
    assert there[-1] == 1  # the output layer
    del out
    count()
    assert there[-1] == 0


def leave(*given):
    raise MemoryError


@pytest.mark.parametrize("how", ["to the end", "by the state of a block", "by an error"])
def test_afterwards_the_model_has_its_own_weights(how, tiny):
    own = {n: id(p) for n, p in tiny.named_parameters()}
    reference = frozen(tiny)
    moved = {n: p.detach().clone() for n, p in tiny.named_parameters()}
    if how == "by the state of a block":
        reference.hidden(batch(), 0)
    elif how == "to the end":
        reference(batch())
    else:
        hook = blocks(tiny)[1].mlp.register_forward_hook(leave)
        with pytest.raises(MemoryError):
            reference(batch())
        hook.remove()
    for n, p in tiny.named_parameters():
        assert id(p) == own[n]
        assert isinstance(p, nn.Parameter)
        assert p.requires_grad
        assert torch.equal(p, moved[n])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny.modules())


def test_a_weight_that_blocks_share_with_the_outside_is_the_original_in_both(tiny):
    """So no part of a pass can read the trained one."""
    inside = blocks(tiny)[0]
    inside.extra = nn.Linear(16, 32, bias=False)
    inside.extra.weight = tiny.model.embed_tokens.weight
    blocks(tiny)[1].input_layernorm.weight = inside.input_layernorm.weight
    inside.register_forward_hook(lambda m, i, o: o + m.extra.weight.sum())
    original = tiny.model.embed_tokens.weight.detach().clone()
    far = frozen(tiny)
    assert torch.equal(far.weights["model.embed_tokens.weight"], original)
    near = Frozen(tiny, far.weights)
    torch.testing.assert_close(far(batch()).logits, near(batch()).logits, rtol=0, atol=0)


def test_what_cannot_be_kept_elsewhere_is_refused(tiny):
    optim = replace(OPTIM, offload_reference=True)
    with pytest.raises(ValueError, match=r"no term of this recipe compares.*Leave it out"):
        check_training(tiny, {"retain": Term(NLL(), on="retain")}, optim, None)
    with pytest.raises(ValueError, match="`shard`"):
        check_training(tiny, TWO, optim, None, Ranks(0, 2, sharded=True))
    check_training(tiny, {"forget": Term(NPO(0.1), on="forget")}, optim, None)
