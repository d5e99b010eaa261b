"""The grid, and which of its configurations stands for a proposed point."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.search_quality.grid import Configuration, Grid, find_nearest, list_log_levels

GRID = Grid(
    learning_rates=list_log_levels((3e-5, 1e-3), 6),
    lora_ranks=(8, 16, 32, 64),
    alphas_over_rank=(0.5, 1.0, 2.0),
    lora_dropouts=(0.0, 0.1),
)


def test_a_grid_has_every_combination_once() -> None:
    configurations = GRID.list_configurations()
    assert len(configurations) == len(set(configurations)) == 6 * 4 * 3 * 2


def test_levels_hold_both_bounds_and_are_evenly_spaced_on_a_log_scale() -> None:
    levels = list_log_levels((1e-4, 1e-2), 5)
    assert (levels[0], levels[-1]) == (1e-4, 1e-2)
    ratios = [high / low for low, high in itertools.pairwise(levels)]
    assert ratios == pytest.approx([10**0.5] * 4, rel=1e-3)


def test_one_level_is_refused() -> None:
    with pytest.raises(ValueError, match="num_levels is 1"):
        list_log_levels((1e-4, 1e-2), 1)


@given(
    rate=st.floats(3e-5, 1e-3),
    rank=st.sampled_from(GRID.lora_ranks),
    alpha=st.sampled_from(GRID.alphas_over_rank),
    dropout=st.sampled_from(GRID.lora_dropouts),
)
def test_a_full_grid_rounds_the_learning_rate_alone(
    rate: float, rank: int, alpha: float, dropout: float
) -> None:
    wanted = Configuration(
        learning_rate=rate, lora_rank=rank, alpha_over_rank=alpha, lora_dropout=dropout
    )
    one = find_nearest(wanted, GRID.list_configurations())
    assert (one.lora_rank, one.alpha_over_rank, one.lora_dropout) == (rank, alpha, dropout)
    gaps = [abs(math.log(level / rate)) for level in GRID.learning_rates]
    assert abs(math.log(one.learning_rate / rate)) == pytest.approx(min(gaps))


def test_where_a_combination_is_missing_the_closest_one_stands_for_it() -> None:
    wanted = Configuration(learning_rate=1e-3, lora_rank=64, alpha_over_rank=2.0, lora_dropout=0.0)
    other_dropout, half_the_rank = (
        Configuration(learning_rate=1e-3, lora_rank=rank, alpha_over_rank=2.0, lora_dropout=dropout)
        for rank, dropout in ((64, 0.1), (32, 0.0))
    )
    assert find_nearest(wanted, [half_the_rank, other_dropout]) == other_dropout


def test_a_configuration_is_read_back_from_its_hyperparameters() -> None:
    for one in GRID.list_configurations():
        assert Configuration.of(one.params) == one
