"""The study of ILU and tuned baselines."""

from dataclasses import replace

import pytest

from ilu.lab.sources import TaskTrain
from ilu.models.load import load_model
from studies.ilu_vs_baselines.groups import VARIANTS
from studies.ilu_vs_baselines.perturbed import PerturbedTexts
from studies.ilu_vs_baselines.run import carry_out, perturbed


@pytest.fixture(scope="module")
def tokenizer():
    return load_model("lab").tokenizer


def test_a_perturbed_source_keeps_its_answers(tokenizer):
    """One data set as several environments: other prompts, the same lengths and answers."""
    source = TaskTrain("sums")
    plain = source(tokenizer)
    one, again, other = (PerturbedTexts(source, 0.2, seed)(tokenizer) for seed in (1, 1, 2))
    assert one == again != other
    assert [(e.ids[e.prompt :], e.prompt) for e in one] == [
        (e.ids[e.prompt :], e.prompt) for e in plain
    ]
    pairs = [(a, b) for x, y in zip(one, plain, strict=True)
             for a, b in zip(x.ids[: x.prompt], y.ids[: y.prompt], strict=True)]  # fmt: skip
    assert sum(a != b for a, b in pairs) / len(pairs) == pytest.approx(0.2, abs=0.02)
    assert PerturbedTexts(source, 0.0)(tokenizer) == list(plain)
    with pytest.raises(ValueError, match=r"share 1\.5: it must be from 0 to 1"):
        PerturbedTexts(source, 1.5)


def test_a_variant_with_perturbed_environments_is_carried_out(tmp_path):
    """Its recipe names a type that is not part of the package, which a record cannot restore."""
    variant = VARIANTS["directions"]["rmu-ilu gradient, layerwise, three perturbed"]
    made = variant.built(0, 0)
    quick = replace(made, optim=replace(made.optim, steps=1), metrics={})
    assert perturbed(quick)
    assert not perturbed(VARIANTS["directions"]["rmu 450 steps"].built(0, 0))
    for _ in range(2):  # the second finds the run finished
        (ended,) = carry_out({tmp_path / "run": quick}, 1)
        assert ended.error is None
        assert (tmp_path / "run" / "done.json").is_file()
