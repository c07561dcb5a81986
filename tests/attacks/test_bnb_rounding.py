"""Rounding as bitsandbytes does it: against the definition, and against the library where it is."""

import pytest
import torch
from scipy.stats import norm

from ilu.attacks.bnb_rounding import LEVELS, BnbRounding, int8, nf4
from ilu.attacks.kind import AttackInputs
from ilu.attacks.quantise import quantise
from ilu.models.matrices import weight_matrices

SHAPES = [(6, 128), (3, 100), (5, 7)]


def none(*given):
    """Nothing is trained."""


def weights(shape):
    draw = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    draw[0, :4] = 0
    return draw * 3


def test_the_levels_are_normal_quantiles_with_an_exact_zero():
    """arXiv 2305.14314: 8 quantiles up, 7 down, evenly spaced in probability, scaled to 1."""
    end = 0.9677083
    up = [norm.ppf(end + (0.5 - end) * i / 8) for i in range(8)]
    down = [-norm.ppf(end + (0.5 - end) * i / 7) for i in range(7)]
    largest = max(up)
    expected = sorted([*(x / largest for x in (*up, *down)), 0.0])
    assert list(LEVELS) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_nf4_takes_the_nearest_level_of_each_block(shape):
    w = weights(shape)
    flat, expected = w.flatten().tolist(), []
    for start in range(0, len(flat), 64):
        block = flat[start : start + 64]
        scale = max(map(abs, block))
        expected += [min((scale * x for x in LEVELS), key=lambda y, w=w: abs(y - w)) for w in block]
    assert torch.allclose(nf4(w).flatten(), torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_rounds_each_row_to_steps_of_its_largest_weight(shape):
    w = weights(shape)
    for row, rounded in zip(w.half().tolist(), int8(w).tolist(), strict=True):
        step = max(map(abs, row)) / 127
        assert rounded == pytest.approx([round(x / step) * step for x in row], abs=1e-5)


def test_zeros_stay_zeros():
    for rounded in (nf4, int8):
        assert torch.equal(rounded(torch.zeros(2, 70)), torch.zeros(2, 70))


@pytest.mark.parametrize("shape", SHAPES)
def test_is_what_bitsandbytes_makes(shape):
    library = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is missing")
    w = weights(shape)
    packed, state = library.quantize_4bit(w, blocksize=64, quant_type="nf4")
    assert torch.allclose(nf4(w), library.dequantize_4bit(packed, state), atol=1e-6)
    codes, scale, _ = library.int8_vectorwise_quant(w.half())
    assert torch.allclose(int8(w), library.int8_vectorwise_dequant(codes, scale), atol=1e-6)


@pytest.mark.parametrize("form", ["nf4", "int8"])
def test_rounds_the_matrices_and_nothing_else(form, tiny):
    before = {n: p.detach().clone() for n, p in tiny.named_parameters()}
    inputs = AttackInputs(task=none, documents=none, half=none)
    attack = quantise(form, inputs)
    assert attack.change == BnbRounding(form)
    attack.change(tiny)
    changed = {n for n, p in tiny.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(weight_matrices(tiny))


def test_an_unknown_format_is_a_users_error():
    inputs = AttackInputs(task=none, documents=none, half=none)
    with pytest.raises(ValueError, match="'gptq' is no number: write bits, nf4 or int8"):
        quantise("gptq", inputs)
