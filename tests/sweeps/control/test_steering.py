"""A running search does what is asked, once, and a resume keeps it, whenever its driver died."""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from sweeps.control import steering as steering_module
from sweeps.control.controller import TrialController
from sweeps.control.steering import Steering
from sweeps.records.events import EventLog, find_num_trials
from sweeps.records.paths import RunPaths
from sweeps.records.request_file import Request, append_request
from sweeps.records.trials_csv import FINISH_REASON, STOP_REASON
from sweeps.search.report_sampler import ReportSampler
from sweeps.search.study import Search
from sweeps.tracking.progress import ProgressTable
from tests.sweeps.control.controllers import (
    Recorder,
    events_of,
    open_steered,
    records_of,
    should_continue,
    study_trials,
)
from tests.sweeps.invented_sweep import METRIC, make_config, make_report

CONFIG = make_config(num_trials=4, finals=True, num_finalists=1, num_final_seeds=2)
POINT = {"lora_rank": 16, "learning_rate": 3e-3}


class Life:
    """One driver of a sweep: begun, or resumed as sweeps.run resumes it."""

    def __init__(self, folder: Path, *listeners: Any, num_trials: int | None = None) -> None:
        self.folder = folder
        paths = RunPaths(folder)
        is_resumed = paths.events.exists()
        events = events_of(folder) if is_resumed else []
        known = find_num_trials(events, CONFIG.num_trials)
        config = replace(CONFIG, num_trials=num_trials or known)
        self.controller: TrialController
        self.steering: Steering
        self.controller, self.steering = open_steered(
            folder, config, *listeners, is_resumed=is_resumed
        )

    def begin(self, num_trials: int) -> list[str]:
        """Hands out trials; their ids."""
        trials = [self.controller.next_trial() for _ in range(num_trials)]
        return [trial.trial_id for trial in trials if trial is not None]

    def ask(self, request: Request) -> dict[str, Any]:
        """What the log says of a request, once it is taken up."""
        append_request(RunPaths(self.folder), request)
        self.steering.poll()
        return answer_of(self.folder, request)


def answer_of(folder: Path, request: Request) -> dict[str, Any]:
    (answer,) = [e for e in events_of(folder) if e["kind"] == "asked" and e["id"] == request.id]
    return answer


def ends(folder: Path) -> list[tuple[Any, str]]:
    return [(record.status, record.reason) for record in records_of(folder)]


def test_stopped_trial_is_pruned_and_its_place_is_free(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    life = Life(tmp_path, recorder)
    life.begin(3)
    assert should_continue(life.controller, make_report("t0001", 1, 2.0))
    answer = life.ask(Request(stop=("t0001", "t0002")))
    assert (answer["refused"], answer["stop"]) == ("", ["t0001", "t0002"])
    assert ends(tmp_path) == [(None, ""), ("stopped", STOP_REASON), ("stopped", STOP_REASON)]
    states = [trial.state for trial in study_trials(tmp_path)]
    assert states == [TrialState.RUNNING, TrialState.PRUNED, TrialState.PRUNED]
    assert study_trials(tmp_path)[1].intermediate_values == {1: 2.0}
    assert ("ended", "t0002", "stopped", STOP_REASON) in recorder.notices and not recorder.behind
    assert life.begin(2) == ["t0003"]
    again = life.ask(Request(stop=("t0001",)))
    assert "t0001 has ended already" in again["refused"] and again["stop"] == []
    assert Life(tmp_path).begin(3) == ["t0000", "t0003"]


def test_added_trial_comes_next_on_top_of_the_others(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    life = Life(tmp_path, recorder)
    life.begin(2)
    assert life.ask(Request(add=POINT))["num_trials"] == 5
    words = "--add lora_rank=16 learning_rate=0.003; the search has 5 trials now"
    assert ("asked", words, 5) in recorder.notices
    assert life.begin(9) == ["t0002", "t0003", "t0004"]
    records = records_of(tmp_path)
    assert (records[2].params.lora_rank, records[2].params.learning_rate) == (16, 3e-3)
    assert [record.is_asked for record in records] == [False, False, True, False, False]
    assert records[3].params.learning_rate != 3e-3
    assert "rank" not in life.ask(Request(add=POINT))["refused"]  # the rest is drawn again
    assert life.begin(9) == ["t0005"]


def test_point_outside_the_space_competes_and_teaches_no_sampler(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.begin(2)
    outside = {"lora_rank": "2", "lora_alpha": "3", "learning_rate": "0.5", "lora_dropout": "0.05"}
    assert life.ask(Request(add=outside))["refused"] == ""
    assert life.begin(1) == ["t0002"]
    params = records_of(tmp_path)[2].params
    assert (params.lora_rank, params.lora_alpha, params.learning_rate) == (2, 3.0, 0.5)
    trial = study_trials(tmp_path)[2]
    assert trial.params.keys() == {"lora_dropout", "use_rslora", "target_modules"}
    for n in range(3):
        life.controller.report(make_report(f"t000{n}", 1, 10.0 * n))
    assert study_trials(tmp_path)[2].intermediate_values == {1: 20.0}
    assert Life(tmp_path).begin(9) == ["t0002", "t0003", "t0004"]
    study = optuna.load_study(study_name="invented", storage=RunPaths(tmp_path).study_url)
    learned = ReportSampler(study.sampler).infer_relative_search_space(study, study.trials[-1])
    assert learned.keys() == {*study.trials[0].params} - {"target_modules"}


def test_number_of_trials_rises_and_falls_but_not_below_those_that_have_begun(
    tmp_path: Path,
) -> None:
    life = Life(tmp_path)
    life.begin(2)
    assert life.ask(Request(num_trials=6))["num_trials"] == 6 and life.controller.num_left == 6
    assert life.ask(Request(num_trials=1))["num_trials"] == 2 and life.controller.num_left == 2
    assert life.begin(1) == []
    again = Life(tmp_path)
    assert again.controller.num_left == 2 and again.begin(3) == ["t0000", "t0001"]
    assert Life(tmp_path, num_trials=3).begin(9) == ["t0000", "t0001", "t0002"]
    assert Life(tmp_path).controller.num_left == 3  # what a resume asked for stays too


def test_added_points_are_never_dropped_by_fewer_trials(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    life = Life(tmp_path, recorder)
    life.begin(1)  # of two start points
    life.ask(Request(add=POINT))
    answer = life.ask(Request(num_trials=1))
    note = "1 is less than the 2 that have begun or were added: the search ends with these 2"
    assert (answer["request"], answer["note"]) == ("--num-trials 1", note)
    assert ("asked", f"--num-trials 1; {note}", 2) in recorder.notices
    life = Life(tmp_path, num_trials=1)
    assert life.begin(9) == ["t0000", "t0001"]
    assert [record.is_asked for record in records_of(tmp_path)] == [False, True]


def test_finish_drops_added_points_for_good_and_says_which(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.begin(2)
    life.controller.report(make_report("t0000", 1, 2.0))
    life.ask(Request(add=POINT))
    note = "dropped, since they had not begun: learning_rate=0.003 lora_rank=16"
    assert life.ask(Request(finish=True))["note"] == note
    life = Life(tmp_path, num_trials=3)
    assert life.begin(1) == ["t0002"] and not records_of(tmp_path)[2].is_asked
    assert life.ask(Request(add=POINT))["refused"] == ""  # it was dropped, so it is new


def test_a_search_without_finals_that_was_finished_has_no_more_trials(tmp_path: Path) -> None:
    controller, steering = open_steered(tmp_path, replace(CONFIG, finals=False))
    controller.next_trial()
    controller.report(make_report("t0000", 1, 2.0))
    for request in (Request(add=POINT), Request(finish=True), Request(num_trials=9)):
        append_request(RunPaths(tmp_path), request)
    steering.poll()
    assert "search has ended" in answer_of(tmp_path, request)["refused"]
    assert controller.next_trial() is None


def test_finish_stops_all_and_the_finals_follow(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.begin(3)
    assert "no trial has reported" in life.ask(Request(finish=True))["refused"]
    assert should_continue(life.controller, make_report("t0001", 1, 2.0))
    answer = life.ask(Request(finish=True))
    assert answer["stop"] == ["t0000", "t0001", "t0002"] and answer["num_trials"] == 3
    assert ends(tmp_path) == [("stopped", FINISH_REASON)] * 3
    assert life.controller.is_in_finals and life.begin(9) == ["f0001s1", "f0001s2"]
    for request in (Request(finish=True), Request(num_trials=9), Request(add=POINT)):
        assert "search has ended" in life.ask(request)["refused"]
    assert "run of the finals" in life.ask(Request(stop=("f0001s1",)))["refused"]
    assert Life(tmp_path).begin(9) == ["f0001s1", "f0001s2"]


def test_finish_without_running_trials_ends_the_search_too(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.begin(1)
    for step in CONFIG.rungs:
        life.controller.report(make_report("t0000", step, 2.0))
    assert life.ask(Request(finish=True))["stop"] == []
    assert life.begin(9) == ["f0000s1", "f0000s2"]


def test_held_trials_can_be_stopped_before_the_packs_are_there(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.controller.hold_starts()
    life.begin(2)
    assert life.ask(Request(stop=("t0001",)))["refused"] == ""
    assert ends(tmp_path) == [(None, ""), ("stopped", STOP_REASON)]


def test_what_nobody_took_up_is_taken_up_by_the_resume(tmp_path: Path) -> None:
    Life(tmp_path).begin(2)
    paths = RunPaths(tmp_path)
    asked = [Request(stop=("t0000",)), Request(add=POINT), Request(stop=("t0009",))]
    for request in asked:
        append_request(paths, request)
    life = Life(tmp_path)
    assert [bool(answer_of(tmp_path, request)["refused"]) for request in asked] == [0, 0, 1]
    assert life.begin(9) == ["t0001", "t0002", "t0003", "t0004"]
    assert len([e for e in events_of(tmp_path) if e["kind"] == "asked"]) == 3
    life.steering.poll()
    Life(tmp_path)
    assert len([e for e in events_of(tmp_path) if e["kind"] == "asked"]) == 3


def test_a_sweep_that_has_ended_goes_on_with_what_is_asked_before_its_resume(
    tmp_path: Path,
) -> None:
    life = Life(tmp_path)
    life.begin(1)
    life.controller.report(make_report("t0000", 1, 2.0))
    life.ask(Request(finish=True))
    for run in life.begin(9):
        for step in CONFIG.rungs:
            life.controller.report(make_report(run, step, 2.0))
    assert life.controller.num_left == 0
    append_request(RunPaths(tmp_path), Request(add=POINT))
    life = Life(tmp_path)
    assert not life.controller.is_in_finals and life.begin(9) == ["t0001"]
    life.controller.report(make_report("t0001", 1, 9.0))
    for step in CONFIG.rungs[1:]:
        life.controller.report(make_report("t0001", step, 9.0))
    assert life.begin(9) == ["f0001s1", "f0001s2"]


def test_the_sweep_says_what_was_asked_and_which_finals_are_left(tmp_path: Path) -> None:
    out = io.StringIO()

    def live() -> Life:
        return Life(tmp_path, ProgressTable(METRIC, 4, 9, console=Console(file=out)))

    life = live()
    life.begin(1)
    life.controller.report(make_report("t0000", 1, 2.0))
    life.ask(Request(add=POINT))
    life.ask(Request(finish=True))
    lines = [line.partition(" | ")[0] for line in out.getvalue().splitlines()]
    assert lines[-4:] == [
        "asked: --add lora_rank=16 learning_rate=0.003; the search has 5 trials now",
        "asked: --finish; dropped, since they had not begun: learning_rate=0.003 lora_rank=16",
        "t0000 stopped at step 1/9: search ended by hand",
        "finals started: 2 runs to train",
    ]
    (run, _) = life.begin(9)
    for step in CONFIG.rungs:
        life.controller.report(make_report(run, step, 2.0))
    live()
    assert "finals started: 1 of 2 runs to train |" in out.getvalue()
    (run,) = (life := live()).begin(9)
    for step in CONFIG.rungs:
        life.controller.report(make_report(run, step, 2.0))
    before = out.getvalue()
    live()
    assert out.getvalue() == before  # nothing is left


def test_a_search_that_its_budget_has_ended_takes_no_more_trials(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.begin(2)
    life.controller.stop_search()
    assert "search has ended" in life.ask(Request(num_trials=9))["refused"]
    assert life.ask(Request(stop=("t0000",)))["refused"] == ""


def test_a_request_that_fails_in_a_way_nobody_thought_of_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no such thing")

    life = Life(tmp_path)
    life.begin(1)
    with monkeypatch.context() as patch:
        patch.setattr(steering_module, "resolve", fail)
        assert "no such thing" in life.ask(Request(add=POINT))["refused"]
    assert life.ask(Request(num_trials=5))["refused"] == ""


class KillNow(BaseException):
    """The driver dies here."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Kills the driver before its so-many-th write to the log or the study."""
    at, made = math.inf, 0

    def watch(owner: type, name: str) -> None:
        write = getattr(owner, name)

        def write_or_die(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            if made == at:
                raise KillNow
            return write(*args, **kwargs)

        monkeypatch.setattr(owner, name, write_or_die)

    def set_fuse(number: float) -> None:
        nonlocal at, made
        at, made = number, 0

    watch(EventLog, "append_all")
    for name in ("enqueue", "finish"):
        watch(Search, name)
    yield set_fuse


@pytest.mark.slow
@pytest.mark.parametrize("request_", [Request(add=POINT), Request(finish=True)])
def test_driver_killed_between_a_request_and_its_deeds_does_them_when_it_is_resumed(
    tmp_path: Path, request_: Request, kill_at: Callable[[float], None]
) -> None:
    outcomes = []
    for killed_before in (math.inf, *range(1, 20)):
        folder = tmp_path / str(killed_before)
        folder.mkdir()
        life = Life(folder)
        life.begin(3)
        life.controller.report(make_report("t0001", 1, 2.0))
        append_request(RunPaths(folder), request_)
        kill_at(killed_before)
        is_killed = False
        try:
            life.steering.poll()
        except KillNow:
            is_killed = True
        kill_at(math.inf)
        life = Life(folder)
        begun = life.begin(9)
        points = [record.params.learning_rate for record in records_of(folder)]
        states = [trial.state for trial in study_trials(folder)]
        asked = [event for event in events_of(folder) if event["kind"] == "asked"]
        assert len(asked) == 1
        outcomes.append((begun, points, states, ends(folder)))
        assert outcomes[-1] == outcomes[0], killed_before
        if not is_killed and killed_before < math.inf:
            break
    assert len(outcomes) > 3  # so often it was killed
