"""The trial controller: who is told what in which order."""

import dataclasses
import math
import os
import tempfile
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from sweeps.config import SweepConfig
from sweeps.control.controller import TrialController
from sweeps.records.events import EventLog, make_report_fields, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import replay
from sweeps.search.asha import Asha
from sweeps.search.study import Search
from tests.examples import max_examples
from tests.sweeps.control.controllers import (
    CONFIG,
    Recorder,
    check_whole,
    events_of,
    open_controller,
    open_with_trials,
    records_of,
    should_continue,
    study_trials,
    train_all,
)
from tests.sweeps.invented_sweep import METRIC, SPACE, make_cohort, make_config, make_report
from trainables.config import TrialReport


def test_log_then_listeners_and_each_thing_once(tmp_path: Path) -> None:
    first, second = Recorder(tmp_path), Recorder(tmp_path)
    controller = open_controller(tmp_path, CONFIG, first, second)
    begun = train_all(controller, CONFIG, {})
    assert first.behind == [] and first.notices == second.notices
    assert begun == ["t0000", "t0001", "t0002", "t0003"]
    assert [notice[1:] for notice in first.notices if notice[0] == "started"] == [
        (trial_id, number) for number, trial_id in enumerate(begun)
    ]
    reported = [notice for notice in first.notices if notice[0] == "reported"]
    assert len(reported) == len(set(reported)) > 4
    assert sorted(notice[1] for notice in first.notices if notice[0] == "ended") == begun  # type: ignore[type-var]
    assert controller.next_trial() is None and controller.num_left == 0


def test_resent_report_finds_its_decision_made_and_is_told_to_nobody(tmp_path: Path) -> None:
    listener = Recorder(tmp_path)
    controller = open_controller(tmp_path, CONFIG, listener)
    first, second = controller.next_trial(), controller.next_trial()
    assert first is not None and second is not None
    assert should_continue(controller, make_report("t0000", 1, 5.0))
    assert should_continue(controller, make_report("t0001", 1, 6.0))
    events, notices = events_of(tmp_path), list(listener.notices)
    assert should_continue(controller, make_report("t0000", 1, 5.0))
    assert events_of(tmp_path) == events and listener.notices == notices
    again = open_controller(tmp_path, CONFIG, listener, is_resumed=True)
    assert listener.notices[-1] == ("ended", "t0000", "stopped", "place 2 of 2 at step 1")
    assert not should_continue(again, make_report("t0000", 1, 5.0))
    trial = study_trials(tmp_path)[0]
    assert (trial.state, trial.value) == (TrialState.PRUNED, 5.0)


VALUES = st.one_of(st.integers(0, 4).map(float), st.just(math.nan))


@max_examples(60)
@given(data=st.data(), values=st.lists(VALUES, min_size=1, max_size=9), factor=st.integers(2, 4))
def test_whichever_of_a_cohort_reports_decides_it_alike_for_all(
    data: st.DataObject, values: list[float], factor: int
) -> None:
    """Also if some of its trials never report, because their processes are dead."""
    config = make_config(num_trials=len(values), start_points=(), reduction_factor=factor)
    step = data.draw(st.sampled_from(config.rungs[:-1]))
    cohort = {f"t{number:04d}": value for number, value in enumerate(values)}
    finite = {trial_id: value for trial_id, value in cohort.items() if math.isfinite(value)}
    expected = Asha(config.rungs, factor, METRIC).decide_who_continues(step, finite)
    arriving = data.draw(st.permutations(make_cohort(step, cohort)))
    arriving = arriving[: data.draw(st.integers(1, len(arriving)))]
    with tempfile.TemporaryDirectory() as folder:
        controller, log = controller_in_memory(Path(folder), config)
        decided = controller.report(arriving[0])
        written = log.read_bytes()
        for report in arriving[1:]:
            decided |= controller.report(report)
        assert log.read_bytes() == written
        records = replay(read_events(log))
    assert decided == {trial_id: expected.get(trial_id, False) for trial_id in cohort}
    ended = {h.trial_id: h.status for h in records if h.status}
    assert ended == {
        trial_id: "stopped" if trial_id in finite else "failed"
        for trial_id, continues in decided.items()
        if not continues
    }


def controller_in_memory(folder: Path, config: SweepConfig) -> tuple[TrialController, Path]:
    """A controller whose trials have all begun, and the path of its log."""
    paths = RunPaths(folder)
    search = Search(optuna.create_study(), SPACE, 0, num_startup_trials=1000)
    controller = TrialController(config, paths, METRIC, search, EventLog(paths.events))
    while controller.next_trial() is not None:
        pass
    return controller, paths.events


def test_cohort_is_written_down_before_anyone_is_decided(tmp_path: Path) -> None:
    listener = Recorder(tmp_path)
    controller = open_with_trials(tmp_path, 4, listener)
    last = make_cohort(1, {"t0003": 5.0, "t0001": 7.0, "t0000": math.nan, "t0002": 6.0})[-1]
    assert controller.report(last) == {
        "t0000": False,
        "t0001": True,
        "t0002": False,
        "t0003": False,
    }
    events = events_of(tmp_path)
    written = [
        (event["kind"], event["trial_id"], event.get("cohort"))
        for event in events
        if event["kind"] in ("report", "trial_ended")
    ]
    assert written == [
        ("report", "t0001", ["t0000", "t0002", "t0003"]),
        ("report", "t0002", ["t0000", "t0001", "t0003"]),
        ("report", "t0003", ["t0000", "t0001", "t0002"]),
        ("trial_ended", "t0000", None),
        ("trial_ended", "t0002", None),
        ("trial_ended", "t0003", None),
    ]
    assert listener.behind == []
    assert listener.notices[-1] == ("ended", "t0003", "stopped", "place 3 of 3 at step 1")
    assert [t.intermediate_values for t in study_trials(tmp_path)] == [
        {},
        {1: 7.0},
        {1: 6.0},
        {1: 5.0},
    ]


def test_cohort_is_news_of_those_that_are_not_known_at_its_step_yet(tmp_path: Path) -> None:
    """A pack that died and came back scores some trials again, among others."""
    controller = open_with_trials(tmp_path, 4)
    controller.end("t0003", "failed", "out of memory")
    first = make_cohort(1, {"t0000": 5.0, "t0001": 4.0})[0]
    assert controller.report(first) == {"t0000": True, "t0001": False}
    again = make_cohort(1, {"t0000": 1.0, "t0001": 9.0, "t0002": 6.0, "t0003": 9.0})
    assert controller.report(again[1]) == {"t0001": False, "t0002": True}
    assert [should_continue(controller, report) for report in again] == [True, False, True, False]
    records = records_of(tmp_path)
    assert [[r.metrics[METRIC.name] for r in h.reports] for h in records] == [[5], [4], [6], []]


def test_trials_wait_for_the_disk_once_for_their_starts_their_reports_and_their_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = open_with_trials(tmp_path, 0)
    controller.hold_starts()
    for _ in range(4):
        controller.next_trial()
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), sync(file)))
    reports = make_cohort(1, {f"t000{number}": float(number) for number in range(4)})
    for report in reports:
        controller.report(report)
    assert len(synced) == 3


def test_trial_that_waits_to_run_again_does_not_once_its_cohort_is_decided(tmp_path: Path) -> None:
    controller = open_with_trials(tmp_path, 2)
    controller.put_back("t0000")
    controller.report(make_cohort(1, {"t0000": 1.0, "t0001": 2.0})[1])
    following = controller.next_trial()
    assert following is not None and following.trial_id == "t0002"


@pytest.mark.parametrize("reverse", [False, True])
def test_trials_that_a_dead_driver_left_undecided_are_decided_together(
    tmp_path: Path, reverse: bool
) -> None:
    """The driver died once the cohort's reports were in the log, before any decision was."""
    open_with_trials(tmp_path, 4)
    log = EventLog(tmp_path / "events.jsonl")
    reports = make_cohort(1, {"t0000": 1.0, "t0001": 4.0, "t0002": 2.0, "t0003": 3.0})
    for report in reports[:: -1 if reverse else 1]:
        log.append("report", **make_report_fields(report))
    listener = Recorder(tmp_path)
    again = open_controller(tmp_path, CONFIG, listener, is_resumed=True)
    records = records_of(tmp_path)
    assert [h.status for h in records] == ["stopped", None, "stopped", "stopped"]
    kinds = [notice[:2] for notice in listener.notices]
    assert kinds.index(("started", "t0000")) < kinds.index(("ended", "t0000"))
    following = again.next_trial()
    assert following is not None and following.trial_id == "t0001" and again.num_left == 1


def test_trial_that_a_dead_driver_left_at_its_last_step_completes_without_a_process(
    tmp_path: Path,
) -> None:
    config = make_config(num_trials=1)
    controller = open_controller(tmp_path, config)
    controller.next_trial()
    log = EventLog(tmp_path / "events.jsonl")
    for step in config.rungs:
        log.append("report", **make_report_fields(make_report("t0000", step, 5.0)))
    again = open_controller(tmp_path, config, is_resumed=True)
    assert again.num_left == 0 and again.next_trial() is None
    assert study_trials(tmp_path)[0].state == TrialState.COMPLETE


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (
            dataclasses.replace(make_report("t0000", 1, 0.0), metrics={"eval_loss": 2.0}),
            "its report at step 1 has no rougeLsum",
        ),
        (make_report("t0000", 2, 5.0), "it reported at step 2, which is no rung"),
    ],
)
def test_report_that_says_nothing_fails_its_trial_alone(
    tmp_path: Path, report: TrialReport, reason: str
) -> None:
    controller = open_with_trials(tmp_path, 2)
    cohort = (make_report("t0001", report.step, 5.0),) if report.step == 1 else ()
    decided = controller.report(dataclasses.replace(report, cohort=cohort))
    assert decided == {"t0000": False} | {other.trial_id: True for other in cohort}
    record = records_of(tmp_path)[0]
    assert (record.status, record.reason, record.reports) == ("failed", reason, [])
    assert study_trials(tmp_path)[0].state == TrialState.FAIL


def test_trial_that_is_put_back_runs_again_and_is_told_once(tmp_path: Path) -> None:
    listener = Recorder(tmp_path)
    controller = open_controller(tmp_path, CONFIG, listener)
    first, second = controller.next_trial(), controller.next_trial()
    assert first is not None and second is not None
    controller.put_back(first.trial_id)
    assert controller.next_trial() == first
    assert [notice[1] for notice in listener.notices] == ["t0000", "t0001"]
    controller.end(second.trial_id, "failed", "its process died")
    controller.put_back(second.trial_id)
    third = controller.next_trial()
    assert third is not None and third.trial_id == "t0002"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_score_fails_the_trial_with_its_reason(tmp_path: Path, value: float) -> None:
    controller = open_with_trials(tmp_path, 1)
    assert should_continue(controller, make_report("t0000", 1, 5.0))
    assert not should_continue(controller, make_report("t0000", 3, value))
    (record,) = records_of(tmp_path)
    assert (record.status, record.reason) == ("failed", f"rougeLsum is {value} at step 3")
    trial = study_trials(tmp_path)[0]
    assert trial.state == TrialState.FAIL and trial.intermediate_values == {1: 5.0}
    assert trial.user_attrs["reason"] == record.reason


def test_first_end_counts_and_nothing_follows_it(tmp_path: Path) -> None:
    listener = Recorder(tmp_path)
    controller = open_with_trials(tmp_path, 1, listener)
    controller.end("t0000", "failed", "node lost")
    events, notices = events_of(tmp_path), list(listener.notices)
    controller.end("t0000", "completed", "")
    assert not should_continue(controller, make_report("t0000", 1, 5.0))
    assert events_of(tmp_path) == events and listener.notices == notices
    assert study_trials(tmp_path)[0].state == TrialState.FAIL
    assert controller.num_left == CONFIG.num_trials - 1


def test_reasons_are_written_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "very-secret-1")
    controller = open_with_trials(tmp_path, 1)
    controller.end("t0000", "failed", "401 for https://me:word@host with very-secret-1")
    (record,) = records_of(tmp_path)
    assert record.reason == "401 for https://me:REDACTED@host with REDACTED"
    assert study_trials(tmp_path)[0].user_attrs["reason"] == record.reason


def test_full_budget_completes_the_worst_trial_too(tmp_path: Path) -> None:
    controller = open_with_trials(tmp_path, 2)
    for step in CONFIG.rungs:
        assert should_continue(controller, make_report("t0000", step, 5.0)) == (step < 9)
    for step in CONFIG.rungs:
        assert should_continue(controller, make_report("t0001", step, 4.0 + (step < 9) * 9)) == (
            step < 9
        )
    assert [h.status for h in records_of(tmp_path)] == ["completed"] * 2
    assert [t.value for t in study_trials(tmp_path)[:2]] == [5.0, 4.0]


def test_resume_hands_out_unfinished_trials_first_and_keeps_their_rungs(tmp_path: Path) -> None:
    controller = open_controller(tmp_path, CONFIG)
    trials = [controller.next_trial() for _ in range(3)]
    controller.report(make_report("t0000", 1, 5.0))
    controller.end("t0001", "failed", "node lost")
    listener = Recorder(tmp_path)
    again = open_controller(tmp_path, CONFIG, listener, is_resumed=True)
    assert again.num_left == 3
    assert [again.next_trial(), again.next_trial()] == [trials[0], trials[2]]
    fresh = again.next_trial()
    assert fresh is not None and fresh.trial_id == "t0003" and again.next_trial() is None
    assert fresh.folder == tmp_path / "checkpoints" / "t0003"
    assert not should_continue(again, make_report("t0002", 1, 4.0))
    assert listener.notices[-1] == ("ended", "t0002", "stopped", "place 2 of 2 at step 1")


def test_resume_may_ask_for_more_or_fewer_trials(tmp_path: Path) -> None:
    two = make_config(num_trials=2)
    train_all(open_controller(tmp_path, two), two, {})
    more = open_controller(tmp_path, CONFIG, is_resumed=True)
    assert more.num_left == 2 and train_all(more, CONFIG, {}) == ["t0002", "t0003"]
    check_whole(tmp_path, CONFIG)
    fewer = open_controller(tmp_path, two, is_resumed=True)
    assert fewer.num_left == 0 and fewer.next_trial() is None


def test_study_that_was_lost_is_written_again_from_the_log(tmp_path: Path) -> None:
    two = make_config(num_trials=2)
    train_all(open_controller(tmp_path, two), two, {})
    assert len(study_trials(tmp_path)) == 2
    RunPaths(tmp_path).optuna_db.unlink()
    train_all(open_controller(tmp_path, CONFIG, is_resumed=True), CONFIG, {})
    check_whole(tmp_path, CONFIG)


def test_held_trials_start_in_their_order_when_they_are_released(tmp_path: Path) -> None:
    paths, listener = RunPaths(tmp_path), Recorder(tmp_path)
    controller = open_controller(tmp_path, CONFIG, listener)
    controller.hold_starts()
    handed = [controller.next_trial(), controller.next_trial()]
    assert [trial.trial_id for trial in handed if trial] == ["t0000", "t0001"]
    assert [event["kind"] for event in events_of(paths.folder)] == ["sweep_started"]
    assert not listener.notices
    controller.release_starts()
    assert listener.notices == [("started", "t0000", 0), ("started", "t0001", 1)]
    assert [record.trial_id for record in records_of(paths.folder)] == ["t0000", "t0001"]
    assert not listener.behind


@pytest.mark.parametrize("news", ["report", "end"])
def test_news_of_a_held_trial_starts_all_of_them_first(tmp_path: Path, news: str) -> None:
    controller = open_controller(tmp_path, CONFIG)
    controller.hold_starts()
    controller.next_trial(), controller.next_trial()
    if news == "report":
        should_continue(controller, make_report("t0001", 1, 4.0))
    else:
        controller.end("t0001", "failed", "its process died")
    kinds = [event["kind"] for event in events_of(tmp_path)]
    assert kinds[:3] == ["sweep_started", "trial_started", "trial_started"]
    assert kinds[3] in ("report", "trial_ended")


def test_driver_killed_while_it_holds_trials_loses_and_repeats_none(tmp_path: Path) -> None:
    controller = open_controller(tmp_path, CONFIG)
    controller.hold_starts()
    controller.next_trial(), controller.next_trial()
    again = open_controller(tmp_path, CONFIG, is_resumed=True)
    assert train_all(again, CONFIG, {}) == ["t0000", "t0001", "t0002", "t0003"]
    check_whole(tmp_path, CONFIG)
