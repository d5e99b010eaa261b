"""The common order of training rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.batches import order_rows

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=60)
BATCH_SIZES = st.integers(1, 9)
SEEDS = st.integers(0, 2**31)


@given(LENGTHS, BATCH_SIZES, SEEDS, st.integers(1, 4))
def test_every_epoch_holds_each_row_once(
    lengths: list[int], batch_size: int, seed: int, num_epochs: int
) -> None:
    num_rows = len(lengths)
    order = order_rows(lengths, batch_size, num_rows * num_epochs, seed)
    for begin in range(0, len(order), num_rows):
        assert sorted(order[begin : begin + num_rows]) == list(range(num_rows))


@given(LENGTHS, BATCH_SIZES, SEEDS, st.integers(0, 150), st.integers(0, 150))
def test_longer_order_begins_with_every_shorter_one(
    lengths: list[int], batch_size: int, seed: int, few: int, more: int
) -> None:
    short = order_rows(lengths, batch_size, few, seed)
    long = order_rows(lengths, batch_size, few + more, seed)
    assert long[:few] == short


def test_order_depends_on_the_seed_and_the_epoch() -> None:
    lengths = [10 + place % 7 for place in range(64)]
    orders = {tuple(order_rows(lengths, 4, 64, seed)) for seed in range(5)}
    assert len(orders) == 5
    two_epochs = order_rows(lengths, 4, 128, 0)
    assert two_epochs[:64] != two_epochs[64:]


@pytest.mark.parametrize("num_rows", [4000, 4003])
def test_rows_of_a_batch_have_similar_lengths_in_every_epoch(num_rows: int) -> None:
    lengths = [20 + place * 7919 % 400 for place in range(num_rows)]
    order = order_rows(lengths, 8, 3 * num_rows // 8 * 8, 0)
    batches = [order[begin : begin + 8] for begin in range(0, len(order), 8)]
    padded = sum(8 * max(lengths[row] for row in batch) for batch in batches)
    assert sum(lengths[row] for row in order) / padded > 0.95


def test_batches_of_similar_lengths_are_not_in_order_of_length() -> None:
    lengths = [20 + place * 7919 % 400 for place in range(400)]
    order = order_rows(lengths, 8, 400, 0)
    longest = [max(lengths[row] for row in order[begin : begin + 8]) for begin in range(0, 400, 8)]
    assert longest != sorted(longest, reverse=True)


def test_no_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        order_rows([], 4, 8, 0)
