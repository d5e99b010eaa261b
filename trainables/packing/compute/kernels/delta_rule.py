"""Gated DeltaNet's rule by fla's kernels (github.com/fla-org/flash-linear-attention), for a GPU."""

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor

from trainables.packing.compute.kernels.delta_inputs import DeltaInputs
from trainables.packing.compute.kernels.inputs import Chunks


def delta_rule(inputs: DeltaInputs, chunks: Chunks) -> Tensor:
    """What the queries read (N, H, E), of rows that lie end to end."""
    mixed_1NHE, _ = load_rule()(
        *(part[None] for part in inputs[:5]),
        scale=inputs.q_NGC.shape[-1] ** -0.5,
        cu_seqlens=chunks.bounds_S2,
        chunk_indices=chunks.pieces_X2,
    )
    mixed_NHE: Tensor = mixed_1NHE[0]
    return mixed_NHE


@cache
def load_rule() -> Callable[..., Any]:
    """fla's function; see models.delta_kernels for what it needs."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    rule: Callable[..., Any] = chunk_gated_delta_rule
    return rule
