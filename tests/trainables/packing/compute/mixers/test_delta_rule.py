"""The gated delta rule in chunks, on plain tensors."""

import pytest
import torch

from trainables.packing.compute.mixers import delta_rule
from trainables.packing.compute.mixers.delta_rule import Heads, run_rule


@pytest.mark.parametrize("has_memory", [False, True])
def test_rows_that_fit_no_grid_go_through_the_rule_some_at_a_time(
    has_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k = torch.randn(2, 5, 70, 2, 8).unbind()
    v, decay, beta = torch.randn(5, 70, 4, 6), -torch.rand(5, 70, 4), torch.rand(5, 70, 4)
    heads = Heads(
        q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True), v, decay, beta
    )
    memory = torch.randn(5, 4, 8, 6) if has_memory else None
    expected = run_rule(heads, memory)
    rows = []
    run_chunks = delta_rule._run_chunks

    def count(heads: Heads, memory: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        rows.append(len(heads.v_STHE))
        return run_chunks(heads, memory)

    monkeypatch.setattr(delta_rule, "_run_chunks", count)
    monkeypatch.setattr(delta_rule, "MOST_HEADS", 11)
    found = run_rule(heads, memory)
    assert rows == [2, 2, 1]
    torch.testing.assert_close(found, expected)
