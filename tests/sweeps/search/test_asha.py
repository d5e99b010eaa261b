"""ASHA's rules, over random values and orders."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sweeps.search.asha import Asha
from trainables.config import Metric

RUNGS = (10, 30, 90)
MAX, MIN = Metric(name="rougeLsum"), Metric(name="eval_loss", mode="min")
VALUES = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=30)
FACTORS = st.integers(2, 5)


def recorded(values: list[float], factor: int, metric: Metric = MAX, step: int = 10) -> Asha:
    asha = Asha(RUNGS, factor, metric)
    for number, value in enumerate(values):
        asha.record(f"t{number}", step, value)
    return asha


def kept(asha: Asha, count: int, step: int = 10) -> list[bool]:
    return [asha.should_continue(f"t{number}", step) for number in range(count)]


@given(VALUES, FACTORS, st.sampled_from([MAX, MIN]), st.sampled_from([10, 30]))
def test_best_always_goes_on(values: list[float], factor: int, metric: Metric, step: int) -> None:
    asha = recorded(values, factor, metric, step)
    best = (max if metric.mode == "max" else min)(values)
    assert asha.should_continue(f"t{values.index(best)}", step)


@given(VALUES, FACTORS)
def test_each_newcomer_that_is_the_best_so_far_goes_on(values: list[float], factor: int) -> None:
    asha = Asha(RUNGS, factor, MAX)
    for number, value in enumerate(values):
        asha.record(f"t{number}", 10, value)
        if value == max(values[: number + 1]):
            assert asha.should_continue(f"t{number}", 10)


@given(st.lists(st.integers(), min_size=1, max_size=30, unique=True), FACTORS)
def test_exactly_one_in_factor_of_distinct_values_goes_on(values: list[int], factor: int) -> None:
    asha = recorded([float(v) for v in values], factor)
    assume(len({float(v) for v in values}) == len(values))
    quota = max(1, len(values) // factor)
    goes_on = kept(asha, len(values))
    assert sum(goes_on) == quota
    worst_kept = min(v for v, keeps in zip(values, goes_on, strict=True) if keeps)
    assert all(v < worst_kept for v, keeps in zip(values, goes_on, strict=True) if not keeps)


@given(VALUES, FACTORS, st.randoms(use_true_random=False))
def test_decision_does_not_depend_on_the_order_of_records(
    values: list[float], factor: int, random: object
) -> None:
    numbered = list(enumerate(values))
    random.shuffle(numbered)  # type: ignore[attr-defined]
    asha = Asha(RUNGS, factor, MAX)
    for number, value in numbered:
        asha.record(f"t{number}", 10, value)
    assert kept(asha, len(values)) == kept(recorded(values, factor), len(values))


@given(VALUES, FACTORS)
def test_min_mirrors_max(values: list[float], factor: int) -> None:
    mirrored = recorded([-v for v in values], factor, MIN)
    assert kept(mirrored, len(values)) == kept(recorded(values, factor), len(values))


@given(st.integers(1, 20), st.integers(0, 20), FACTORS)
def test_equal_trials_share_their_fate(num_equal: int, num_better: int, factor: int) -> None:
    asha = recorded([1.0] * num_equal + [2.0] * num_better, factor)
    fates = set(kept(asha, num_equal))
    assert len(fates) == 1
    assert fates == {num_better < max(1, (num_equal + num_better) // factor)}


@given(VALUES, VALUES, FACTORS)
def test_values_of_another_rung_never_matter(
    values: list[float], others: list[float], factor: int
) -> None:
    asha = recorded(values, factor)
    for number, value in enumerate(others):
        asha.record(f"t{number}", 30, value)
        asha.record(f"x{number}", 90, value)
    assert kept(asha, len(values)) == kept(recorded(values, factor), len(values))


@given(VALUES, FACTORS)
def test_last_rung_keeps_everyone(values: list[float], factor: int) -> None:
    assert all(kept(recorded(values, factor, step=90), len(values), step=90))


@given(st.data(), VALUES, VALUES, FACTORS, st.sampled_from([MAX, MIN]))
def test_cohort_is_decided_by_its_values_whatever_their_order(
    data: st.DataObject, before: list[float], values: list[float], factor: int, metric: Metric
) -> None:
    """Ties included: few values are drawn from, so many are equal at the border."""
    named = {f"t{number}": value for number, value in enumerate(values)}
    shuffled = dict(data.draw(st.permutations(list(named.items()))))
    one, other = (Asha(RUNGS, factor, metric) for _ in range(2))
    for asha in (one, other):
        asha.decide_who_continues(10, {f"x{number}": value for number, value in enumerate(before)})
    decided = one.decide_who_continues(10, named)
    assert decided == other.decide_who_continues(10, shuffled)
    keeps = {value: {decided[name] for name in named if named[name] == value} for value in values}
    assert all(len(fates) == 1 for fates in keeps.values())
    quota = max(1, (len(before) + len(values)) // factor)
    better = {value: sum(metric.is_better(v, value) for v in before + values) for value in values}
    assert keeps == {value: {better[value] < quota} for value in values}


@given(VALUES, FACTORS)
def test_cohort_decides_as_if_all_had_been_there_before_its_first(
    values: list[float], factor: int
) -> None:
    together = Asha(RUNGS, factor, MAX).decide_who_continues(
        10, {f"t{n}": v for n, v in enumerate(values)}
    )
    assert list(together.values()) == kept(recorded(values, factor), len(values))


def test_trials_that_report_one_by_one_are_decided_by_who_came_before() -> None:
    """What a cohort avoids: ascending values all go on, descending ones do not."""
    ascending, descending, together = (Asha(RUNGS, 3, MAX) for _ in range(3))
    values = [float(n) for n in range(8)]
    assert all(
        ascending.decide_who_continues(10, {f"t{n}": v})[f"t{n}"] for n, v in enumerate(values)
    )
    one_by_one = [
        descending.decide_who_continues(10, {f"t{n}": v})[f"t{n}"]
        for n, v in enumerate(values[::-1])
    ]
    assert sum(one_by_one) == 1
    assert (
        sum(together.decide_who_continues(10, {f"t{n}": v for n, v in enumerate(values)}).values())
        == 2
    )


def test_later_value_of_the_same_trial_replaces_the_first() -> None:
    asha = recorded([5.0, 1.0, 2.0], 2)
    asha.record("t0", 10, 0.0)
    assert kept(asha, 3) == [False, False, True]
    assert asha.describe_rank("t0", 10) == "place 3 of 3 at step 10"


@pytest.mark.parametrize("step", [0, 11, 91])
def test_step_that_is_no_rung_is_refused(step: int) -> None:
    with pytest.raises(KeyError):
        Asha(RUNGS, 3, MAX).record("t0", step, 1.0)


@given(VALUES, st.sampled_from([MAX, MIN]))
def test_standing_counts_the_strictly_better_ones(values: list[float], metric: Metric) -> None:
    asha = recorded(values, 3, metric)
    places = [int(asha.describe_rank(f"t{n}", 10).split()[1]) for n in range(len(values))]
    for value, place in zip(values, places, strict=True):
        assert place == 1 + sum(metric.is_better(other, value) for other in values)
    assert asha.describe_rank("t0", 10).endswith(f"of {len(values)} at step 10")
