"""Gated DeltaNet of rows that are evaluated by its kernels, against plain functions; compiled on a
GPU, elsewhere interpreted by Triton."""

import importlib.util

import pytest
import torch
from torch import Tensor

from trainables.metrics.label_tree import grow_trees
from trainables.packing.compute.mixers import gated_delta
from trainables.packing.compute.mixers.gated_delta import DeltaWeights

pytest.importorskip("triton", reason="needs Triton: make test-kernels")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []
HAS_FLA = importlib.util.find_spec("fla") is not None
# Triton's interpreter cuts bfloat16 off where a GPU rounds it.
# The norm behind the rule makes what rounding leaves of a small sum as large as any other.
NEAR = {torch.float32: 1e-5, torch.bfloat16: 3e-2 if DEVICE == "cuda" else 5e-2}
SHAPES = [(2, 1, 16, 16), (2, 2, 16, 128), (1, 3, 128, 128)]
"""Key heads, value heads of each, features of a key and of a value."""


def new_weights(shape: tuple[int, ...], dtype: torch.dtype) -> DeltaWeights:
    torch.manual_seed(1)
    num_key_heads, shared, key_dim, value_dim = shape
    num_heads = num_key_heads * shared
    num_channels = 2 * num_key_heads * key_dim + num_heads * value_dim
    conv_PW, log_decay_H, bias_H, norm_E = (
        randn(*size, dtype=dtype)
        for size in ((num_channels, 4), (num_heads,), (num_heads,), (value_dim,))
    )
    return DeltaWeights(conv_PW, log_decay_H, bias_H, norm_E, num_key_heads, key_dim)


def randn(*size: int, dtype: torch.dtype) -> Tensor:
    """The same numbers on every device."""
    return torch.randn(*size).to(DEVICE, dtype)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("shape", SHAPES)
def test_tokens_are_mixed_as_by_the_plain_step(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Some tokens, one after the other: answers, memories and the convolution's inputs. A row that
    is done stays as it was."""
    weights = new_weights(shape, dtype)
    like = torch.zeros((), device=DEVICE, dtype=dtype)
    plain, fused = (gated_delta.new_state(weights, 1, 3, like) for _ in range(2))
    size = len(weights.conv_PW) + len(weights.log_decay_H) * (len(weights.norm_E) + 2)
    is_done_B = torch.tensor([False, False, True], device=DEVICE)
    found, expected = [], []
    for number in range(11):
        projected_BO = randn(3, size, dtype=dtype)
        expected.append(gated_delta.step_plainly(projected_BO, weights, plain, 1e-6))
        positions_B = torch.tensor([13, 40, 5], device=DEVICE) + number
        rows = (positions_B, is_done_B)
        found.append(gated_delta.step_by_kernels(projected_BO, weights, fused, *rows, 1e-6))
    assert found[0].dtype == expected[0].dtype
    assert relative_error(torch.stack(found)[:, :2], torch.stack(expected)[:, :2]) < NEAR[dtype]
    assert not torch.stack(found)[:, 2].any()
    assert torch.equal(fused.inputs_KSLP[:, :2], plain.inputs_KSLP[:, :2])
    assert not any(part[:, 2].any() for part in fused)
    # A memory is written where a position ends a block of eight: here the first row's.
    assert relative_error(fused.memory_KSHCE[:, 0], plain.memory_KSHCE[:, 0]) < NEAR[dtype]


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_FLA, reason="needs fla-core: pip install '.[hybrid]'")
@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("num_targets", [0, 70])
def test_rows_and_trees_are_read_as_by_plain_functions(
    shape: tuple[int, ...], num_targets: int
) -> None:
    """In bfloat16: rows of one to several chunks, the states of their prompts, and a tree there."""
    weights = new_weights(shape, torch.bfloat16)
    exact = DeltaWeights(*(part.float() for part in weights[:4]), *weights[4:])
    lengths_S = torch.tensor([150, 1, 64, 130, 2], device=DEVICE)
    size = len(weights.conv_PW) + len(weights.log_decay_H) * (len(weights.norm_E) + 2)
    projected_STO = randn(5, 200, size, dtype=torch.bfloat16)
    rows = gated_delta.lay_out_rows(lengths_S, 200, num_targets, 3)
    found, state = gated_delta.read(projected_STO, weights, 1e-6, rows)
    expected, plain = gated_delta.read(projected_STO.float(), exact, 1e-6, rows)
    is_real_ST = torch.arange(200, device=DEVICE) < lengths_S[:, None] + num_targets
    assert relative_error(found[is_real_ST], expected[is_real_ST]) < 3e-2
    for own, other in zip(state[1], plain[1], strict=True):
        assert relative_error(own, other) < 2e-2
    assert torch.equal(state[0].float(), plain[0])
    labels = [[n % 3, *range(n, n + 1 + n % 9)] for n in range(12)]
    (tree,) = grow_trees(labels, torch.device(DEVICE), 1000)
    nodes_SNO = randn(5, len(tree.tokens_N), size, dtype=torch.bfloat16)
    found = gated_delta.read_tree(nodes_SNO, weights, 1e-6, tree.is_seen_NN, *state)
    expected = gated_delta.read_tree(nodes_SNO.float(), exact, 1e-6, tree.is_seen_NN, *plain)
    assert relative_error(found, expected) < 3e-2
