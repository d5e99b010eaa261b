"""The trial controller: who is told what in which order, and what a kill at any write leaves."""

import dataclasses
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from sweeps.config import SweepConfig
from sweeps.control.controller import TrialController
from sweeps.cost import plan
from sweeps.finals import finalists
from sweeps.records.events import EventLog, read_events, report_fields
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord, replay, replay_all, replay_finals
from sweeps.search.asha import Asha
from sweeps.search.storage import open_study
from sweeps.search.study import Search, enqueue
from tests.sweeps.invented_sweep import METRIC, SPACE, make_config, make_report
from trainables.config import TrialConfig, TrialReport
from trainables.errors import SweepAborted

STATES = {
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
OPTUNA_WRITES = (
    "create_new_study",
    "set_study_system_attr",
    "_create_new_trial",
    "_set_trial_param",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
)


TORN = b'{"time": "2026-01-01T00:00:00+00:00", "kind": "rep'


class KillNow(BaseException):
    """The driver dies here."""


@dataclass
class Fuse:
    """Knows of each write to the log and to Optuna, and kills the driver before one of them."""

    burns_at: float = math.inf
    num_writes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    look: Callable[[int], None] | None = None
    """Called before each write with its number, from 1."""

    def before(self, kind: str) -> bool:
        """Whether the driver dies before this write."""
        self.num_writes += 1
        self.kinds[kind] += 1
        if self.look is not None:
            self.look(self.num_writes)
        return self.num_writes == self.burns_at


@pytest.fixture(scope="module", autouse=True)
def fuse() -> Iterator[Fuse]:
    """Burns in the real log and the real SQLite storage; a killed log write leaves half a line."""
    fuse = Fuse()
    patch = pytest.MonkeyPatch()
    append = EventLog.append

    def append_or_die(log: EventLog, kind: Any, **fields: object) -> None:
        if fuse.before("log"):
            with log._path.open("ab") as file:
                file.write(TORN)
            raise KillNow
        append(log, kind, **fields)

    def or_die(name: str) -> Callable[..., Any]:
        write = getattr(RDBStorage, name)

        def write_or_die(*args: Any, **kwargs: Any) -> Any:
            if fuse.before(name):
                raise KillNow
            return write(*args, **kwargs)

        return write_or_die

    def without_fsync(connection: Any, _: object) -> None:  # a kill loses no page cache
        connection.executescript("PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY")

    patch.setattr(EventLog, "append", append_or_die)
    for name in OPTUNA_WRITES:
        patch.setattr(RDBStorage, name, or_die(name))
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", without_fsync)
    yield fuse
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", without_fsync)
    patch.undo()


class Recorder:
    """A listener that keeps what it was told, and looks into the log and the study meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[tuple[object, ...]] = []
        self.behind: list[str] = []

    def trial_started(self, config: TrialConfig, number: int) -> None:
        self._tell("started", config.trial_id, number)

    def reported(self, config: TrialConfig, report: TrialReport) -> None:
        self._tell("reported", config.trial_id, report.step)

    def trial_ended(self, config: TrialConfig, status: str, reason: str) -> None:
        self._tell("ended", config.trial_id, status, reason)

    def finals_started(self, runs: Sequence[TrialRecord]) -> None:
        self.told.append(("finals", *(run.trial_id for run in runs)))

    def _tell(self, kind: str, trial_id: str, *facts: object) -> None:
        self.told.append((kind, trial_id, *facts))
        everyone = replay_all(events_of(self.folder))
        (history,) = [history for history in everyone if history.trial_id == trial_id]
        trial = study_trials(self.folder)[history.number]
        if history.final_of is not None:
            return
        if kind == "reported":
            is_known = history.reports[-1].step == facts[0] == max(trial.intermediate_values)
        elif kind == "ended":
            is_known = history.status == facts[0] and trial.state == STATES[str(history.status)]
        else:
            is_known = trial.params["learning_rate"] == history.params.learning_rate
        if not is_known:
            self.behind.append(f"{kind} {trial_id}")


def study_trials(folder: Path) -> list[FrozenTrial]:
    return optuna.load_study(
        study_name="invented", storage=f"sqlite:///{RunPaths(folder).optuna_db}"
    ).get_trials()


def open_controller(
    folder: Path, config: SweepConfig, *listeners: Any, is_resumed: bool = False
) -> TrialController:
    """What sweeps.sweep does before the first trial, over the files in folder."""
    paths = RunPaths(folder)
    log = EventLog(paths.events)
    histories = records_of(paths.folder)
    log.append("sweep_resumed" if is_resumed else "sweep_started", name=config.name)
    url = f"sqlite:///{paths.optuna_db}"
    study = open_study(url, config.name, METRIC, is_resumed=is_resumed)
    enqueue(study, plan.start_points(config), config.num_trials)
    search = Search(study, config.space, config.seed, num_startup_trials=3)
    controller = TrialController(config, paths, METRIC, search, log, listeners)
    controller.resume(histories)
    return controller


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
        due = {one: score for one, (score, step) in active.items() if step == first_step}
        is_nan = {"t0001": first_step == config.rungs[1]}
        values = {
            one: math.nan if is_nan.get(one) else score + first_step for one, score in due.items()
        }
        for report in together(first_step, values):
            disk[report.trial_id] = first_step
            if controller.report(report)[report.trial_id]:
                following = config.rungs[config.rungs.index(first_step) + 1]
                active[report.trial_id] = due[report.trial_id], following
            else:
                del active[report.trial_id]


def together(step: int, values: Mapping[str, float]) -> list[TrialReport]:
    """The reports of trials that were scored together, by trial."""
    alone = [make_report(trial_id, step, value) for trial_id, value in values.items()]
    return [
        dataclasses.replace(one, cohort=tuple(other for other in alone if other is not one))
        for one in alone
    ]


def check_log_is_ahead(folder: Path) -> None:
    """The study knows of no report and no end that the log does not hold."""
    paths = RunPaths(folder)
    if "invented" not in optuna.get_all_study_names(f"sqlite:///{paths.optuna_db}"):
        return
    histories = {h.number: h for h in records_of(paths.folder)}
    for trial in study_trials(paths.folder):
        history = histories.get(trial.number)
        logged = {r.step: r.metrics[METRIC.name] for r in history.reports} if history else {}
        assert trial.intermediate_values.items() <= logged.items()
        if trial.state.is_finished():
            assert history is not None and STATES[str(history.status)] == trial.state


def check_whole(folder: Path, config: SweepConfig) -> None:
    """Log, study and rows of a sweep that has ended agree, and every trial is there once."""
    paths = RunPaths(folder)
    events = events_of(paths.folder)
    histories = replay(events)
    numbers = list(range(config.num_trials))
    assert [h.number for h in histories] == numbers
    assert [h.trial_id for h in histories] == [f"t{n:04d}" for n in numbers]
    check_finals(events, config)
    ids = sorted(h.trial_id for h in replay_all(events))
    started = [h.trial_id for h in histories]
    assert sorted(e["trial_id"] for e in events if e["kind"] == "trial_started") == started
    assert sorted(e["trial_id"] for e in events if e["kind"] == "trial_ended") == ids
    reports = [(e["trial_id"], e["step"]) for e in events if e["kind"] == "report"]
    assert len(set(reports)) == len(reports)
    trials = study_trials(paths.folder)
    assert [t.number for t in trials] == numbers
    for history, trial in zip(histories, trials, strict=True):
        assert history.status is not None and trial.state == STATES[history.status]
        values = {r.step: r.metrics[METRIC.name] for r in history.reports}
        assert trial.intermediate_values == values
        assert trial.user_attrs.get("reason", "") == history.reason
        if history.status == "completed":
            assert trial.value == values[config.max_steps]
        params = config.space.suggest(optuna.trial.FixedTrial(trial.params))  # type: ignore[arg-type]
        assert {name: getattr(history.params, name) for name in params} == params
    points = [trial.params for trial in trials[: len(config.start_points)]]
    assert points == [dict(point) for point in config.start_points]
    assert len({trial.params["learning_rate"] for trial in trials}) == len(trials)
    assert [history.value(METRIC) for history in histories] == [
        t.intermediate_values.get(max(t.intermediate_values, default=0)) for t in trials
    ]
    decided_again = "place 2 of 3 at step 1"  # by a driver that knows the fourth trial's value
    assert histories[1].reason in ("rougeLsum is nan at step 3", decided_again)
    assert histories[2].reason == "out of memory"


def check_finals(events: Sequence[dict[str, Any]], config: SweepConfig) -> None:
    """The finals that the search calls for were held once, and all their runs have ended."""
    runs = replay_finals(events)
    if not config.finals:
        assert not runs
        return
    asked = finalists.choose_finals(config, replay(events), METRIC)
    assert asked is not None and asked == finalists.last_finals(events)
    assert [event["kind"] for event in events].count("finals_started") == 1
    assert sorted(h.trial_id for h in runs) == sorted(run.trial_id for run in asked.runs)
    assert "t0003" in asked.finalists and len(runs) >= 2
    for history in runs:
        assert history.status == "completed"
        assert [report.step for report in history.reports] == list(config.rungs)


def run_lives(folder: Path, config: SweepConfig, fuse: Fuse, kills: list[int]) -> None:
    """Runs a sweep whose drivers are killed before the given writes, until one reaches the end."""
    disk: dict[str, int] = {}
    for life, burns_at in enumerate([*kills, math.inf]):
        fuse.burns_at, fuse.num_writes = burns_at, 0
        try:
            train_all(open_controller(folder, config, is_resumed=life > 0), config, disk)
            return
        except KillNow:
            continue
        finally:
            fuse.burns_at = math.inf


CONFIG = make_config(num_trials=4)
WITH_FINALS = make_config(num_trials=4, finals=True, num_finalists=2, num_final_seeds=2)


@pytest.mark.slow
def test_kill_before_any_write_loses_and_repeats_nothing(tmp_path: Path, fuse: Fuse) -> None:
    left: list[tuple[Path, dict[str, int]]] = []
    disk: dict[str, int] = {}
    whole = tmp_path / "whole"

    def keep_what_a_kill_would_leave(number: int) -> None:
        left.append((tmp_path / f"before-{number}", dict(disk)))
        shutil.copytree(whole, left[-1][0])
        with RunPaths(left[-1][0]).events.open("ab") as log:
            log.write(TORN)

    fuse.num_writes, fuse.look = 0, keep_what_a_kill_would_leave
    train_all(open_controller(whole, WITH_FINALS), WITH_FINALS, disk)
    fuse.look = None
    check_whole(whole, WITH_FINALS)
    statuses = [h.status for h in records_of(whole)]
    assert statuses == ["stopped", "failed", "failed", "completed"]
    assert len(left) > 50 and fuse.kinds["log"] > 10 and fuse.kinds["_set_trial_param"] == 20
    for folder, disk in left:
        check_log_is_ahead(folder)
        train_all(open_controller(folder, WITH_FINALS, is_resumed=True), WITH_FINALS, disk)
        check_whole(folder, WITH_FINALS)


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kills=st.lists(st.integers(3, 70), min_size=2, max_size=4))
def test_kills_of_one_driver_after_another_lose_and_repeat_nothing(
    tmp_path_factory: pytest.TempPathFactory, fuse: Fuse, kills: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("kills")
    run_lives(folder, WITH_FINALS, fuse, kills)
    check_whole(folder, WITH_FINALS)


def test_log_then_study_then_listeners_and_each_thing_once(tmp_path: Path) -> None:
    first, second = Recorder(tmp_path), Recorder(tmp_path)
    controller = open_controller(tmp_path, CONFIG, first, second)
    begun = train_all(controller, CONFIG, {})
    assert first.behind == [] and first.told == second.told
    assert begun == ["t0000", "t0001", "t0002", "t0003"]
    assert [told[1:] for told in first.told if told[0] == "started"] == [
        (trial_id, number) for number, trial_id in enumerate(begun)
    ]
    reported = [told for told in first.told if told[0] == "reported"]
    assert len(reported) == len(set(reported)) > 4
    assert sorted(told[1] for told in first.told if told[0] == "ended") == begun  # type: ignore[type-var]
    assert controller.next_trial() is None and controller.num_left == 0


def test_resent_report_finds_its_decision_made_and_is_told_to_nobody(tmp_path: Path) -> None:
    listener = Recorder(tmp_path)
    controller = open_controller(tmp_path, CONFIG, listener)
    first, second = controller.next_trial(), controller.next_trial()
    assert first is not None and second is not None
    assert should_continue(controller, make_report("t0000", 1, 5.0))
    assert should_continue(controller, make_report("t0001", 1, 6.0))
    events, told = events_of(tmp_path), list(listener.told)
    assert should_continue(controller, make_report("t0000", 1, 5.0))
    assert events_of(tmp_path) == events and listener.told == told
    again = open_controller(tmp_path, CONFIG, listener, is_resumed=True)
    assert listener.told[-1] == ("ended", "t0000", "stopped", "place 2 of 2 at step 1")
    assert not should_continue(again, make_report("t0000", 1, 5.0))
    trial = study_trials(tmp_path)[0]
    assert (trial.state, trial.value) == (TrialState.PRUNED, 5.0)


VALUES = st.one_of(st.integers(0, 4).map(float), st.just(math.nan))


@settings(max_examples=60, deadline=None)
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
    arriving = data.draw(st.permutations(together(step, cohort)))
    arriving = arriving[: data.draw(st.integers(1, len(arriving)))]
    with tempfile.TemporaryDirectory() as folder:
        controller, log = controller_in_memory(Path(folder), config)
        found = controller.report(arriving[0])
        written = log.read_bytes()
        for report in arriving[1:]:
            found |= controller.report(report)
        assert log.read_bytes() == written
        histories = replay(read_events(log))
    assert found == {trial_id: expected.get(trial_id, False) for trial_id in cohort}
    ended = {h.trial_id: h.status for h in histories if h.status}
    assert ended == {
        trial_id: "stopped" if trial_id in finite else "failed"
        for trial_id, keeps in found.items()
        if not keeps
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
    last = together(1, {"t0003": 5.0, "t0001": 7.0, "t0000": math.nan, "t0002": 6.0})[-1]
    assert controller.report(last) == {
        "t0000": False,
        "t0001": True,
        "t0002": False,
        "t0003": False,
    }
    events = events_of(tmp_path)
    told = [
        (event["kind"], event["trial_id"], event.get("cohort"))
        for event in events
        if event["kind"] in ("report", "trial_ended")
    ]
    assert told == [
        ("report", "t0001", ["t0000", "t0002", "t0003"]),
        ("report", "t0002", ["t0000", "t0001", "t0003"]),
        ("report", "t0003", ["t0000", "t0001", "t0002"]),
        ("trial_ended", "t0000", None),
        ("trial_ended", "t0002", None),
        ("trial_ended", "t0003", None),
    ]
    assert listener.behind == []
    assert listener.told[-1] == ("ended", "t0003", "stopped", "place 3 of 3 at step 1")
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
    first = together(1, {"t0000": 5.0, "t0001": 4.0})[0]
    assert controller.report(first) == {"t0000": True, "t0001": False}
    again = together(1, {"t0000": 1.0, "t0001": 9.0, "t0002": 6.0, "t0003": 9.0})
    assert controller.report(again[1]) == {"t0001": False, "t0002": True}
    assert [should_continue(controller, report) for report in again] == [True, False, True, False]
    histories = records_of(tmp_path)
    assert [[r.metrics[METRIC.name] for r in h.reports] for h in histories] == [[5], [4], [6], []]


def test_trial_that_waits_to_run_again_does_not_once_its_cohort_is_decided(tmp_path: Path) -> None:
    controller = open_with_trials(tmp_path, 2)
    controller.put_back("t0000")
    controller.report(together(1, {"t0000": 1.0, "t0001": 2.0})[1])
    following = controller.next_trial()
    assert following is not None and following.trial_id == "t0002"


@pytest.mark.parametrize("reverse", [False, True])
def test_trials_that_a_dead_driver_left_undecided_are_decided_together(
    tmp_path: Path, reverse: bool
) -> None:
    """The driver died once the cohort's reports were in the log, before any decision was."""
    open_with_trials(tmp_path, 4)
    log = EventLog(tmp_path / "events.jsonl")
    reports = together(1, {"t0000": 1.0, "t0001": 4.0, "t0002": 2.0, "t0003": 3.0})
    for report in reports[:: -1 if reverse else 1]:
        log.append("report", **report_fields(report))
    listener = Recorder(tmp_path)
    again = open_controller(tmp_path, CONFIG, listener, is_resumed=True)
    histories = records_of(tmp_path)
    assert [h.status for h in histories] == ["stopped", None, "stopped", "stopped"]
    kinds = [told[:2] for told in listener.told]
    assert kinds.index(("started", "t0000")) < kinds.index(("ended", "t0000"))
    following = again.next_trial()
    assert following is not None and following.trial_id == "t0001" and again.num_left == 1


def test_trial_that_a_dead_driver_left_at_its_last_step_completes_without_a_process(
    tmp_path: Path,
) -> None:
    one = make_config(num_trials=1)
    controller = open_controller(tmp_path, one)
    controller.next_trial()
    log = EventLog(tmp_path / "events.jsonl")
    for step in one.rungs:
        log.append("report", **report_fields(make_report("t0000", step, 5.0)))
    again = open_controller(tmp_path, one, is_resumed=True)
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
    found = controller.report(dataclasses.replace(report, cohort=cohort))
    assert found == {"t0000": False} | {one.trial_id: True for one in cohort}
    history = records_of(tmp_path)[0]
    assert (history.status, history.reason, history.reports) == ("failed", reason, [])
    assert study_trials(tmp_path)[0].state == TrialState.FAIL


def test_trial_that_is_put_back_runs_again_and_is_told_once(tmp_path: Path) -> None:
    listener = Recorder(tmp_path)
    controller = open_controller(tmp_path, CONFIG, listener)
    first, second = controller.next_trial(), controller.next_trial()
    assert first is not None and second is not None
    controller.put_back(first.trial_id)
    assert controller.next_trial() == first
    assert [told[1] for told in listener.told] == ["t0000", "t0001"]
    controller.end(second.trial_id, "failed", "its process died")
    controller.put_back(second.trial_id)
    third = controller.next_trial()
    assert third is not None and third.trial_id == "t0002"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_score_fails_the_trial_with_its_reason(tmp_path: Path, value: float) -> None:
    controller = open_with_trials(tmp_path, 1)
    assert should_continue(controller, make_report("t0000", 1, 5.0))
    assert not should_continue(controller, make_report("t0000", 3, value))
    (history,) = records_of(tmp_path)
    assert (history.status, history.reason) == ("failed", f"rougeLsum is {value} at step 3")
    trial = study_trials(tmp_path)[0]
    assert trial.state == TrialState.FAIL and trial.intermediate_values == {1: 5.0}
    assert trial.user_attrs["reason"] == history.reason


def test_first_end_counts_and_nothing_follows_it(tmp_path: Path) -> None:
    listener = Recorder(tmp_path)
    controller = open_with_trials(tmp_path, 1, listener)
    controller.end("t0000", "failed", "node lost")
    events, told = events_of(tmp_path), list(listener.told)
    controller.end("t0000", "completed", "")
    assert not should_continue(controller, make_report("t0000", 1, 5.0))
    assert events_of(tmp_path) == events and listener.told == told
    assert study_trials(tmp_path)[0].state == TrialState.FAIL
    assert controller.num_left == CONFIG.num_trials - 1


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
    assert listener.told[-1] == ("ended", "t0002", "stopped", "place 2 of 2 at step 1")


def test_resume_may_ask_for_more_or_fewer_trials(tmp_path: Path) -> None:
    two = make_config(num_trials=2)
    train_all(open_controller(tmp_path, two), two, {})
    more = open_controller(tmp_path, CONFIG, is_resumed=True)
    assert more.num_left == 2 and train_all(more, CONFIG, {}) == ["t0002", "t0003"]
    check_whole(tmp_path, CONFIG)
    fewer = open_controller(tmp_path, two, is_resumed=True)
    assert fewer.num_left == 0 and fewer.next_trial() is None


def test_resume_with_another_study_is_refused_before_a_number_is_used_twice(tmp_path: Path) -> None:
    two = make_config(num_trials=2)
    train_all(open_controller(tmp_path, two), two, {})
    RunPaths(tmp_path).optuna_db.unlink()
    with pytest.raises(
        SweepAborted, match="has 0 trials, but the event log knows trial number 0"
    ) as caught:
        open_controller(tmp_path, make_config(start_points=()), is_resumed=True)
    assert "study storage" in caught.value.fix


def test_held_trials_start_in_their_order_when_they_are_released(tmp_path: Path) -> None:
    paths, listener = RunPaths(tmp_path), Recorder(tmp_path)
    controller = open_controller(tmp_path, CONFIG, listener)
    controller.hold_starts()
    handed = [controller.next_trial(), controller.next_trial()]
    assert [trial.trial_id for trial in handed if trial] == ["t0000", "t0001"]
    assert [event["kind"] for event in events_of(paths.folder)] == ["sweep_started"]
    assert not listener.told
    controller.release_starts()
    assert listener.told == [("started", "t0000", 0), ("started", "t0001", 1)]
    assert [history.trial_id for history in records_of(paths.folder)] == ["t0000", "t0001"]
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
