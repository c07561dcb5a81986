"""What weights in parts need, in one process of two: the other is made up, memory is not."""

import json

import pytest
import torch
import torch.distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from ilu.cli.plan import main as plan
from ilu.data.stream import Feed, Stream
from ilu.models.fsdp import shard
from ilu.models.load import load_model, read_weights
from ilu.models.load_sharded import load_sharded
from ilu.runs.memory.model_shape import shape_of
from ilu.runs.memory.peak_sharded import peak_in_parts
from ilu.runs.recipe import Recipe
from ilu.system.distributed import Ranks, local
from ilu.training.fit import fit
from ilu.types import Example
from tests.runs.test_memory import CASES, LENGTH, llama, peak_bytes

BOTH = Ranks(0, 2, sharded=True)


@pytest.fixture(scope="module")
def first_of_two():
    """The first process, whose gradients are its own; torch's made-up group leaves them unset."""
    given = torch.distributed.reduce_scatter_tensor

    def own(output, input, **options):
        output.copy_(input.view(2, -1)[0])

    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    torch.distributed.reduce_scatter_tensor = own
    yield BOTH
    torch.distributed.reduce_scatter_tensor = given
    torch.distributed.destroy_process_group()


def test_a_process_never_holds_more_than_its_part(first_of_two, tmp_path):
    model = llama(hidden=128, layers=4)
    model.save_pretrained(tmp_path)
    load_model("lab").tokenizer.save_pretrained(tmp_path)
    found: list[torch.nn.Module] = []
    peak = peak_bytes(lambda: found.append(load_sharded(str(tmp_path), first_of_two).model))
    weights = sum(p.nbytes for p in model.parameters())
    mapped = (tmp_path / "model.safetensors").stat().st_size  # counted, but no memory of its own
    assert peak - mapped < 0.55 * weights
    saved = read_weights(tmp_path)
    for name, p in found[0].named_parameters():
        assert torch.equal(local(p.detach()), saved[name].chunk(2)[0])


@pytest.mark.parametrize(
    "case",
    [
        n for n, (_, _, _, lora) in CASES.items()
        if lora is None
    ],
)  # fmt: skip
def test_the_prediction_for_parts_is_within_15_percent_of_what_is_measured(case, first_of_two):
    widths, objective, optim, _ = CASES[case]
    model = llama(**widths)
    examples = [Example([i * k % 500 + 1 for k in range(LENGTH)], 0) for i in range(1, 17)]
    sizes = {"forget": 4, "retain": 4, "environment": 8}
    streams = {n: Stream(examples, size, 0) for n, size in sizes.items()}
    feeds = {n: Feed(lambda tokenizer: examples, size) for n, size in sizes.items()}
    recipe = Recipe(name="x", model="x", data=feeds, objective=objective, optim=optim, metrics={})
    predicted = peak_in_parts(recipe, shape_of(model, recipe), LENGTH, 2)
    shard(model, first_of_two)
    held = sum(local(p.detach()).nbytes for p in model.parameters())
    peak = peak_bytes(lambda: fit(model, objective, streams, optim, ranks=first_of_two))
    assert predicted.total == pytest.approx(held + peak, rel=0.15)


def test_the_plan_of_shards_leaves_out_what_they_cannot_do(capsys):
    def rows(*flags):
        plan(["npo", "--model", "lab", "--batch-size", "4", "--json", *flags])
        return json.loads(capsys.readouterr().out)

    alone, both = rows(), rows("--shard", "2")
    assert both[0]["weights"] == alone[0]["weights"] / 2
    named = " ".join(row["settings"] for row in both)
    assert "--recompute" in named
    assert "lora" not in named
    assert "8bit" not in named
    for flags, message in ((["--shard", "3"], "multiples of 3"), (["--shard"], "how many")):
        with pytest.raises(ValueError, match=message):
            rows(*flags)
