"""Triton's kernels between the products against the plain functions of elementwise.py.

Compiled on a GPU, elsewhere interpreted by Triton.
"""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from trainables.packing.compute.model import PLAIN, load_fused

pytest.importorskip("triton", reason="needs Triton: make test-kernels")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []

# Triton 3.8 cuts bfloat16 off where a GPU rounds it, if it interprets; it rounds float16.
ROUNDED = torch.bfloat16 if DEVICE == "cuda" else torch.float16
NEAR = {torch.float32: 1e-6, torch.bfloat16: 5e-3 if DEVICE == "cuda" else 1e-2}


def assert_near(found: Iterable[Tensor], expected: Iterable[Tensor], near: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        error = (one - other).detach().float().norm() / other.detach().float().norm()
        assert float(error) < near


def share_of_equal(found: Tensor, expected: Tensor) -> float:
    """Sums in another order move a few numbers across a bound of rounding."""
    return float((found == expected).float().mean())


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("num_features", [64, 1000, 2560])
@pytest.mark.parametrize("has_other", [False, True])
def test_sum_and_norm_are_those_of_torch(
    dtype: torch.dtype, num_features: int, has_other: bool
) -> None:
    """The gradient adds what came past the norm; zero-centred norms have float32 weights."""
    x, y, *weights = torch.randn(4, 33, num_features, device=DEVICE, dtype=dtype).unbind()
    inputs = [one.requires_grad_() for one in (x, y)][: 1 + has_other]
    for weight_dtype in {dtype, torch.float32}:
        norm_D = torch.rand(num_features, device=DEVICE, dtype=weight_dtype)
        found = []
        for ops in (PLAIN, load_fused()):
            made = ops.add_norm(x, y if has_other else None, norm_D, 1e-6)
            total = sum((one * weight).sum() for one, weight in zip(made, weights, strict=True))
            found.append([*made, *torch.autograd.grad(total, inputs)])
        assert_near(found[1], found[0], NEAR[dtype])


@pytest.mark.parametrize("weight_dtype", [ROUNDED, torch.float32])
def test_sum_and_norm_round_where_torch_does(weight_dtype: torch.dtype) -> None:
    x, y = torch.randn(2, 33, 1000, device=DEVICE, dtype=ROUNDED).unbind()
    norm_D = torch.rand(1000, device=DEVICE, dtype=weight_dtype)
    found, expected = (ops.add_norm(x, y, norm_D, 1e-6) for ops in (load_fused(), PLAIN))
    assert torch.equal(found[0], expected[0])
    assert share_of_equal(found[1], expected[1]) > 0.99


def test_gate_is_that_of_torch() -> None:
    gate_up = torch.randn(33, 2 * 1500, device=DEVICE, requires_grad=True)
    weights = torch.randn(33, 1500, device=DEVICE)
    found = [
        (made, torch.autograd.grad((made * weights).sum(), gate_up)[0])
        for made in (PLAIN.swiglu(gate_up), load_fused().swiglu(gate_up))
    ]
    torch.testing.assert_close(found[1], found[0])
