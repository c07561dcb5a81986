"""Whether two results of float32 kernels are the same but for the order of their sums."""

from collections.abc import Mapping

from torch import Tensor

ROUNDING = 2e-5
"""Largest difference, as a share of the largest value: about 170 times the spacing of float32.

Kernels for other processors add in another order.
"""


def assert_same_to_rounding(found: Tensor, wanted: Tensor, share: float = ROUNDING) -> None:
    """Compare with the scale of what is compared, never with an absolute number."""
    scale = wanted.abs().max().item()
    assert found.shape == wanted.shape
    assert scale > 0, "the comparison of zeros could not fail"
    worst = (found - wanted).abs().max().item()
    assert worst <= share * scale, (
        f"differs by {worst / scale:.1e} of the largest value {scale:.3g}"
    )


def apart(a: Mapping[str, Tensor], b: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> float:
    """Distance of two trained models, relative to the distance that training moved the first.

    The first steps of AdamW have the sign of the gradient, so single weights whose gradient is only
    rounding may move in either direction.
    """
    moved = sum((a[n] - start[n]).square().sum().item() for n in a)
    return (sum((a[n] - b[n]).square().sum().item() for n in a) / moved) ** 0.5
