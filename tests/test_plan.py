"""What ``ilu plan`` predicts is what training allocates, by torch's memory profiler on the CPU."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from ilu import offload
from ilu.cli.plan import FUSED as FUSED_FLAGS
from ilu.cli.plan import bytes_of, choices
from ilu.data import Feed, Stream
from ilu.failures import one_line, out_of_memory
from ilu.forget.npo import NPO
from ilu.forget.rmu import RMU
from ilu.forward import Frozen
from ilu.lora import Lora, adapting
from ilu.memory import HELD, held_by, peak_memory, shape_of
from ilu.objective import Term
from ilu.ranks import Ranks
from ilu.recipe import Recipe
from ilu.recipes.assemble import build
from ilu.retain.likelihood import KL, NLL
from ilu.robust.invariance import Penalty, ScaleGradient, Square
from ilu.robust.rules import SAM
from ilu.train import Optim, fit
from ilu.types import Example, Slope
from tests.build import batch
from tests.test_rules import RULES, name

NPO_ALONE = {"forget": Term(NPO(0.1), on="forget"), "retain": Term(NLL(), on="retain")}
ENVIRONMENT = Term(ScaleGradient(), on="environment", rule=Square())
NPO_ILU = {**NPO_ALONE, "invariance": ENVIRONMENT}
OPTIM = Optim(lr=1e-4, steps=2)
FUSED = replace(OPTIM, fused_backward=True, clip=None)
WIDE = {"hidden": 256, "layers": 2, "vocabulary": 2000}
LENGTH = 64
# Widths, objective, optimiser, adapters: each case has another part of memory as its largest.
CASES = {
    "weights": ({"hidden": 256, "layers": 2, "vocabulary": 2000}, NPO_ALONE, OPTIM, None),
    "activations": ({"layers": 12}, NPO_ALONE, OPTIM, None),
    "head": ({"layers": 2, "vocabulary": 20000}, NPO_ALONE, OPTIM, None),
    "environment": ({"hidden": 128}, NPO_ILU, OPTIM, None),
    "recompute": ({"layers": 12}, NPO_ILU, replace(OPTIM, recompute=True), None),
    "micro-batches": ({"layers": 12}, NPO_ILU, replace(OPTIM, micro_batch=2), None),
    "sam": (
        {"hidden": 256, "layers": 2, "vocabulary": 2000},
        {**NPO_ALONE, "forget": Term(NPO(0.1), on="forget", rule=SAM())}, OPTIM, None,
    ),
    "penalty": (
        {"hidden": 256, "layers": 2, "vocabulary": 2000},
        {**NPO_ALONE, "invariance": Term(NLL(), on="environment", rule=Penalty())}, OPTIM, None,
    ),
    "bfloat16": ({"hidden": 128}, NPO_ALONE, replace(OPTIM, precision="bfloat16"), None),
    "kl": ({"hidden": 128, "vocabulary": 4000}, {"retain": Term(KL(), on="retain")}, OPTIM, None),
    "lora": ({"hidden": 128}, NPO_ILU, OPTIM, Lora(8, 8.0)),
    "fused, one pass": (WIDE, {"retain": NPO_ALONE["retain"]}, FUSED, None),
    "fused, terms in one pass": (
        WIDE, {**NPO_ALONE, "forget": Term(NPO(0.1), on="retain")}, FUSED, None,
    ),
    "fused, two passes": (WIDE, NPO_ALONE, FUSED, None),
    "fused, activations": ({"layers": 12}, {"retain": NPO_ALONE["retain"]}, FUSED, None),
    "fused, recompute, 8 blocks": (
        {"hidden": 256, "layers": 8}, {"retain": NPO_ALONE["retain"]},
        replace(FUSED, recompute=True), None,
    ),
    "fused, micro-batches": (
        WIDE, {"retain": NPO_ALONE["retain"]}, replace(FUSED, micro_batch=2), None,
    ),
    "rmu": (
        {"hidden": 128, "layers": 8}, {"forget": Term(RMU(layer=3), on="forget")},
        replace(OPTIM, parameters=r"layers\.[123]\.mlp\.down"), None,
    ),
}  # fmt: skip


def llama(hidden=64, layers=4, vocabulary=512, **more):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        **more,
    )
    return LlamaForCausalLM(config).eval()


def peak_bytes(work) -> int:
    """The most bytes that were allocated at once while ``work`` ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize("case", CASES)
def test_the_prediction_is_within_15_percent_of_what_is_measured(case):
    widths, objective, optim, lora = CASES[case]
    model = llama(**widths)
    examples = [Example([i * k % 500 + 1 for k in range(LENGTH)], 0) for i in range(1, 17)]
    sizes = {"forget": 4, "retain": 4, "environment": 8}
    streams = {n: Stream(examples, size, 0) for n, size in sizes.items()}
    feeds = {n: Feed(lambda tokenizer: examples, size) for n, size in sizes.items()}
    recipe = Recipe(name="x", model="x", data=feeds, objective=objective, optim=optim,
                    metrics={}, lora=lora)  # fmt: skip
    predicted = peak_memory(recipe, shape_of(model, recipe), LENGTH, "cpu")

    def train():
        with adapting(model, lora, optim.parameters, seed=0) as trained:
            fit(trained.model, objective, streams, replace(optim, parameters=trained.pattern))

    held = sum(p.nbytes for p in model.parameters())
    assert predicted.total == pytest.approx(held + peak_bytes(train), rel=0.15)


@pytest.mark.parametrize("tied", [False, True])
def test_original_weights_in_host_memory_need_a_block_of_the_device(tied, monkeypatch):
    """A copy in the same memory stands for the one on the device."""
    model = llama(**WIDE | {"layers": 6}, tie_word_embeddings=tied)
    objective = {"retain": Term(KL(), on="retain")}
    feeds = {"retain": Feed(lambda tokenizer: [], 4)}
    recipe = Recipe(name="x", model="x", data=feeds, objective=objective, metrics={},
                    optim=replace(OPTIM, offload_reference=True))  # fmt: skip
    shape = shape_of(model, recipe)
    copies = {n: p.detach().clone() for n, p in model.named_parameters()}
    frozen, row = Frozen(model, copies, offloaded=True), batch(examples=1, tokens=2)
    frozen(row)  # the first time tries the output layer
    near = peak_bytes(lambda: frozen(row))
    monkeypatch.setattr(offload, "brought", lambda copy, device: copy.clone())
    predicted = peak_memory(recipe, shape, LENGTH, "cuda").reference
    assert predicted == pytest.approx(peak_bytes(lambda: frozen(row)) - near, rel=0.15)
    assert predicted < 0.6 * peak_memory(recipe, shape, LENGTH, "cpu").reference


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_rules_hold_as_many_gradients_as_the_table_says(rule):
    params = [nn.Parameter(torch.ones(4096)) for _ in range(16)]

    def here() -> Slope:
        return Slope(1.0, tuple(torch.ones(4096) for _ in params))

    used = peak_bytes(lambda: rule(params, here, lambda loss, on: here(), 0))
    assert held_by(rule) == pytest.approx(used / (16 * 4096 * 4), abs=1.1)
    assert getattr(rule, "__name__", type(rule).__name__) in HELD


def test_the_command_proposes_what_fits(ilu):
    asked = ("plan", "npo-ilu", "--model", "lab", "--length", "256", "--batch-size", "64")
    done = ilu(*asked, "--device-memory", "1300MiB", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert not rows[0]["fits"]
    assert rows[2]["fits"]
    done = ilu(*asked, "--device-memory", "1300MiB")
    assert "--recompute" in done.stdout.splitlines()[-1]
    assert ilu(*asked, "--device-memory", "lots").returncode == 2
    by = {row["settings"]: row for row in rows}
    away = by["--recompute --micro-batch 1 --offload-reference"]["reference"]
    assert 0 < away < by["--recompute --micro-batch 1"]["reference"]
    assert FUSED_FLAGS not in by  # the penalty's rule comes after its gradient


def test_a_fused_backward_pass_is_proposed_where_it_can_be():
    rows = choices(build("npo", {"model": "lab"}), 64, 1e12, Ranks())
    assert {row.settings: row.fits for row in rows}[FUSED_FLAGS]


def test_running_out_of_memory_ends_in_one_line_that_helps():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    for error in (caught.value, torch.OutOfMemoryError("CUDA out of memory. Tried ...")):
        assert out_of_memory(error)
        assert "--micro-batch" in one_line(error)
        assert "ilu plan" in one_line(error)
    assert not out_of_memory(RuntimeError("shapes do not match"))


def test_sizes_are_read_as_they_are_written():
    assert bytes_of("24GiB") == 24 * 2**30
    assert bytes_of("80GB") == 80e9
