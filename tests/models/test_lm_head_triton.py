"""The Triton kernels of the output layer: what they compute, that they compile, when they serve."""

import os
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ilu.models import lm_head_triton
from tests.conftest import ROOT

GPU = torch.device("cuda:0")


def test_values_and_gradients_are_exact():
    """On a GPU where there is one, else in Triton's interpreter."""
    pytest.importorskip("triton", reason="no Triton to interpret the kernels: pip install triton")
    here = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    alone = ["--noconftest", "-p", "no:cacheprovider", "-q", "tests/kernel_trial.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *alone],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **here},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("capability", "dtype"), [(80, "bf16"), (90, "fp32")])
def test_both_compile_to_machine_code(capability, dtype, tmp_path, monkeypatch):
    """The interpreter lets pass what the compiler does not; neither needs a GPU."""
    triton = pytest.importorskip("triton", reason="no Triton to compile the kernels")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    half = dtype == "bf16"
    fixed = {"ENTROPY": half, "WIDE": lm_head_triton.TILE}
    more = {"SCALE": 0.5, "CAP": 30.0 if half else None}
    numbers = {"columns": "i32", "stride": "i32"}
    forward = {"z": f"*{dtype}", "y": "*i64", "state": "*fp32", **numbers, "rows": "i32"}
    backward = {"z": f"*{dtype}", "out": f"*{dtype}", "y": "*i64", "of_row": "*fp32", **numbers}
    calls = zip(
        lm_head_triton.compiled(), (forward, backward), (fixed, {**more, **fixed}), strict=True
    )
    for one, types, constants in calls:
        source = ASTSource(one, types | dict.fromkeys(constants, "constexpr"), constants)
        target = GPUTarget("cuda", capability, 32)
        made = triton.compile(source, target=target, options={"num_warps": lm_head_triton.WARPS})
        assert made.asm["cubin"]
        assert "st.global" in made.asm["ptx"]


@pytest.fixture
def logits(monkeypatch):
    """A tensor as on a GPU, which holds nothing, beside an installed Triton."""
    monkeypatch.setattr(lm_head_triton, "find_spec", lambda name: object())
    lm_head_triton.trusted.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.empty(2, 3, device=GPU, dtype=torch.bfloat16)
    lm_head_triton.trusted.cache_clear()


def test_kernels_serve_where_they_gave_the_right_numbers_once(logits, monkeypatch):
    tried = []
    monkeypatch.setattr(lm_head_triton, "agrees", lambda *where: tried.append(where) or True)
    assert lm_head_triton.serves(logits)
    assert lm_head_triton.serves(logits)
    assert tried == [(GPU, torch.bfloat16)]
    assert not lm_head_triton.serves(logits.double())
    assert not lm_head_triton.serves(torch.empty(2, 3, device="cpu"))
    monkeypatch.setenv("ILU_TRITON", "0")
    assert not lm_head_triton.serves(logits)


def test_plain_pytorch_stands_in_and_says_why(logits, monkeypatch):
    monkeypatch.setattr(lm_head_triton, "agrees", lambda *where: False)
    with pytest.warns(UserWarning, match=r"bfloat16 on cuda:0: the numbers are wrong"):
        assert not lm_head_triton.serves(logits)
    monkeypatch.setattr(lm_head_triton, "agrees", lambda *where: 1 / 0)
    with pytest.warns(UserWarning, match="ZeroDivisionError: division by zero"):
        assert not lm_head_triton.serves(logits.float())
    assert not lm_head_triton.serves(logits)  # known, and said once
    lm_head_triton.trusted.cache_clear()
    monkeypatch.setattr(lm_head_triton, "find_spec", lambda name: None)
    assert not lm_head_triton.serves(logits)  # no Triton, no word
