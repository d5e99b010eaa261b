"""The simulated sweep: what it must get right whatever the numbers are."""

import dataclasses
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.cost import simulation, workload
from sweeps.cost.simulation import Running, State, simulate
from sweeps.cost.workload import (
    CLOSING_S,
    EVALUATION_S,
    PROPOSAL_S,
    REFILL_S,
    REPORT_S,
    VERDICT_S,
    Workload,
    start_s,
)
from tests.sweeps.invented_load import Steady, make_load

ALONE_S = REPORT_S + EVALUATION_S
"""A report of one trial, whose rows cost nothing."""


def plain(**changes: Any) -> Workload:
    """One report a trial, so that ASHA stops nobody."""
    return make_load(rungs=(90,), eval_rows=(50,), **changes)


def test_one_trial_takes_its_steps_its_report_and_the_test() -> None:
    load = plain(num_trials=1)
    found = simulate(load, Steady(2.0, row_s=0.1), seed=0)
    assert found.search_s == pytest.approx(start_s(load, 1) + 90 * 2.0 + 50 * 0.1 + ALONE_S)
    assert found.test_s == pytest.approx(50 * 0.1 + 2 * 100 * 0.1 + 2 * EVALUATION_S + CLOSING_S)
    assert found.finals_s == 0.0
    assert found.num_reached == {90: 1}


@pytest.mark.parametrize(("num_testing", "rows"), [(1, 50 + 4 * 100), (2, 3 * 100), (4, 50 + 100)])
def test_packs_share_the_final_test(num_testing: int, rows: int) -> None:
    """One scores the base, also on validation, and the others the adapters."""
    load = make_load(num_tested=3, num_testing=num_testing)
    parts = 1 if num_testing == 2 else 2
    expected_s = rows * 0.1 + parts * EVALUATION_S + CLOSING_S
    assert workload.test_s(load, Steady(row_s=0.1)) == pytest.approx(expected_s)


def test_trials_of_a_pack_step_and_are_scored_together() -> None:
    load = plain(num_trials=4)
    found = simulate(load, Steady(1.0, trial_s=0.5, row_s=0.01), seed=0)
    report_s = 4 * REPORT_S + 4 * 50 * 0.01 + EVALUATION_S
    assert found.search_s == pytest.approx(start_s(load, 4) + 90 * 3.0 + report_s)


def test_processes_start_side_by_side_as_far_as_there_are_cores() -> None:
    few = plain(num_trials=20, concurrency=20, num_cpus=2)
    many = dataclasses.replace(few, num_cpus=16)
    times = [simulate(load, Steady(), 0).search_s for load in (few, many)]
    assert times[0] - times[1] == pytest.approx(start_s(few, 20) - start_s(many, 20))
    shares = [start_s(load, 20) - start_s(load, 0) for load in (few, many)]
    assert shares[0] == pytest.approx(8 * shares[1])


@pytest.mark.parametrize(("head_start_s", "spared_s"), [(1.0, 1.0), (60.0, None)])
def test_processes_that_start_while_packs_load_are_waited_for_the_less(
    head_start_s: float, spared_s: float | None
) -> None:
    load = plain(num_trials=4)
    plainly = simulate(load, Steady(), 0).search_s
    found = simulate(load, Steady(), 0, State(head_start_s=head_start_s)).search_s
    assert plainly - found == pytest.approx(spared_s or start_s(load, 4))


def test_a_freed_slot_is_filled_again() -> None:
    load = plain(num_trials=3, concurrency=1)
    found = simulate(load, Steady(), seed=0)
    refills_s = 2 * (REFILL_S + PROPOSAL_S)
    assert found.search_s == pytest.approx(start_s(load, 1) + 3 * (90 + ALONE_S) + refills_s)


def test_slots_freed_together_are_filled_by_one_proposal_after_another() -> None:
    load = plain(num_trials=8, concurrency=4)
    found = simulate(load, Steady(), seed=0)
    rounds_s = 2 * (90 + 4 * REPORT_S + EVALUATION_S)
    assert found.search_s == pytest.approx(start_s(load, 4) + rounds_s + REFILL_S + 4 * PROPOSAL_S)


def test_who_leaves_makes_the_others_faster() -> None:
    load = make_load(num_trials=2, concurrency=2, rungs=(10, 20), eval_rows=(0, 0))
    found = simulate(load, Steady(0.0, trial_s=1.0), seed=0)
    assert found.num_reached == {10: 2, 20: 1}
    reports_s = 3 * REPORT_S + 2 * EVALUATION_S
    assert found.search_s == pytest.approx(start_s(load, 2) + 10 * 2 + 10 * 1 + reports_s)


def test_who_joins_midway_slows_the_others_from_then_on() -> None:
    load = plain(num_trials=2, concurrency=2, test_rows=0)
    state = State(num_begun=1, running=[Running(trial_id="t0", value=0.0)])
    found = simulate(load, Steady(0.0, trial_s=1.0), 0, state)
    begun_s = start_s(load, 1)
    alone_s, together_s = 2 * begun_s, (90 - begun_s) * 2  # the second's steps in the end too
    assert found.search_s == pytest.approx(alone_s + together_s + 2 * ALONE_S)


def test_finals_come_after_the_search_and_nobody_is_stopped_in_them() -> None:
    without = simulate(make_load(), Steady(), seed=3)
    found = simulate(make_load(num_final_runs=6), Steady(), seed=3)
    assert found.search_s == without.search_s
    assert found.test_s == pytest.approx(without.test_s + VERDICT_S)
    refill_s = REFILL_S + 2 * PROPOSAL_S
    assert found.finals_s == pytest.approx(
        start_s(make_load(), 4) + round_s(4) + refill_s + round_s(2)
    )
    wide = simulate(make_load(num_final_runs=6, final_concurrency=6), Steady(), seed=3)
    assert wide.search_s == without.search_s
    assert wide.finals_s == pytest.approx(start_s(make_load(), 6) + round_s(6))


def round_s(num_runs: int) -> float:
    """Runs that go through all three rungs together."""
    return 90 + 3 * (num_runs * REPORT_S + EVALUATION_S)


def test_runs_of_the_finals_that_have_no_slot_yet_wait_for_one() -> None:
    runs = [Running(trial_id=f"f{n}", value=0.0) for n in range(6)]
    state = State(num_begun=12, final_runs=runs)
    found = simulate(make_load(num_final_runs=6), Steady(), 0, state)
    assert found.finals_s == pytest.approx(round_s(4) + REFILL_S + 2 * PROPOSAL_S + round_s(2))


@settings(deadline=None)
@given(
    num_trials=st.integers(1, 40),
    concurrency=st.integers(1, 12),
    factor=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_a_cohort_keeps_asha_quota_and_every_trial_reports_once_a_rung(
    num_trials: int, concurrency: int, factor: int, seed: int
) -> None:
    load = make_load(num_trials=num_trials, concurrency=concurrency, reduction_factor=factor)
    found = simulate(load, Steady(), seed)
    reached = [found.num_reached[rung] for rung in load.rungs]
    assert reached[0] == num_trials and reached == sorted(reached, reverse=True)
    assert reached[-1] >= 1
    if concurrency >= num_trials:
        assert reached[1] == max(1, num_trials // factor)
        assert reached[2] == max(1, reached[1] // factor)


def test_one_after_another_as_many_survive_as_the_order_of_places_predicts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The i-th trial is among the best q of i with probability q / i."""
    monkeypatch.setattr(simulation, "LEARNT_DRAWS", 1)
    load = make_load(num_trials=30, concurrency=1)
    found = [simulate(load, Steady(), seed).num_reached[30] for seed in range(300)]
    expected = sum(max(1, i // 3) / i for i in range(1, 31))
    assert fmean(found) == pytest.approx(expected, rel=0.05)


def test_a_search_that_learns_has_more_survivors(monkeypatch: pytest.MonkeyPatch) -> None:
    load = make_load(num_trials=60, concurrency=10)
    learning = fmean(simulate(load, Steady(), seed).num_reached[30] for seed in range(50))
    monkeypatch.setattr(simulation, "LEARNT_DRAWS", 1)
    assert learning > 1.1 * fmean(
        simulate(load, Steady(), seed).num_reached[30] for seed in range(50)
    )


def test_what_a_pack_records_it_records_once_and_the_finals_go_on_with_it() -> None:
    load = make_load(num_trials=4, concurrency=4, rungs=(10,), eval_rows=(20,), num_final_runs=4)
    slow = Steady(recorded_s=7.0, num_recorded=15)
    plainly, found = simulate(load, Steady(), 0), simulate(load, slow, 0)
    assert found.search_s == pytest.approx(plainly.search_s + 10 * 7.0)
    assert found.finals_s == pytest.approx(plainly.finals_s + 5 * 7.0)
    later = simulate(load, slow, 0, State(num_steps=12.0))
    assert later.search_s == pytest.approx(plainly.search_s + 3 * 7.0)
    assert later.finals_s == pytest.approx(plainly.finals_s)


SPEEDS = st.builds(
    Steady,
    fixed_s=st.floats(0.01, 1.0),
    trial_s=st.floats(0.0, 1.0),
    row_s=st.floats(0.0, 0.1),
)


@settings(max_examples=30, deadline=None)
@given(speed=SPEEDS, num_trials=st.integers(1, 30), concurrency=st.integers(1, 8))
def test_more_trials_never_take_less_time(speed: Steady, num_trials: int, concurrency: int) -> None:
    few = plain(num_trials=num_trials, concurrency=concurrency)
    more = dataclasses.replace(few, num_trials=num_trials + 1)
    assert simulate(more, speed, 0).wall_s >= simulate(few, speed, 0).wall_s - 1e-6


@settings(max_examples=30, deadline=None)
@given(speed=SPEEDS, num_trials=st.integers(4, 30), num_packs=st.integers(1, 4))
def test_more_gpus_never_take_more_time(speed: Steady, num_trials: int, num_packs: int) -> None:
    one = plain(num_trials=num_trials, num_packs=num_packs, num_gpus=num_packs)
    more = dataclasses.replace(one, num_packs=num_packs + 1, num_gpus=num_packs + 1)
    times = [simulate(load, speed, 0).wall_s for load in (one, more)]
    assert times[1] <= times[0] * 1.02 + EVALUATION_S + REFILL_S + 4 * PROPOSAL_S


def test_what_has_been_done_is_not_done_again() -> None:
    load = make_load(num_trials=5, concurrency=2)
    done = State(
        num_begun=5,
        running=[Running(trial_id="t4", value=1.0, step=60.0)],
        values={10: {f"t{n}": n / 4 for n in range(5)}, 30: {"t4": 1.0}},
    )
    found = simulate(load, Steady(), 0, done)
    assert found.search_s == pytest.approx(30 + ALONE_S)
    assert found.num_reached == {10: 5, 30: 1, 90: 1}


def test_in_the_finals_only_their_runs_count() -> None:
    load = make_load(num_trials=50, num_final_runs=9)
    runs = [Running(trial_id="f0", value=0.0, step=80.0)]
    found = simulate(load, Steady(), 0, State(num_begun=5, final_runs=runs))
    assert found.search_s == 0.0
    assert found.finals_s == pytest.approx(10 + ALONE_S)
