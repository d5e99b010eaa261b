"""Dropout masks: fair coins, independent of each other, and a function of their place alone."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.examples import max_examples
from trainables.packing.compute.masks import (
    Dropout,
    drop,
    keep_mask,
    module_key,
    row_key,
    threshold,
)

RATE = 0.3
TOKENS, FEATURES = 128, 512
PLACES = list(itertools.product((7, 8), (1, 2), (0, 1), (0, 1)))
"""(seed, step, row, module)."""


def dropout_of(
    words: list[tuple[int, int]], rates: list[float], num_tokens: int = TOKENS
) -> Dropout:
    """Dropout of one row for each slot."""
    count = len(words)
    return Dropout(
        words_N2=torch.tensor(words, dtype=torch.int32).repeat_interleave(num_tokens, dim=0),
        position_ids_N=torch.arange(num_tokens, dtype=torch.int32).repeat(count),
        slots_N=torch.arange(count, dtype=torch.int32).repeat_interleave(num_tokens),
        thresholds_K=torch.tensor([threshold(rate) for rate in rates], dtype=torch.int32),
        scales_K=torch.tensor([1 / (1 - rate) for rate in rates]),
    )


def key_of(module: int) -> Tensor:
    return torch.tensor(module_key(module), dtype=torch.int32)


def mask(seed: int, step: int, row: int, module: int, num_tokens: int = TOKENS) -> Tensor:
    """The mask (T, D) of one row."""
    dropout = dropout_of([row_key(seed, step, row)], [RATE], num_tokens)
    return keep_mask(FEATURES, dropout, key_of(module))


def test_masks_keep_their_share() -> None:
    masks = torch.stack([mask(*place) for place in PLACES]).double()
    share_error = 5 * (RATE * (1 - RATE) / masks.numel()) ** 0.5
    assert masks.mean().item() == pytest.approx(1 - RATE, abs=share_error)
    for axis, count in ((1, masks.shape[0] * FEATURES), (2, masks.shape[0] * TOKENS)):
        means = masks.mean(dim=(0, 3 - axis))
        near = 6 * (RATE * (1 - RATE) / count) ** 0.5
        assert (means - (1 - RATE)).abs().max().item() < near


def test_masks_of_trials_steps_rows_and_modules_are_independent() -> None:
    masks = torch.stack([mask(*place).flatten() for place in PLACES]).double()
    correlations = torch.corrcoef(masks)
    off = correlations[~torch.eye(len(PLACES), dtype=torch.bool)]
    assert off.abs().max().item() < 5 / masks.shape[1] ** 0.5


@pytest.mark.parametrize("shift", [1, FEATURES, FEATURES + 1])
def test_neighbouring_positions_of_a_mask_are_independent(shift: int) -> None:
    flat = torch.stack([mask(*place).flatten() for place in PLACES]).double()
    pair = torch.stack([flat[:, shift:].flatten(), flat[:, :-shift].flatten()])
    assert abs(torch.corrcoef(pair)[0, 1].item()) < 5 / pair.shape[1] ** 0.5


def test_both_words_of_a_key_count() -> None:
    dropout = dropout_of([(1, 2), (1, 3), (0, 2)], [RATE] * 3)
    flat = keep_mask(FEATURES, dropout, key_of(0)).view(3, -1).double()
    off = torch.corrcoef(flat)[~torch.eye(3, dtype=torch.bool)]
    assert off.abs().max().item() < 5 / flat.shape[1] ** 0.5


def test_mask_does_not_depend_on_length_slot_or_neighbours() -> None:
    alone = mask(7, 3, 5, 2)
    rows = [row_key(1, 1, 1), row_key(7, 3, 5), row_key(7, 3, 6)]
    dropout = dropout_of(rows, [0.9, RATE, 0.0], 2 * TOKENS)
    together = keep_mask(FEATURES, dropout, key_of(2)).view(3, 2 * TOKENS, FEATURES)
    assert torch.equal(together[1, :TOKENS], alone)
    assert together[2].all()
    assert not torch.equal(together[0, :TOKENS], alone)


def test_rate_zero_changes_nothing_and_other_rates_keep_the_mean() -> None:
    x = torch.rand(2 * TOKENS, FEATURES) + 1
    dropped = drop(x, dropout_of([row_key(7, 1, 0)] * 2, [0.0, RATE]), key_of(0))
    assert torch.equal(dropped[:TOKENS], x[:TOKENS])
    assert dropped[TOKENS:].mean().item() == pytest.approx(x[TOKENS:].mean().item(), rel=0.02)
    kept = dropped[TOKENS:] != 0
    assert torch.allclose(dropped[TOKENS:][kept], x[TOKENS:][kept] / (1 - RATE))


@max_examples(30)
@given(rate=st.floats(0.0, 0.99), seed=st.integers(0, 2**32 - 1), step=st.integers(1, 10**6))
def test_any_rate_is_kept(rate: float, seed: int, step: int) -> None:
    kept = keep_mask(64, dropout_of([row_key(seed, step, 0)], [rate]), key_of(0))
    count = kept.numel()
    near = 6 * (rate * (1 - rate) / count) ** 0.5 + 2 / count
    assert kept.double().mean().item() == pytest.approx(1 - rate, abs=near)
