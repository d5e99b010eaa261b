"""A controller over real files, its listener, a sweep that it runs, and what must be true then."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeps.config import SweepConfig
from sweeps.control.controller import TrialController
from sweeps.control.resolve_request import keep_begun
from sweeps.control.steering import Steering
from sweeps.cost import plan
from sweeps.finals import finalists
from sweeps.records.events import EventLog, Kind, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.request_file import RequestReader
from sweeps.records.trial_record import TrialRecord, replay, replay_all, replay_finals
from sweeps.search.study import Search
from sweeps.search.study_writer import StudyWriter
from tests.sweeps.invented_sweep import METRIC, SPACE, make_cohort, make_config
from trainables.config import TrialConfig, TrialReport

STATES = {
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


CONFIG = make_config(num_trials=4)


class Recorder:
    """A listener that keeps what it is told, and looks into the log meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notices: list[tuple[object, ...]] = []
        self.behind: list[str] = []

    def on_trial_start(self, config: TrialConfig, number: int) -> None:
        self._tell("started", config.trial_id, number)

    def on_report(self, config: TrialConfig, report: TrialReport) -> None:
        self._tell("reported", config.trial_id, report.step)

    def on_trial_end(self, config: TrialConfig, status: str, reason: str) -> None:
        self._tell("ended", config.trial_id, status, reason)

    def on_finals_start(self, runs: Sequence[TrialRecord]) -> None:
        self.notices.append(("finals", *(run.trial_id for run in runs)))

    def on_request(self, request: str, num_trials: int) -> None:
        self.notices.append(("asked", request, num_trials))

    def _tell(self, kind: str, trial_id: str, *facts: object) -> None:
        self.notices.append((kind, trial_id, *facts))
        everyone = replay_all(events_of(self.folder))
        (record,) = [record for record in everyone if record.trial_id == trial_id]
        if kind == "reported":
            is_known = record.reports[-1].step == facts[0]
        else:
            is_known = record.status == (facts[0] if kind == "ended" else None)
        if not is_known:
            self.behind.append(f"{kind} {trial_id}")


def study_trials(folder: Path) -> list[FrozenTrial]:
    """The study in its database, once it is written."""
    url = RunPaths(folder).study_url
    StudyWriter(url, "invented", SPACE, METRIC).replay([], replay_all(events_of(folder)))
    return optuna.load_study(study_name="invented", storage=url).get_trials()


def open_controller(
    folder: Path, config: SweepConfig, *listeners: Any, is_resumed: bool = False
) -> TrialController:
    """What the stages do before the first trial, over the files in folder."""
    return open_steered(folder, config, *listeners, is_resumed=is_resumed)[0]


def open_steered(
    folder: Path, config: SweepConfig, *listeners: Any, is_resumed: bool = False
) -> tuple[TrialController, Steering]:
    """The same, with what takes up requests."""
    paths = RunPaths(folder)
    log = EventLog(paths.events)
    events = events_of(paths.folder)
    config = replace(config, num_trials=keep_begun(config.num_trials, events)[0])
    kind: Kind = "sweep_resumed" if is_resumed else "sweep_started"
    log.append(kind, name=config.name, num_trials=config.num_trials)
    study = optuna.create_study(direction="maximize")
    search = Search(study, config.space, config.seed, num_startup_trials=3)
    starts = plan.list_start_points(config)[: config.num_trials]
    search.restore(replay(events), METRIC, starts)
    controller = TrialController(config, paths, METRIC, search, log, listeners)
    steering = Steering(controller, paths, log, events, RequestReader(paths, events))
    controller.resume(replay(events), steering.resume)
    return controller, steering


def open_with_trials(folder: Path, num_trials: int, *listeners: Any) -> TrialController:
    """A new controller of CONFIG that has handed out so many trials."""
    controller = open_controller(folder, CONFIG, *listeners)
    for _ in range(num_trials):
        controller.next_trial()
    return controller


def events_of(folder: Path) -> list[dict[str, Any]]:
    return read_events(RunPaths(folder).events)


def records_of(folder: Path) -> list[TrialRecord]:
    """The search's trials, as the log tells of them."""
    return replay(events_of(folder))


def should_continue(controller: TrialController, report: TrialReport) -> bool:
    """Whether the trial of a report that comes alone goes on."""
    return controller.report(report)[report.trial_id]


def train_all(controller: TrialController, config: SweepConfig, disk: dict[str, int]) -> list[str]:
    """Trains two trials at once, which report together where they stand at the same step; returns
    ids in the order of begin.

    The value rises with the step and falls with the distance from the best learning rate; the
    second trial's value becomes NaN, the third runs out of memory, and the fourth is the best.
    The disk holds each trial's last checkpoint, whose report is sent again.
    """
    active: dict[str, tuple[float, int]] = {}
    begun: list[str] = []
    while True:
        while len(active) < 2 and (trial := controller.next_trial()) is not None:
            begun.append(trial.trial_id)
            score = -abs(math.log(trial.params.learning_rate / 1e-3)) - trial.params.lora_dropout
            score += 10.0 if trial.trial_id == "t0003" else 0.0
            active[trial.trial_id] = score, disk.get(trial.trial_id, config.rungs[0])
        if not active:
            return begun
        if active.pop("t0002", None) is not None:
            controller.end("t0002", "failed", "out of memory")
            continue
        first_step = min(step for _, step in active.values())
        due = {trial_id: score for trial_id, (score, step) in active.items() if step == first_step}
        is_nan = {"t0001": first_step == config.rungs[1]}
        values = {
            trial_id: math.nan if is_nan.get(trial_id) else score + first_step
            for trial_id, score in due.items()
        }
        for report in make_cohort(first_step, values):
            disk[report.trial_id] = first_step
            if controller.report(report)[report.trial_id]:
                following = config.rungs[config.rungs.index(first_step) + 1]
                active[report.trial_id] = due[report.trial_id], following
            else:
                del active[report.trial_id]


def check_whole(folder: Path, config: SweepConfig) -> None:
    """Log, study and rows of a sweep that has ended agree, and every trial is there once."""
    paths = RunPaths(folder)
    events = events_of(paths.folder)
    records = replay(events)
    numbers = list(range(config.num_trials))
    assert [h.number for h in records] == numbers
    assert [h.trial_id for h in records] == [f"t{n:04d}" for n in numbers]
    check_finals(events, config)
    ids = sorted(h.trial_id for h in replay_all(events))
    started = [h.trial_id for h in records]
    assert sorted(e["trial_id"] for e in events if e["kind"] == "trial_started") == started
    assert sorted(e["trial_id"] for e in events if e["kind"] == "trial_ended") == ids
    reports = [(e["trial_id"], e["step"]) for e in events if e["kind"] == "report"]
    assert len(set(reports)) == len(reports)
    trials = study_trials(paths.folder)
    assert [t.number for t in trials] == numbers
    for record, trial in zip(records, trials, strict=True):
        assert record.status is not None and trial.state == STATES[record.status]
        values = {r.step: r.metrics[METRIC.name] for r in record.reports}
        assert trial.intermediate_values == values
        assert trial.user_attrs.get("reason", "") == record.reason
        if record.status == "completed":
            assert trial.value == values[config.max_steps]
        params = config.space.suggest(optuna.trial.FixedTrial(trial.params))  # type: ignore[arg-type]
        assert {name: getattr(record.params, name) for name in params} == params
    points = [trial.params for trial in trials[: len(config.start_points)]]
    named = {"target_modules": config.space.target_modules[0]}
    assert points == [named | point for point in config.start_points]
    assert len({trial.params["learning_rate"] for trial in trials}) == len(trials)
    assert [record.get_value(METRIC) for record in records] == [
        t.intermediate_values.get(max(t.intermediate_values, default=0)) for t in trials
    ]
    decided_again = "place 2 of 3 at step 1"  # by a driver that knows the fourth trial's value
    assert records[1].reason in ("rougeLsum is nan at step 3", decided_again)
    assert records[2].reason == "out of memory"


def check_finals(events: Sequence[dict[str, Any]], config: SweepConfig) -> None:
    """The finals that the search calls for were held once, and all their runs have ended."""
    runs = replay_finals(events)
    if not config.finals:
        assert not runs
        return
    asked = finalists.choose_finals(config, replay(events), METRIC)
    assert asked is not None and asked == finalists.find_last_finals(events)
    assert [event["kind"] for event in events].count("finals_started") == 1
    assert sorted(h.trial_id for h in runs) == sorted(run.trial_id for run in asked.runs)
    assert "t0003" in asked.finalists and len(runs) >= 2
    for record in runs:
        assert record.status == "completed"
        assert [report.step for report in record.reports] == list(config.rungs)
