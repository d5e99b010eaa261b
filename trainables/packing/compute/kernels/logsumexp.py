"""The logarithm of a row's sum of exponentials as a Triton kernel: logits are read once.

torch makes four passes over float32 copies of them, 32 bytes a logit instead of 2.

Shapes: N rows, V vocabulary.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_V = 2048
"""Logits of a row that are held at a time."""


def logsumexp(logits: Tensor) -> Tensor:
    """float32 (...) of logits (..., V), summed in float32."""
    logits_NV = logits.reshape(-1, logits.shape[-1])
    sums_N = torch.empty(len(logits_NV), dtype=torch.float32, device=logits.device)
    _logsumexp[(len(logits_NV),)](
        logits_NV, sums_N, logits_NV.stride(0), logits_NV.shape[1], BLOCK_V
    )
    return sums_N.view(logits.shape[:-1])


@triton.jit
def _logsumexp(logits_ptr, sums_ptr, row_stride, num_words, BLOCK: tl.constexpr):
    """One row. Each lane keeps a largest logit and a sum of its own; they meet in the end."""
    row = tl.program_id(0).to(tl.int64)
    best = tl.full((BLOCK,), -1e30, dtype=tl.float32)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, num_words, BLOCK):
        v = start + tl.arange(0, BLOCK)
        logits = tl.load(logits_ptr + row * row_stride + v, mask=v < num_words, other=-float("inf"))
        logits = logits.to(tl.float32)
        new_best = tl.maximum(best, logits)
        total = total * tl.exp(best - new_best) + tl.exp(logits - new_best)
        best = new_best
    largest = tl.max(best, axis=0)
    total_of_row = tl.sum(total * tl.exp(best - largest), axis=0)
    tl.store(sums_ptr + row, tl.log(total_of_row) + largest)
