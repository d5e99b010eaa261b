"""Gated DeltaNet's rule by fla's kernels (github.com/fla-org/flash-linear-attention), for a GPU."""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from trainables.packing.compute.kernels.inputs import CHUNK_TOKENS, Chunks


def delta_rule(heads: Sequence[Tensor], chunks: Chunks, **options: Any) -> tuple[Tensor, Any]:
    """What the queries read (N, H, E), of rows that lie end to end; and the last memories
    (S, H, C, E), where options ask for them.

    Args:
        heads: queries, keys, values, log decays and step sizes of every token.
    """
    mixed_1NHE, memory_SHCE = load_rule()(
        *(part[None] for part in heads),
        scale=heads[0].shape[-1] ** -0.5,
        cu_seqlens=chunks.bounds_S2,
        chunk_indices=chunks.pieces_X2,
        **options,
    )
    return mixed_1NHE[0], memory_SHCE


def delta_rule_of_padded(
    heads: Sequence[Tensor], memory_SHCE: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What the queries read (S, T, H, E), and the last memories, of rows of one length.

    They too are taken end to end: for each number of rows side by side fla compiles and tunes a
    kernel anew, and a CUDA grid has no room for more than 65,535 heads of them.

    Args:
        memory_SHCE: those of the rows' beginnings; None for rows without a token.
    """
    shape = heads[0].shape[:2]
    chunks = _list_chunks(*shape, heads[0].device)
    options = {"initial_state": memory_SHCE, "output_final_state": True}
    mixed_NHE, memory_SHCE = delta_rule([x.flatten(0, 1) for x in heads], chunks, **options)
    assert memory_SHCE is not None
    return mixed_NHE.view(*shape, *mixed_NHE.shape[1:]), memory_SHCE


@lru_cache(maxsize=2)
def _list_chunks(num_rows: int, num_tokens: int, device: torch.device) -> Chunks:
    """Chunks of rows of one length. All layers of a pass over prompts and targets share them: by
    the tensor's identity fla knows then what it has computed from them."""
    pieces = (num_rows, -(-num_tokens // CHUNK_TOKENS))
    bounds_S1 = torch.arange(num_rows + 1, dtype=torch.int32, device=device) * num_tokens
    ranges = (torch.arange(count, dtype=torch.int32, device=device) for count in pieces)
    return Chunks(bounds_S1, torch.cartesian_prod(*ranges))


@cache
def load_rule() -> Callable[..., Any]:
    """fla's function; see models.delta_kernels for what it needs."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    rule: Callable[..., Any] = chunk_gated_delta_rule
    return rule
