"""The paired bootstrap against scipy's, against plain loops, and against what is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.finals import bootstrap
from sweeps.finals.bootstrap import compare, make_mean_metric
from tests.examples import max_examples

NUM_ROWS = 60


def rows_of(seed: int, shift: float = 0.0, spread: float = 5.0) -> np.ndarray:
    """Scores of a run: some rows are hard for all, and each run has luck of its own."""
    hardness = np.random.default_rng(0).normal(40.0, 15.0, NUM_ROWS)
    return hardness + shift + np.random.default_rng(seed).normal(0.0, spread, NUM_ROWS)


def test_interval_of_a_paired_difference_is_scipys() -> None:
    one, other = rows_of(1, 1.0), rows_of(2)
    found = compare(
        [[make_mean_metric(one)], [make_mean_metric(other)]],
        "max",
        NUM_ROWS,
        seed=0,
        num_resamples=20_000,
    )
    expected = stats.bootstrap(
        (one, other),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.interval is not None
    width = expected.high - expected.low
    low, high = sorted([expected.low, expected.high])
    sign = 1 if found.best == 0 else -1
    assert sorted(sign * np.array(found.interval)) == pytest.approx([low, high], abs=0.04 * width)


def test_pairs_make_the_interval_narrower_than_rows_drawn_apart_would() -> None:
    one, other = rows_of(1, 1.0), rows_of(2)
    found = compare([[make_mean_metric(one)], [make_mean_metric(other)]], "max", NUM_ROWS, seed=0)
    apart = stats.bootstrap(
        (one, other),
        lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
        method="percentile",
        n_resamples=5_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.interval is not None
    assert found.interval[1] - found.interval[0] < 0.6 * (apart.high - apart.low)


@given(
    runs=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    mode=st.sampled_from(["max", "min"]),
    seed=st.integers(0, 2**32 - 1),
)
@max_examples(30)
def test_resamples_are_those_of_a_plain_loop(runs: list[int], mode: str, seed: int) -> None:
    values = [[rows_of(10 * c + r, c) for r in range(num)] for c, num in enumerate(runs)]
    found = compare(
        [[make_mean_metric(rows) for rows in own] for own in values],
        mode,
        NUM_ROWS,
        seed=seed,
        num_resamples=40,
    )
    assert found.means == pytest.approx([np.mean(own) for own in values])
    sign = 1.0 if mode == "max" else -1.0
    order = sorted(range(len(runs)), key=lambda c: -sign * found.means[c])
    means = [[one[c] for c in range(len(runs))] for one in plain_resamples(values, seed, 40)]
    best = [max(range(len(runs)), key=lambda c: sign * one[c]) for one in means]
    shares = [sum(place == c for place in best) / 40 for c in range(len(runs))]
    assert found.best == order[0] and found.probabilities == pytest.approx(shares)
    if len(runs) == 1:
        assert found.interval is None
        return
    leads = [sign * (one[order[0]] - one[order[1]]) for one in means]
    assert found.interval == pytest.approx(np.percentile(leads, [2.5, 97.5]))


def plain_resamples(values: list[list[np.ndarray]], seed: int, number: int) -> list[list[float]]:
    """The same draws, every row of every resample picked one by one."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(NUM_ROWS, [1 / NUM_ROWS] * NUM_ROWS, number)
    picked = [
        generator.multinomial(max(1, len(own) - 1), [1 / len(own)] * len(own), number)
        for own in values
    ]
    found: list[list[float]] = []
    for b in range(number):
        rows = [s for s in range(NUM_ROWS) for _ in range(drawn[b][s])]
        means = []
        for c, own in enumerate(values):
            runs = [r for r in range(len(own)) for _ in range(picked[c][b][r])]
            means.append(float(np.mean([own[r][s] for r in runs for s in rows])))
        found.append(means)
    return found


def test_a_configuration_that_wins_every_row_is_best_for_certain() -> None:
    rows = rows_of(1)
    found = compare(
        [[make_mean_metric(rows)], [make_mean_metric(rows + 1.0)], [make_mean_metric(rows - 1.0)]],
        "max",
        NUM_ROWS,
        seed=0,
    )
    assert found.best == 1 and found.probabilities == (0.0, 1.0, 0.0)
    assert found.interval == pytest.approx((1.0, 1.0))


def test_less_is_better_where_the_metric_says_so() -> None:
    rows = rows_of(1)
    found = compare(
        [[make_mean_metric(rows)], [make_mean_metric(rows + 1.0)]], "min", NUM_ROWS, seed=0
    )
    assert found.best == 0 and found.probabilities == (1.0, 0.0)
    assert found.interval == pytest.approx((1.0, 1.0))


def test_equal_configurations_share_the_first_place() -> None:
    rows = rows_of(1)
    found = compare([[make_mean_metric(rows)]] * 3, "max", NUM_ROWS, seed=0, num_resamples=100)
    assert found.probabilities == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert found.best == 0 and found.interval == (0.0, 0.0)


def test_seeds_that_disagree_widen_the_interval() -> None:
    rows = rows_of(1)
    steady = [[make_mean_metric(rows + 1.0)] * 3, [make_mean_metric(rows)] * 3]
    shifts = [-3.0, 0.0, 3.0]
    shaky = [[make_mean_metric(rows + 1.0 + shift) for shift in shifts], steady[1]]
    one, other = (compare(case, "max", NUM_ROWS, seed=0) for case in (steady, shaky))
    assert one.means == pytest.approx(other.means)
    assert one.interval == pytest.approx((1.0, 1.0))
    assert other.interval is not None and other.interval[0] < -1.0 < 3.0 < other.interval[1]
    assert one.probabilities[0] == 1.0 and 0.6 < other.probabilities[0] < 0.9


def test_a_few_seeds_show_the_whole_spread_of_their_mean() -> None:
    """Resampled means of R values vary as s**2 / R says, with s**2 over R - 1."""
    shifts = np.array([-3.0, 1.0, 2.0])
    flat = np.full(NUM_ROWS, 40.0)
    ones = [[make_mean_metric(flat + shift) for shift in shifts], [make_mean_metric(flat)]]
    found = bootstrap._resample_means(ones, NUM_ROWS, 40_000, np.random.default_rng(0))
    assert found[:, 0].var() == pytest.approx(shifts.var(ddof=1) / 3, rel=0.03)


def test_interval_holds_the_true_lead_about_as_often_as_it_claims() -> None:
    """300 pairs of single runs of which the first is better by 1; binomial error 1.3%."""
    held = 0
    for number in range(300):
        generator = np.random.default_rng(number)
        hard = generator.normal(40.0, 15.0, 100)
        one = hard + 1.0 + generator.normal(0.0, 5.0, 100)
        other = hard + generator.normal(0.0, 5.0, 100)
        found = compare(
            [[make_mean_metric(one)], [make_mean_metric(other)]],
            "max",
            100,
            seed=0,
            num_resamples=400,
        )
        assert found.interval is not None
        low, high = found.interval if found.best == 0 else (-x for x in found.interval[::-1])
        held += low <= 1.0 <= high
    assert 0.90 <= held / 300 <= 0.98


def test_the_same_seed_gives_the_same_verdict_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [[make_mean_metric(rows_of(1))], [make_mean_metric(rows_of(2))]]
    first = compare(runs, "max", NUM_ROWS, seed=3, num_resamples=1500)
    assert compare(runs, "max", NUM_ROWS, seed=3, num_resamples=1500) == first
    assert compare(runs, "max", NUM_ROWS, seed=4, num_resamples=1500) != first
    monkeypatch.setattr(bootstrap, "BLOCK", 7)
    low, high = compare(runs, "max", NUM_ROWS, seed=3, num_resamples=1500).interval or (0.0, 0.0)
    assert first.interval == pytest.approx((low, high), abs=0.1 * (high - low))


@pytest.mark.parametrize(
    ("runs", "num_rows"), [([], 5), ([[]], 5), ([[make_mean_metric([1.0])]], 0)]
)
def test_nothing_to_compare_is_refused(runs: list, num_rows: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1 of each"):
        compare(runs, "max", num_rows, seed=0)
