"""Who meets in the finals, with which seeds, and how the controller hands out their runs."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sweeps.config import SweepConfig
from sweeps.control.controller import TrialController
from sweeps.finals.finalists import (
    FinalRun,
    choose_finals,
    count_final_runs,
    find_last_finals,
    is_over,
)
from sweeps.records.events import EventLog, find_since_search, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord, replay, replay_finals
from sweeps.search.study import Search
from tests.sweeps.invented_sweep import (
    LOSS,
    METRIC,
    SPACE,
    make_config,
    make_history,
    make_report,
    point,
)
from trainables.config import TrialReport

HISTORIES = [
    make_history(0, "stopped", (1, 9.0)),
    make_history(1, "completed", (1, 5.0), (3, 5.0), (9, 30.0)),
    make_history(2, "completed", (1, 5.0), (3, 5.0), (9, 31.0)),
    make_history(3, "stopped", (1, 8.0), (3, 4.0)),
    make_history(4, "failed", (1, 99.0), (3, 99.0)),
    make_history(5, "stopped", (1, 9.5)),
]


def config_of(**changes: Any) -> SweepConfig:
    known = {"finals": True, "num_finalists": 2, "num_final_seeds": 3, "num_trials": 6, "seed": 7}
    return make_config(**{**known, **changes})


def test_best_completed_trials_train_again_with_seeds_that_the_search_did_not_use() -> None:
    found = choose_finals(config_of(start_points=()), HISTORIES, METRIC)
    assert found is not None and found.finalists == ("t0002", "t0001")
    assert found.runs == (
        FinalRun(trial_id="f0002s1", of="t0002", seed=8),
        FinalRun(trial_id="f0002s2", of="t0002", seed=9),
        FinalRun(trial_id="f0002s3", of="t0002", seed=10),
        FinalRun(trial_id="f0001s1", of="t0001", seed=8),
        FinalRun(trial_id="f0001s2", of="t0001", seed=9),
        FinalRun(trial_id="f0001s3", of="t0001", seed=10),
    )
    assert found.baseline is None


def test_stopped_trials_fill_up_by_rung() -> None:
    config = config_of(num_finalists=5, num_final_seeds=1, start_points=())
    found = choose_finals(config, HISTORIES, METRIC)
    assert found is not None
    assert found.finalists == ("t0002", "t0001", "t0003", "t0005", "t0000")
    assert [(run.trial_id, run.seed) for run in found.runs] == [
        (f"f{number:04d}s1", 8) for number in (2, 1, 3, 5, 0)
    ]


def test_best_start_point_is_trained_to_the_end_to_be_compared_with() -> None:
    config = config_of(num_final_seeds=2, start_points=(point(2e-4),))
    found = choose_finals(config, HISTORIES, METRIC)
    assert found is not None and found.baseline == "t0000"
    assert found.runs[-1] == FinalRun(trial_id="f0000s1", of="t0000", seed=8)
    assert [run.of for run in found.runs] == ["t0002"] * 2 + ["t0001"] * 2 + ["t0000"]
    two = replace(config, start_points=(point(2e-4), point(1e-3)))
    among = choose_finals(two, HISTORIES, METRIC)
    assert among is not None and among.baseline == "t0001"
    assert [run.of for run in among.runs] == ["t0002"] * 2 + ["t0001"] * 2
    beside = choose_finals(replace(two, num_finalists=1), HISTORIES, METRIC)
    assert beside is not None and beside.baseline == "t0001"
    assert [run.of for run in beside.runs] == ["t0002"] * 2


def test_a_point_that_a_user_asked_for_is_no_start_point() -> None:
    config = config_of(start_points=(point(2e-4), point(1e-3)))
    first, second, *others = HISTORIES
    found = choose_finals(config, [first, replace(second, is_asked=True), *others], METRIC)
    assert found is not None and found.baseline == "t0000"


def test_start_points_outside_the_space_are_no_trials_of_the_search() -> None:
    found = choose_finals(config_of(start_points=(point(0.5),)), HISTORIES, METRIC)
    assert found is not None and found.baseline is None


def test_less_may_be_better() -> None:
    histories = [make_history(n, "completed") for n in range(2)]
    for number, history in enumerate(histories):
        history.reports.append(make_report(history.trial_id, 9, 1.0, eval_loss=1.0 + number))
    found = choose_finals(config_of(num_finalists=1, start_points=()), histories, LOSS)
    assert found is not None and found.finalists == ("t0000",)


@pytest.mark.parametrize(
    ("config", "histories"),
    [
        (config_of(finals=False), HISTORIES),
        (config_of(), [make_history(0, "failed", (9, 1.0))]),
        (config_of(), [make_history(0, "stopped")]),
    ],
)
def test_no_finals_where_they_are_off_or_nobody_can_take_part(
    config: SweepConfig, histories: list[TrialRecord]
) -> None:
    assert choose_finals(config, histories, METRIC) is None


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
@example(2, 3, 2**32 - 1)
def test_every_finalist_has_every_fresh_seed_once(num: int, num_seeds: int, seed: int) -> None:
    config = config_of(num_finalists=num, num_final_seeds=num_seeds, seed=seed, start_points=())
    found = choose_finals(config, HISTORIES, METRIC)
    assert found is not None and len(found.finalists) == num
    assert len({run.trial_id for run in found.runs}) == len(found.runs)
    for trial_id in found.finalists:
        own = [run.seed for run in found.runs if run.of == trial_id]
        assert own == [(seed + place) % 2**32 for place in range(1, num_seeds + 1)]


def test_most_runs_are_those_of_all_finalists_and_of_a_start_point_that_is_none() -> None:
    config = config_of(num_finalists=4, num_final_seeds=3)
    assert count_final_runs(config) == 4 * 3 + 1
    assert count_final_runs(replace(config, start_points=())) == 12
    assert count_final_runs(replace(config, num_trials=2)) == 2 * 3
    assert (
        count_final_runs(config, num_trials=1) == 3 and count_final_runs(config, num_trials=5) == 13
    )
    assert count_final_runs(replace(config, finals=False)) == 0


@given(
    statuses=st.lists(st.sampled_from(["completed", "stopped", "failed"]), min_size=1, max_size=9),
    num_finalists=st.integers(1, 5),
    num_start_points=st.integers(0, 2),
)
def test_never_more_runs_than_were_foretold(
    statuses: list[str], num_finalists: int, num_start_points: int
) -> None:
    points = tuple(point(1e-4 * (n + 1)) for n in range(num_start_points))
    config = config_of(num_trials=len(statuses), num_finalists=num_finalists, start_points=points)
    histories = [
        make_history(n, status, (9 if status == "completed" else 1, float(n % 4)))
        for n, status in enumerate(statuses)
    ]
    found = choose_finals(config, histories, METRIC)
    assert found is None or len(found.runs) <= count_final_runs(config)


def book_of(
    folder: Path, config: SweepConfig, study: optuna.Study | None = None
) -> TrialController:
    """The controller of a sweep in folder, new or resumed."""
    paths = RunPaths(folder)
    log = EventLog(paths.events)
    records = replay(read_events(paths.events))
    search = Search(
        study or optuna.create_study(direction="maximize"),
        SPACE,
        config.seed,
        num_startup_trials=1000,
    )
    search.restore(records, METRIC)
    controller = TrialController(config, paths, METRIC, search, log)
    controller.resume(records)
    return controller


def finish_all(controller: TrialController, values: dict[str, float], step: int = 9) -> list[str]:
    """Trains one trial after the other; those without a value fail. Ids in order."""
    begun = []
    while (trial := controller.next_trial()) is not None:
        begun.append(trial.trial_id)
        value = values.get(trial.trial_id)
        if value is None:
            controller.end(trial.trial_id, "failed", "out of memory")
        else:
            controller.report(make_report(trial.trial_id, step, value))
    return begun


CONFIG = config_of(num_trials=3, num_final_seeds=1, start_points=())
VALUES = {"t0000": 1.0, "t0001": 3.0, "t0002": 2.0, "f0001s1": 5.0, "f0002s1": 4.0}


def test_finals_follow_the_search_with_seeds_and_folders_of_their_own(tmp_path: Path) -> None:
    controller = book_of(tmp_path, CONFIG)
    for trial_id in ("t0000", "t0001"):
        controller.next_trial()
        controller.report(make_report(trial_id, 9, VALUES[trial_id]))
    third = controller.next_trial()
    assert third is not None and controller.next_trial() is None and controller.num_left == 1
    assert find_last_finals(read_events(tmp_path / "events.jsonl")) is None
    controller.report(make_report("t0002", 9, 2.0))
    assert controller.num_left == 2
    run = controller.next_trial()
    assert run is not None and run.trial_id == "f0001s1"
    assert run.settings == replace(third.settings, seed=8)
    assert run.folder == tmp_path / "checkpoints" / "f0001s1"
    searched = replay(read_events(tmp_path / "events.jsonl"))[1]
    assert run.params == searched.params and searched.trial_id == "t0001"


def test_nobody_stops_a_run_of_the_finals_and_optuna_hears_of_none(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize")
    controller = book_of(tmp_path, CONFIG, study)
    finish_all(controller, {name: value for name, value in VALUES.items() if name[0] == "t"})
    assert [trial.value for trial in study.trials] == [1.0, 3.0, 2.0]
    again = book_of(tmp_path / "more", CONFIG)
    for trial_id in ("t0000", "t0001", "t0002"):
        again.next_trial()
        again.report(make_report(trial_id, 9, VALUES[trial_id]))
    for _ in range(2):
        again.next_trial()
    worst: TrialReport = make_report("f0001s1", 1, -50.0)
    cohort = (make_report("f0002s1", 1, 60.0),)
    found = again.report(replace(worst, cohort=cohort))
    assert found == {"f0001s1": True, "f0002s1": True}


def test_failed_run_leaves_the_finals_to_the_others(tmp_path: Path) -> None:
    controller = book_of(tmp_path, CONFIG)
    finish_all(controller, {**VALUES, "f0001s1": None})  # type: ignore[dict-item]
    runs = {h.trial_id: h.status for h in replay_finals(read_events(tmp_path / "events.jsonl"))}
    assert runs == {"f0001s1": "failed", "f0002s1": "completed"}
    assert controller.num_left == 0
    assert is_over(CONFIG, read_events(tmp_path / "events.jsonl"), METRIC)


def test_resumed_finals_go_on_with_the_runs_that_have_not_ended(tmp_path: Path) -> None:
    controller = book_of(tmp_path, CONFIG)
    for trial_id in ("t0000", "t0001", "t0002", "f0001s1"):
        controller.next_trial()
        controller.report(make_report(trial_id, 9, VALUES[trial_id]))
    begun = controller.next_trial()
    assert begun is not None and controller.report(make_report(begun.trial_id, 1, 0.0))
    events = read_events(tmp_path / "events.jsonl")
    assert not is_over(CONFIG, events, METRIC)
    again = book_of(tmp_path, CONFIG)
    assert read_events(tmp_path / "events.jsonl") == events
    assert again.num_left == 1 and again.next_trial() == begun
    again.report(make_report(begun.trial_id, 9, 4.0))
    assert again.num_left == 0 and again.next_trial() is None
    assert is_over(CONFIG, read_events(tmp_path / "events.jsonl"), METRIC)


def test_more_trials_make_new_finals_in_which_old_runs_count(tmp_path: Path) -> None:
    finish_all(book_of(tmp_path, CONFIG), VALUES)
    more = replace(CONFIG, num_trials=4)
    assert not is_over(more, read_events(tmp_path / "events.jsonl"), METRIC)
    controller = book_of(tmp_path, more)
    begun = finish_all(controller, {"t0003": 9.0, "f0003s1": 8.0})
    assert begun == ["t0003", "f0003s1"]
    found = find_last_finals(read_events(tmp_path / "events.jsonl"))
    assert found is not None and found.finalists == ("t0003", "t0001")
    assert [run.trial_id for run in found.runs] == ["f0003s1", "f0001s1"]


def test_finals_that_more_trials_do_not_change_still_count(tmp_path: Path) -> None:
    finish_all(book_of(tmp_path, CONFIG), VALUES)
    before = find_last_finals(read_events(tmp_path / "events.jsonl"))
    begun = finish_all(book_of(tmp_path, replace(CONFIG, num_trials=4)), {"t0003": -9.0})
    events = read_events(tmp_path / "events.jsonl")
    assert begun == ["t0003"] and find_last_finals(events) == before
    assert find_since_search(events, "finals_started") is not None


def test_finals_may_be_asked_for_later_and_with_more_seeds(tmp_path: Path) -> None:
    without = replace(CONFIG, finals=False)
    finish_all(book_of(tmp_path, without), VALUES)
    assert is_over(without, read_events(tmp_path / "events.jsonl"), METRIC)
    assert finish_all(book_of(tmp_path, CONFIG), VALUES) == ["f0001s1", "f0002s1"]
    three = replace(CONFIG, num_final_seeds=2)
    begun = finish_all(book_of(tmp_path, three), {"f0001s2": 1.0, "f0002s2": 1.0})
    assert begun == ["f0001s2", "f0002s2"]
    assert len(replay_finals(read_events(tmp_path / "events.jsonl"))) == 4


def test_search_that_is_stopped_early_is_followed_by_the_finals(tmp_path: Path) -> None:
    controller = book_of(tmp_path, replace(CONFIG, num_trials=100))
    controller.next_trial()
    controller.next_trial()
    controller.stop_search()
    assert controller.next_trial() is None and controller.num_left == 2
    controller.report(make_report("t0000", 9, 1.0))
    controller.report(make_report("t0001", 9, 3.0))
    assert finish_all(controller, {"f0001s1": 1.0, "f0000s1": 1.0}) == ["f0001s1", "f0000s1"]
    assert controller.num_left == 0


def test_search_of_which_all_trials_failed_has_no_finals(tmp_path: Path) -> None:
    controller = book_of(tmp_path, CONFIG)
    assert finish_all(controller, {}) == ["t0000", "t0001", "t0002"]
    assert controller.num_left == 0
    events = read_events(tmp_path / "events.jsonl")
    assert find_last_finals(events) is None and is_over(CONFIG, events, METRIC)


def test_log_gives_the_finals_back_as_they_were_chosen(tmp_path: Path) -> None:
    config = config_of(num_finalists=3)
    found = choose_finals(config, HISTORIES, METRIC)
    assert found is not None and found.baseline is not None
    log = EventLog(tmp_path / "events.jsonl")
    log.append("finals_started", **asdict(found))
    assert find_last_finals(read_events(tmp_path / "events.jsonl")) == found
