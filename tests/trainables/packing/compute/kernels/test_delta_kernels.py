"""Gated DeltaNet's kernels against plain torch: compiled on a GPU, elsewhere interpreted."""

import importlib.util

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, silu, softplus

from trainables.data.tokens import Example
from trainables.packing.compute.kernels.inputs import DeltaSizes
from trainables.packing.compute.mixers import gated_delta
from trainables.packing.compute.mixers.gated_delta import DeltaWeights
from trainables.packing.compute.packed_batch import (
    MicroBatch,
    PackedInputs,
    pack_batch,
    shape_of,
    unpack_inputs,
)

pytest.importorskip("triton", reason="needs Triton: make test-kernels")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []
HAS_FLA = importlib.util.find_spec("fla") is not None

# Triton 3.8 interprets bfloat16 wrongly: see test_kernels.
DTYPES = [(torch.float32, 1e-5), pytest.param(torch.bfloat16, 1e-2, marks=pytest.mark.gpu)]
SHAPES = [DeltaSizes(2, 16, 4, 24), DeltaSizes(3, 32, 3, 32)]
LENGTHS = (70, 3, 1, 128, 33)
EPS = 1.0
"""The norm of a small number has its sign, which rounding may turn; beside this it stays small."""


def pass_of(lengths: tuple[int, ...], rounding: str = "exact") -> PackedInputs:
    rows = [Example.from_ids([5] * max(0, length - 1), [1] * min(length, 1)) for length in lengths]
    micro_batches = [MicroBatch(0, rows, 0, 7, 3, 0.0, 1.0)]
    shape = shape_of(micro_batches, 1, rounding)  # type: ignore[arg-type]
    packed = pack_batch(micro_batches, shape)
    return unpack_inputs(torch.from_numpy(packed.numbers).to(DEVICE), packed.shape)


def weights_of(sizes: DeltaSizes) -> DeltaWeights:
    torch.manual_seed(1)
    num_channels = 2 * sizes.num_key_heads * sizes.key_head_dim
    num_channels += sizes.num_heads * sizes.value_head_dim
    return DeltaWeights(
        conv_PW=torch.randn(num_channels, 4, device=DEVICE),
        log_decay_H=torch.rand(sizes.num_heads, device=DEVICE),
        bias_H=torch.randn(sizes.num_heads, device=DEVICE),
        norm_E=torch.rand(sizes.value_head_dim, device=DEVICE) + 0.5,
        num_key_heads=sizes.num_key_heads,
        key_head_dim=sizes.key_head_dim,
    )


def project(num_tokens: int, weights: DeltaWeights) -> Tensor:
    num_heads = len(weights.log_decay_H)
    size = len(weights.conv_PW) + num_heads * (len(weights.norm_E) + 2)
    return torch.randn(num_tokens, size, device=DEVICE)


def plain_inputs(
    projected_TO: Tensor, weights: DeltaWeights, sizes: DeltaSizes
) -> tuple[Tensor, ...]:
    """What the kernel gives of one row alone."""
    key, value = sizes.num_key_heads * sizes.key_head_dim, sizes.num_heads * sizes.value_head_dim
    num_heads, num_tokens = sizes.num_heads, len(projected_TO)
    widths = [2 * key + value, value, num_heads, num_heads]
    qkv, z, b, a = torch.split(projected_TO, widths, dim=1)
    conv = weights.conv_PW.to(qkv.dtype)[:, None]
    turned = silu(conv1d(qkv.T[None], conv, padding=3, groups=len(conv))[0, :, :num_tokens].T)
    q, k, v = torch.split(turned, [key, key, value], dim=1)
    q, k = (x.view(num_tokens, sizes.num_key_heads, -1) for x in (q, k))
    q, k = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    decay = -weights.log_decay_H.exp() * softplus(a + weights.bias_H)
    return q, k, v.view(num_tokens, num_heads, -1), decay, b.sigmoid(), z


@pytest.mark.parametrize(("dtype", "near"), DTYPES)
@pytest.mark.parametrize("sizes", SHAPES)
def test_inputs_of_the_rule_are_those_of_each_row_alone(
    dtype: torch.dtype, near: float, sizes: DeltaSizes
) -> None:
    from trainables.packing.compute.kernels.delta_inputs import delta_inputs  # needs Triton

    inputs, weights = pass_of(LENGTHS), weights_of(sizes)
    projected_NO = project(sum(LENGTHS), weights).to(dtype).requires_grad_()
    frozen = (weights.conv_PW, weights.log_decay_H, weights.bias_H, inputs.position_ids_N)
    found = list(delta_inputs(projected_NO, *frozen, sizes))
    rows = torch.split(projected_NO.float(), list(LENGTHS))
    alone = [plain_inputs(row, weights, sizes) for row in rows]
    expected = [torch.cat(parts) for parts in zip(*alone, strict=True)]
    seeds = [
        torch.randn_like(part).to(own.dtype) for part, own in zip(expected, found, strict=True)
    ]
    for one, other in zip(found, expected, strict=True):
        assert largest(one, other) < near
    (own,) = torch.autograd.grad(found, projected_NO, seeds)
    (other,) = torch.autograd.grad(expected, projected_NO, [seed.float() for seed in seeds])
    assert largest(own, other) < near


def test_a_row_of_nan_leaves_its_neighbours_as_they_are() -> None:
    from trainables.packing.compute.kernels.delta_inputs import delta_inputs  # needs Triton

    inputs, sizes = pass_of(LENGTHS), SHAPES[0]
    weights, found = weights_of(sizes), []
    projected_NO = project(sum(LENGTHS), weights)
    broken_NO = projected_NO.clone()
    broken_NO[70:73] = torch.nan
    frozen = (weights.conv_PW, weights.log_decay_H, weights.bias_H, inputs.position_ids_N)
    for part_NO in (projected_NO, broken_NO):
        outputs = delta_inputs(part_NO.requires_grad_(), *frozen, sizes)
        grads = [part.detach() for part in outputs]
        found.append((*grads, *torch.autograd.grad(outputs, part_NO, grads)))
    for whole, broken in zip(*found, strict=True):
        assert broken[70:73].isnan().all()
        assert torch.equal(whole[:70], broken[:70]) and torch.equal(whole[73:], broken[73:])


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_FLA, reason="needs fla-core: pip install '.[hybrid]'")
@pytest.mark.parametrize("sizes", [DeltaSizes(2, 128, 4, 128), DeltaSizes(3, 64, 3, 64)])
def test_kernels_mix_each_row_as_alone(sizes: DeltaSizes) -> None:
    """Filled up to a captured shape or not, in bfloat16, forward and backward."""
    weights = weights_of(sizes)
    projected_NO = project(sum(LENGTHS), weights)
    expected, grads = [], []
    seed_NF = torch.randn(sum(LENGTHS), sizes.num_heads * sizes.value_head_dim, device=DEVICE)
    starts = [sum(LENGTHS[:n]) for n in range(len(LENGTHS))]
    for start, length in zip(starts, LENGTHS, strict=True):
        row_NO = projected_NO[start : start + length].clone().requires_grad_()
        mixed = gated_delta.mix(row_NO, weights, pass_of((length,)), EPS)
        expected.append(mixed.detach())
        grads += torch.autograd.grad(mixed, row_NO, seed_NF[start : start + length])
    by_rounding = []
    for rounding in ("exact", "recurring"):
        inputs = pass_of(LENGTHS, rounding)
        filled_NO = torch.randn(len(inputs.ids_N), projected_NO.shape[1], device=DEVICE)
        filled_NO[: len(projected_NO)] = projected_NO
        filled_NO = filled_NO.bfloat16().requires_grad_()
        mixed = gated_delta.mix(filled_NO, weights, inputs, EPS)
        seed = torch.zeros_like(mixed)
        seed[: len(seed_NF)] = seed_NF
        (grad,) = torch.autograd.grad(mixed, filled_NO, seed)
        for one, other in ((mixed, torch.cat(expected)), (grad, torch.cat(grads))):
            for part, exact in zip(
                torch.split(one[: len(other)], LENGTHS), torch.split(other, LENGTHS), strict=True
            ):
                assert relative(part, exact) < 2e-2
        by_rounding.append((mixed[: len(seed_NF)], grad[: len(seed_NF)]))
    for one, other in zip(*by_rounding, strict=True):
        assert torch.equal(one, other)


def largest(found: Tensor, expected: Tensor) -> float:
    return float((found - expected.float()).detach().abs().max() / expected.detach().abs().max())


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected).detach().norm() / expected.detach().norm())
