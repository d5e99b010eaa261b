"""The gated delta rule in chunks, on plain tensors."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from trainables.packing.compute.kernels import delta_rule as kernel
from trainables.packing.compute.mixers import delta_rule
from trainables.packing.compute.mixers.delta_rule import Heads, run_rule


@pytest.mark.parametrize("num_tokens", [5, 64, 70])
@pytest.mark.parametrize("has_memory", [False, True])
def test_rows_of_one_length_are_given_to_the_kernel_end_to_end(
    num_tokens: int, has_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Side by side each number of rows would be another kernel, and many fit no grid."""
    q, k = torch.randn(2, 5, num_tokens, 2, 8).unbind()
    v, decay, beta = (
        sign * torch.rand(5, num_tokens, 4, *more) for sign, *more in ((1, 6), (-1,), (1,))
    )
    heads = Heads(
        q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True), v, decay, beta
    )
    memory = torch.randn(5, 4, 8, 6) if has_memory else None
    expected = run_rule(heads, memory)

    def stand_in(
        *heads_1N: Tensor, cu_seqlens: Tensor, chunk_indices: Tensor, initial_state: Any, **_: Any
    ) -> tuple[Tensor, Tensor]:
        assert {len(part) for part in heads_1N} == {1}
        pieces = [[row, piece] for row in range(5) for piece in range(-(-num_tokens // 64))]
        assert chunk_indices.tolist() == pieces
        assert {cu_seqlens.dtype, chunk_indices.dtype} == {torch.int32}
        found = []
        for row, (start, end) in enumerate(pairwise(cu_seqlens.tolist())):
            own = None if initial_state is None else initial_state[row : row + 1]
            found.append(delta_rule._run_chunks(Heads(*(x[:, start:end] for x in heads_1N)), own))
        mixed, memories = zip(*found, strict=True)
        return torch.cat(mixed, dim=1), torch.cat(memories)

    monkeypatch.setattr(delta_rule, "has_kernels", lambda x: True)
    monkeypatch.setattr(kernel, "load_rule", lambda: stand_in)
    found = run_rule(heads, memory)
    torch.testing.assert_close(found, expected)
