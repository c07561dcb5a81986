"""Geometry of weights and of hidden states, against values derived by hand."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ilu.cli.landscape import main as landscape_command
from ilu.evals.geometry import task_vectors
from ilu.evals.geometry.cka import layer_cka, linear_cka
from ilu.evals.geometry.landscape import (
    filter_normalised,
    orthogonal_towards,
    position,
    surface,
    towards,
    weights_of,
)
from ilu.evals.geometry.task_vectors import (
    angles,
    cosines,
    effective_rank,
    effective_ranks,
    grams,
    grouped,
    known,
    norms,
    pieces,
)
from ilu.evals.score import mean_score
from ilu.models.load import load_model
from ilu.models.named import model_path
from ilu.models.stored import StoredWeights
from ilu.models.weight_files import FileWeights
from ilu.models.weight_names import kind_of, module_of
from ilu.runs.report.gather import gather
from ilu.runs.report.page import page
from ilu.runs.report.svg import landscape_svg
from ilu.runs.report.table import make_table
from ilu.types import LM, Example
from tests.conftest import make_tiny
from tests.fabricate import defended

W = "model.layers.0.mlp.down_proj.weight"


def stored(folder: Path, **shards: dict[str, torch.Tensor]) -> FileWeights:
    folder.mkdir()
    for name, tensors in shards.items():
        save_file(tensors, folder / f"{name}.safetensors")
    index = {name: f"{shard}.safetensors" for shard, tensors in shards.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return FileWeights(folder)


def at(folder: Path, x: float, y: float) -> FileWeights:
    return stored(folder, one={W: torch.tensor([[x, y]], dtype=torch.bfloat16)})


def test_angles_of_task_vectors(tmp_path):
    places = {
        "original": (0, 0),
        "unlearned": (1, 0),
        "finetuned": (1, 2),
        "tuned_original": (-3, 0),
    }
    found = {name: at(tmp_path / name, *place) for name, place in places.items()}
    assert angles(found) == (0, 0, -1)
    assert angles({**found, "finetuned": found["unlearned"]}).ft_after_u__u is None


def test_parts_add_up_to_the_whole(tmp_path):
    names = ("model.embed_tokens.weight", W, W.replace("0", "1"), "model.norm.weight")
    sizes = dict(zip(names, (3.0, 4.0, 12.0, 0.0), strict=True))
    zero = stored(tmp_path / "o", a={n: torch.zeros(2, 2) for n in names})
    moved = {n: torch.tensor([[size, 0], [0, 0]]) for n, size in sizes.items()}
    (first, *rest) = moved
    end = stored(tmp_path / "u", a={first: moved[first]}, b={n: moved[n] for n in rest})
    pair = {"original": zero, "unlearned": end}
    found = grams(pair)
    taus = known(pair)
    assert norms(grouped(found, lambda n: "")[""], taus) == {"u": 13.0}
    by_layer = {k: norms(g, taus)["u"] for k, g in grouped(found, module_of).items()}
    assert by_layer == {"embed_tokens": 3, "block 0": 4, "block 1": 12, "norm": 0}
    by_kind = {k: norms(g, taus)["u"] for k, g in grouped(found, kind_of).items()}
    assert by_kind == {"embed_tokens": 3, "mlp.down_proj": pytest.approx(160**0.5), "norm": 0}
    assert cosines(found[W], taus) == {}


def test_models_of_other_shapes_are_refused(tmp_path):
    one = at(tmp_path / "a", 0, 0)
    other = stored(tmp_path / "b", a={"b": torch.zeros(1)})
    longer = stored(tmp_path / "c", a={W: torch.zeros(1, 3)})
    with pytest.raises(ValueError, match="differ in 2 weight names"):
        grams({"original": one, "unlearned": other})
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 3\)"):
        grams({"original": one, "unlearned": longer})


@pytest.mark.parametrize("shape", [(7, 3), (7,), (), (1, 50), (2, 3, 4)])
def test_pieces_cover_every_row_once(shape, tmp_path, monkeypatch):
    assert [r for a, b in pieces(shape, 6) for r in range(a, b)] == list(
        range(shape[0] if shape else 1)
    )
    w = torch.randn(shape)
    pair = {
        "original": stored(tmp_path / "o", a={"w": torch.zeros(shape)}),
        "unlearned": stored(tmp_path / "u", a={"w": w}),
    }
    monkeypatch.setattr(task_vectors, "pieces", lambda shape: pieces(shape, 6))
    assert grams(pair)["w"].item() == pytest.approx(w.double().square().sum().item())


def test_only_pieces_are_held(tmp_path, monkeypatch):
    """No read is larger than a piece, and a piece of each model at a time is all there is."""
    pair = {
        name: stored(tmp_path / name, a={"w": torch.randn(100, 10)})
        for name in ("original", "unlearned", "finetuned")
    }
    read: list[int] = []
    rows = FileWeights.rows

    def counted(self, name, start, stop):
        found = rows(self, name, start, stop)
        read.append(found.numel())
        return found

    monkeypatch.setattr(FileWeights, "rows", counted)
    monkeypatch.setattr(task_vectors, "pieces", lambda shape: pieces(shape, 50))
    grams(pair)
    assert set(read) == {50}
    assert len(read) == 3 * 20


def test_effective_rank():
    assert effective_rank(torch.eye(5)) == pytest.approx(5, rel=1e-5)
    assert effective_rank(torch.outer(torch.ones(4), torch.arange(3.0))) == pytest.approx(
        1, abs=1e-3
    )
    assert effective_rank(torch.zeros(2, 2)) == 0
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(math.exp(entropy))


def test_effective_rank_is_that_of_the_difference(tmp_path):
    start = torch.randn(4, 4)
    pair = {
        "original": stored(tmp_path / "o", a={"w": start, "v": torch.ones(4)}),
        "unlearned": stored(tmp_path / "u", a={"w": start + torch.eye(4), "v": torch.ones(4)}),
    }
    assert effective_ranks(pair) == {"w": {"u": pytest.approx(4, rel=1e-4)}}


def test_cka_knows_rotations_and_independence():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(2000, 6, generator=draw), torch.randn(2000, 6, generator=draw)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=draw)).Q
    assert linear_cka(x, x) == pytest.approx(1)
    assert linear_cka(x, 3 * x @ rotation + 7) == pytest.approx(1, abs=1e-5)
    assert linear_cka(x, y) == pytest.approx(6 / 2006, abs=0.003)
    assert linear_cka(x, torch.ones(2000, 2)) is None
    a, b = torch.tensor([[1.0, 0], [-1, 0], [0, 0]]), torch.tensor([[1.0], [0], [-1]])
    assert linear_cka(a, b) == pytest.approx(1 / (2 * 2))  # |b'a|^2 = 1, both norms 2


def test_blocks_are_in_the_order_of_their_numbers():
    gram = torch.ones(1, 1)
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in ("0", "1", "10", "11", "2", "9")]
    groups = grouped(dict.fromkeys([*names, "model.norm.weight"], gram), module_of)
    assert list(groups) == [*(f"block {i}" for i in (0, 1, 2, 9, 10, 11)), "norm"]


def test_cka_by_layer_leaves_padding_and_first_tokens_out():
    one, other = LM(make_tiny(), None), LM(make_tiny(), None)
    examples = [Example([1, 2, 3, 4], 0), Example([1, 5], 0)]
    same = layer_cka(one, other, examples)
    assert same == {"layers": [pytest.approx(1), pytest.approx(1)], "tokens": 4, "width": 16}
    with torch.no_grad():
        other.model.model.layers[1].mlp.down_proj.weight.normal_()
    changed = layer_cka(one, other, examples)["layers"]
    assert changed[0] == pytest.approx(1)
    assert changed[1] < 0.999


def value_of(lm: LM):
    return {"first": mean_score([next(lm.model.parameters()).flatten()[0].item()])}


def test_a_line_ends_at_its_models_and_leaves_the_model_as_it_was():
    lm = LM(make_tiny(), None)
    start = weights_of(lm.model)
    end = {n: w + 2 for n, w in start.items()}
    axis = towards("end", start, end)
    points = surface(lm, [axis], [[0.0, 0.5, 1.0]], value_of)
    first = next(iter(start.values())).flatten()[0].item()
    assert [p["scores"]["first"]["value"] - first for p in points] == pytest.approx([0, 1, 2])
    assert axis.length == pytest.approx(2 * sum(w.numel() for w in start.values()) ** 0.5)
    assert all(torch.equal(w, start[n]) for n, w in weights_of(lm.model).items())


def test_a_plane_goes_through_its_three_models():
    origin, a, b = ({"w": torch.tensor(w)} for w in ([0.0, 0], [2.0, 0], [1.0, 3]))
    first = towards("a", origin, a)
    second = orthogonal_towards("b", origin, b, first)
    assert second.direction["w"].tolist() == [0, 3]
    assert position(origin, a, [first, second]) == [1, 0]
    assert position(origin, b, [first, second]) == [0.5, 1]


def test_random_directions_have_filters_as_long_as_the_weights():
    w = {"m": torch.tensor([[3.0, 4.0], [0.0, 0.0]]), "v": torch.ones(3)}
    axis = filter_normalised(w, seed=0)
    assert axis.direction["m"].norm(dim=1).tolist() == pytest.approx([5, 0])
    assert not axis.direction["v"].any()
    assert torch.equal(axis.direction["m"], filter_normalised(w, seed=0).direction["m"])
    assert not torch.equal(axis.direction["m"], filter_normalised(w, seed=1).direction["m"])


def landscape(axes: int) -> dict:
    steps = [0.0, 0.5, 1.0]
    grid = [[x] for x in steps] if axes == 1 else [[x, y] for x in steps for y in steps]
    return {
        "axes": [{"towards": "original", "length": 1.0, "steps": steps}] * axes,
        "models": {"unlearned": [0.0] * axes, "original": [1.0] * axes, "<script>": [1.0] * axes},
        "points": [{"at": p, "scores": {"<b>loss": {"value": sum(p), "stderr": 0}}} for p in grid],
    }


def test_a_landscape_between_two_architectures_is_refused(tmp_path, tiny):
    tiny.save_pretrained(tmp_path / "tiny")
    load_model("lab").tokenizer.save_pretrained(tmp_path / "tiny")
    with pytest.raises(ValueError, match=r"weight names|not the same architecture"):
        landscape_command(
            ["lab", str(tmp_path / "tiny"), "--suite=lab", f"--out={tmp_path / 'x.json'}"]
        )
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("axes", [1, 2])
def test_a_landscape_is_drawn_from_its_record_alone(axes):
    svg = landscape_svg(landscape(axes), "<b>loss")
    assert svg.startswith("<svg")
    assert svg == landscape_svg(landscape(axes), "<b>loss")
    assert "script" not in svg
    assert ">U<" in svg
    assert ">O<" in svg


def test_the_report_shows_landscapes_and_hidden_states_where_there_are_any(tmp_path):
    run, plain = defended(tmp_path / "run"), defended(tmp_path / "plain", "rmu")
    without = page(make_table(gather([plain])[0]), [])
    assert "Landscapes" not in without
    assert "Hidden states" not in without
    (run / "landscape.json").write_text(json.dumps(landscape(2)))
    (run / "representations.json").write_text(
        json.dumps({"cka": {"<i>forget": {"layers": [1.0, None, 0.5], "tokens": 9, "width": 4}}})
    )
    runs, broken = gather([run, plain])
    html = page(make_table(runs), broken)
    assert not broken
    assert "&lt;b&gt;loss" in html
    assert "&lt;i&gt;forget" in html
    (run / "landscape.json").write_text('{"points": 3}')
    assert "cannot be read" in gather([run])[1][0].state


def test_the_lab_model_is_read_in_pieces_as_it_is_loaded_whole():
    folder = StoredWeights(Path(model_path("lab")))
    whole = dict(load_model("lab").model.named_parameters())
    for name, shape in folder.shapes().items():
        assert torch.equal(folder.rows(name, 0, 1).float(), whole[name][:1])
        assert shape == tuple(whole[name].shape)
