"""Triton's kernels between the products against the plain functions of elementwise.py.

Compiled on a GPU, elsewhere interpreted by Triton.
"""

from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.examples import max_examples
from tests.trainables.packing.compute.test_packed_model import random_model
from tests.trainables.packing.small_packs import pass_of
from trainables.data.tokens import Example
from trainables.packing.compute import elementwise
from trainables.packing.compute.adapters import Adapters
from trainables.packing.compute.kernels.inputs import HeadLayout
from trainables.packing.compute.model import PLAIN, PackedModel, load_fused

pytest.importorskip("triton", reason="needs Triton: make test-kernels")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []

# Triton 3.8 cuts bfloat16 off where a GPU rounds it, if it interprets; it rounds float16.
ROUNDED = torch.bfloat16 if DEVICE == "cuda" else torch.float16
# Plain functions round a gradient several times: of few numbers up to 0.5%, seen on an H200.
NEAR = {torch.float32: 1e-6, torch.bfloat16: 1e-2 if DEVICE == "cuda" else 3e-2}


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


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize(
    ("num_heads", "head_dim", "num_turned"),
    [((16, 8), 128, 128), ((14, 2), 64, 64), ((8, 2), 256, 64), ((3, 1), 20, 6)],
)
@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("is_gated", [False, True])
def test_heads_are_those_of_torch(
    dtype: torch.dtype,
    num_heads: tuple[int, int],
    head_dim: int,
    num_turned: int,
    has_norm: bool,
    is_gated: bool,
) -> None:
    """The projection may be part of wider rows; zero-centred norms have float32 weights."""
    q_size, kv_size = (number * head_dim for number in num_heads)
    layout = HeadLayout((q_size * (1 + is_gated), kv_size, kv_size), head_dim, is_gated)
    wide = torch.randn(9, 5 + sum(layout.sizes), device=DEVICE, dtype=dtype, requires_grad=True)
    angles = torch.rand(2, 9, num_turned, device=DEVICE).sub(0.5).to(dtype).unbind()
    weight_dtype = torch.float32 if is_gated else dtype
    weights = torch.rand(2, head_dim, device=DEVICE, dtype=weight_dtype)
    norms = elementwise.Norms(*weights) if has_norm else None
    numbers = (num_heads[0], num_heads[1], num_heads[1], num_heads[0])
    grads = [torch.randn(9, number, head_dim, device=DEVICE, dtype=dtype) for number in numbers]
    found = []
    for ops in (PLAIN, load_fused()):
        made = [
            one for one in ops.heads(wide[:, 5:], norms, *angles, layout, 1e-6) if one is not None
        ]
        assert len(made) == 3 + is_gated
        found.append([*made, *torch.autograd.grad(made, wide, grads[: len(made)])])
    assert_near(found[1], found[0], NEAR[dtype])


@pytest.mark.parametrize("dtype", NEAR)
@max_examples(8)
@given(
    num_tokens=st.integers(1, 9), num_heads=st.integers(1, 12), head_dim=st.sampled_from([20, 256])
)
def test_gated_heads_are_those_of_torch(
    dtype: torch.dtype, num_tokens: int, num_heads: int, head_dim: int
) -> None:
    """The gates are part of a projection."""
    layout = HeadLayout((2 * num_heads * head_dim, head_dim, head_dim), head_dim, is_gated=True)
    projected = torch.randn(num_tokens, sum(layout.sizes), device=DEVICE, dtype=dtype)
    mixed, grad = torch.randn(2, num_tokens, num_heads * head_dim, device=DEVICE, dtype=dtype)
    inputs = (mixed.requires_grad_(), projected.requires_grad_())
    found = []
    for ops in (PLAIN, load_fused()):
        gated = ops.gate_heads(mixed, layout.split(projected)[3])
        found.append([gated, *torch.autograd.grad(gated, inputs, grad)])
    assert_near(found[1], found[0], NEAR[dtype])


@pytest.mark.parametrize("dtype", NEAR)
@max_examples(8)
@given(
    num_tokens=st.integers(1, 7),
    num_heads=st.integers(1, 48),
    num_features=st.sampled_from([20, 33, 128]),
    is_part=st.booleans(),
)
def test_gated_norm_is_that_of_torch(
    dtype: torch.dtype, num_tokens: int, num_heads: int, num_features: int, is_part: bool
) -> None:
    """The gate may be part of wider rows."""
    from trainables.packing.compute.kernels import delta_gate  # needs Triton

    shape, width = (num_tokens, num_heads, num_features), num_heads * num_features
    mixed = torch.randn(shape, device=DEVICE, dtype=dtype, requires_grad=True)
    wide = torch.randn(num_tokens, 2 * width + 3, device=DEVICE, dtype=dtype, requires_grad=True)
    weights = torch.randn(num_tokens, width, device=DEVICE, dtype=dtype)
    for weight_dtype in {dtype, torch.float32}:
        norm_E = torch.rand(num_features, device=DEVICE, dtype=weight_dtype)
        found = []
        for gate_norm in (elementwise.gate_norm, delta_gate.gate_norm):
            z = wide[:, 3 : 3 + width] if is_part else wide[:, :width].contiguous()
            gated = gate_norm(mixed, z, norm_E, 1e-6)
            grads = torch.autograd.grad((gated * weights).sum(), (mixed, wide))
            found.append([gated, *grads])
        assert_near(found[1], found[0], NEAR[dtype])


@pytest.mark.parametrize("weight_dtype", [ROUNDED, torch.float32])
def test_gated_norm_rounds_where_torch_does(weight_dtype: torch.dtype) -> None:
    from trainables.packing.compute.kernels import delta_gate  # needs Triton

    mixed = torch.randn(33, 16, 128, device=DEVICE, dtype=ROUNDED)
    z = torch.randn(33, 16 * 128, device=DEVICE, dtype=ROUNDED)
    norm_E = torch.rand(128, device=DEVICE, dtype=weight_dtype)
    found, expected = (
        gate_norm(mixed, z, norm_E, 1e-6)
        for gate_norm in (delta_gate.gate_norm, elementwise.gate_norm)
    )
    assert share_of_equal(found, expected) > 0.99


@pytest.mark.slow
def test_fused_hybrid_gives_the_losses_and_gradients_of_a_plain_one() -> None:
    """In float32, in which the delta rule has no kernels."""
    model = random_model("qwen3_5").to(DEVICE)
    rows = [Example.from_ids(list(range(1, length)), [1, 2]) for length in (9, 4, 6)]
    batch = pass_of([rows[:1], rows[1:]], device=DEVICE)
    found = []
    for is_fused in (True, False):
        adapters = Adapters(model.config, 2, 4, torch.device(DEVICE))
        torch.manual_seed(0)
        adapters.params_KP.copy_(torch.randn_like(adapters.params_KP) * 0.1)
        adapters.scaling_KJ.fill_(1.0)
        packed = PackedModel(model, adapters, False, is_fused)
        embedded_ND = packed.embed(batch)
        losses_K = packed.losses(embedded_ND, batch)
        grads = torch.autograd.grad(losses_K.sum(), embedded_ND)
        found.append([losses_K, *grads, adapters.grads_KP])
    assert_near(found[0], found[1], 1e-5)
