"""What Tune is told about a result, and what its end means. No Ray runs here."""

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import ray
from ray.tune.execution.tune_controller import _get_max_pending_trials
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import ConcurrencyLimiter, SearchGenerator
from ray.tune.tune import _setup_signal_catching

from sweeps.control import gpu_places, ray_tuner
from sweeps.control.budget_stop import BudgetStop
from sweeps.control.controller import TrialController
from sweeps.control.ray_tuner import (
    _ControllerCallback,
    _ControllerScheduler,
    _ControllerSearcher,
    _make_tune_config,
)
from sweeps.control.startup_gate import StartupGate
from sweeps.control.steering import Steering
from sweeps.cost.allocation import Allocation
from sweeps.cost.eta import Eta
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.request_file import Request, RequestReader, append_request
from sweeps.records.trial_record import TrialRecord, replay
from sweeps.search.study import Search
from tests.sweeps.control.pack_stubs import make_pool
from tests.sweeps.invented_sweep import METRIC, SPACE, make_cohort, make_config, make_report
from tests.sweeps.small_costs import make_capacity, make_model
from trainables import trial as trainable
from trainables.errors import SweepAborted

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE
Calls = list[tuple[int, dict[str, bool]]]


class Sweep:
    """Three trials, Tune's scheduler over them, and a pack that notes what it is told."""

    def __init__(self, folder: Path) -> None:
        config = make_config(num_trials=3, start_points=())
        self.paths = RunPaths(folder)
        search = Search(optuna.create_study(), SPACE, 0, num_startup_trials=9)
        log = EventLog(self.paths.events)
        self.controller = TrialController(config, self.paths, METRIC, search, log)
        self.steering = Steering(
            self.controller, self.paths, log, [], RequestReader(self.paths, [])
        )
        while self.controller.next_trial() is not None:
            pass
        self.calls: Calls = []
        self.events_when_called: list[int] = []
        self.pool: Any = make_pool([], folder)
        self.pool.decide = self._note
        self.gate = StartupGate(self.controller, self.pool, lambda throughput: None)
        self.budget_stop = BudgetStop(self.controller, Eta(make_model()))
        self.scheduler = _ControllerScheduler(
            self.controller, self.pool, self.budget_stop, self.gate
        )

    def make_callback(self) -> _ControllerCallback:
        """Tune's callback, for trials that may lose two processes."""
        gate, pool = self.gate, self.pool
        return _ControllerCallback(
            self.controller, 2, 3, self.budget_stop, gate, self.steering, pool, {"CPU": 1.0}
        )

    def _note(
        self, step: int, should_continue: dict[str, bool], pack_id: str | None = None
    ) -> None:
        self.calls.append((step, should_continue))
        self.events_when_called.append(len(read_events(self.paths.events)))

    def result(self, trial_id: str, **result: Any) -> str:
        """Tune's decision on a result."""
        trial = as_tune_has_it(trial_id)
        return self.scheduler.on_trial_result(None, trial, {"done": False, **result})

    @property
    def records(self) -> list[TrialRecord]:
        return replay(read_events(self.paths.events))


def as_tune_has_it(trial_id: str, status: str = "") -> Any:
    """What of Tune's trial is looked at."""
    config = SimpleNamespace(trial_id=trial_id)
    return SimpleNamespace(config={trainable.TRIAL: config}, error_file=None, status=status)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def test_packs_hear_of_a_whole_cohort_from_its_first_report_alone(sweep: Sweep) -> None:
    reports = make_cohort(1, {"t0000": 1.0, "t0001": 3.0, "t0002": 2.0})
    decisions = {r.trial_id: sweep.result(r.trial_id, **{trainable.REPORT: r}) for r in reports}
    assert decisions == {"t0000": STOP, "t0001": CONTINUE, "t0002": STOP}
    assert sweep.calls[0] == (1, {"t0000": False, "t0001": True, "t0002": False})
    assert sweep.events_when_called[0] == len(read_events(sweep.paths.events))
    assert not sweep.calls[1:]


def test_report_without_the_metric_stops_its_trial_as_failed(sweep: Sweep) -> None:
    report = dataclasses.replace(make_report("t0000", 1, 1.0), metrics={})
    assert sweep.result("t0000", **{trainable.REPORT: report}) == STOP
    assert sweep.records[0].status == "failed"
    assert sweep.calls == [(1, {"t0000": False})]


@pytest.mark.parametrize("has_reported", [False, True])
def test_process_that_ends_before_its_trial_does_fails_it(sweep: Sweep, has_reported: bool) -> None:
    """Tune then gives the last result again, as done; a result of nothing if there was none."""
    last: dict[str, Any] = {}
    if has_reported:
        last = {trainable.REPORT: make_report("t0000", 1, 1.0)}
        assert sweep.result("t0000", **last) == CONTINUE
    assert sweep.result("t0000", **last | {"done": True}) == STOP
    assert sweep.records[0].status == "failed"
    assert sweep.records[0].reason == "its process ended before its last step"


def test_process_that_ends_after_its_trial_changes_nothing(sweep: Sweep) -> None:
    for step in (1, 3, 9):
        sweep.result("t0000", **{trainable.REPORT: make_report("t0000", step, 1.0)})
    assert sweep.result("t0000", done=True) == STOP
    assert sweep.records[0].status == "completed"


def test_tune_keeps_a_report_without_its_cohort(sweep: Sweep) -> None:
    report = make_cohort(1, {"t0000": 1.0, "t0001": 3.0})[0]
    result: dict[str, Any] = {trainable.REPORT: report, "step": 1}
    callback = sweep.make_callback()
    callback.on_trial_result(0, [], SimpleNamespace(), result)
    assert result == {trainable.REPORT: dataclasses.replace(report, cohort=()), "step": 1}


@pytest.mark.parametrize(("num_starts", "num_put_back"), [(1, 2), (0, 3)])
def test_a_process_that_was_dead_when_a_trial_got_it_is_no_loss_of_the_trial(
    sweep: Sweep, num_starts: int, num_put_back: int
) -> None:
    """A trial that never starts has been handed all that can have died, and fails in the end."""
    callback = sweep.make_callback()
    trial = as_tune_has_it("t0000")
    for attempt in range(num_put_back + 1):
        for _ in range(num_starts):
            callback.on_trial_start(0, [], trial)
        callback.on_trial_error(0, [], trial)
        again = sweep.controller.next_trial()
        assert (again is not None and again.trial_id == "t0000") == (attempt < num_put_back)
    assert sweep.records[0].status == "failed"


def test_trial_that_is_stopped_by_hand_frees_its_slot_at_once(sweep: Sweep) -> None:
    callback = sweep.make_callback()
    trials = [as_tune_has_it(f"t000{n}", Trial.RUNNING) for n in range(3)]
    append_request(sweep.paths, Request(stop=("t0001",)))
    callback.on_step_begin(0, trials)
    assert sweep.calls == [(0, {"t0001": False})]
    assert (sweep.records[1].status, sweep.records[1].reason) == ("stopped", "stopped by hand")
    report = make_report("t0001", 1, 9.0)  # it was under way
    assert sweep.result("t0001", **{trainable.REPORT: report}) == STOP
    assert not sweep.records[1].reports


def test_requests_wait_until_the_packs_are_there(sweep: Sweep) -> None:
    callback = sweep.make_callback()
    callback.gate = SimpleNamespace(poll=lambda: None, is_open=False)  # type: ignore[assignment]
    append_request(sweep.paths, Request(num_trials=9))
    callback.on_step_begin(0, [])
    assert sweep.controller.config.num_trials == 3
    callback.gate = sweep.gate
    callback.on_step_begin(0, [])
    assert sweep.controller.config.num_trials == 9


def test_trials_that_others_leave_no_core_are_told(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = {"CPU": 1.5}
    monkeypatch.setattr(ray, "available_resources", lambda: free)
    monkeypatch.setattr(gpu_places, "FIRST_WAIT_S", 0.0)
    callback = sweep.make_callback()
    callback.on_step_begin(0, [as_tune_has_it("t0000", Trial.PENDING)])
    assert not caplog.messages  # its process is only starting
    states = (Trial.PENDING, Trial.PENDING, Trial.RUNNING, Trial.PENDING)
    callback.on_step_begin(0, [as_tune_has_it(f"t000{n}", one) for n, one in enumerate(states)])
    (told,) = caplog.messages
    assert told.startswith("waiting for a CPU core for 2 trials: in use by other jobs")


def test_search_and_finals_have_as_many_trials_at_once_as_each_may(tmp_path: Path) -> None:
    """A trial that has ended is at work until Tune knows it too."""
    config = make_config(
        num_trials=3, start_points=(), finals=True, num_finalists=2, num_final_seeds=3
    )
    paths = RunPaths(tmp_path)
    search = Search(optuna.create_study(), SPACE, 0, num_startup_trials=9)
    controller = TrialController(config, paths, METRIC, search, EventLog(paths.events))
    allocation = Allocation(
        num_slots=5, most_trials=2, most_runs=5, num_cpus=9, num_gpus=1, slots_per_gpu=5
    )
    searcher = _ControllerSearcher(controller, allocation, make_pool([], tmp_path))
    asked = (f"asked{n}" for n in range(99))

    def begun() -> dict[str, str]:
        """Ours of the trials that Tune is given when it asks until nothing comes, by Tune's."""
        names = {}
        while isinstance(config := searcher.suggest(name := next(asked)), dict):
            names[name] = config[trainable.TRIAL].trial_id
        assert config is None
        return names

    first, second = begun().items()
    assert (first[1], second[1]) == ("t0000", "t0001")
    controller.report(make_report("t0000", 9, 1.0))
    assert begun() == {}
    searcher.on_trial_complete(first[0])
    (third,) = begun().items()
    controller.report(make_report("t0001", 9, 2.0))
    controller.report(make_report("t0002", 9, 3.0))
    assert len(begun()) == 3  # of 6; two of the search have not left Tune yet
    searcher.on_trial_complete(second[0])
    searcher.on_trial_complete(third[0])
    runs = begun()
    assert len(runs) == 2
    controller.put_back("f0001s2")
    for name in runs:
        searcher.on_trial_complete(name, error=True)
    assert list(begun().values()) == ["f0001s3", "f0001s2"]


def test_as_many_trials_run_as_the_packs_of_the_moment_hold(tmp_path: Path) -> None:
    """A late pack gets trials; after a loss no new ones come until so many have ended."""
    paths = RunPaths(tmp_path)
    search = Search(optuna.create_study(), SPACE, 0, num_startup_trials=9)
    config = make_config(num_trials=20, start_points=())
    controller = TrialController(config, paths, METRIC, search, EventLog(paths.events))
    allocation = Allocation(
        **{"num_slots": 2, "most_trials": 7, "most_runs": 5, "num_cpus": 9, "num_gpus": 1},
        **{"slots_per_gpu": 2, "capacities": (make_capacity(0.0),), "most_packs": 7},
    )
    assert allocation.max_concurrency == 7
    pool = SimpleNamespace(num_slots=0)
    searcher = _ControllerSearcher(controller, allocation, pool)  # type: ignore[arg-type]
    asked = (f"asked{n}" for n in range(99))
    live: list[str] = []

    def fill(num_slots: int) -> int:
        pool.num_slots = num_slots
        while isinstance(searcher.suggest(name := next(asked)), dict):
            live.append(name)
        return len(live)

    assert fill(0) == 1  # while Tune waits for a first trial it polls nobody
    assert [fill(2), fill(6), fill(9), fill(2)] == [2, 6, 7, 7]
    for _ in range(6):
        searcher.on_trial_complete(live.pop())
    assert fill(2) == 2


@pytest.mark.parametrize(("concurrency", "final_concurrency"), [(22, 13), (6, 13)])
def test_as_many_processes_start_side_by_side_as_trials_may_run(
    sweep: Sweep, concurrency: int, final_concurrency: int
) -> None:
    """Tune itself says how many it will start before the first is up."""
    allocation = Allocation(
        num_slots=22,
        most_trials=concurrency,
        most_runs=final_concurrency,
        num_cpus=9,
        num_gpus=1,
        slots_per_gpu=22,
    )
    config = _make_tune_config(
        _ControllerSearcher(sweep.controller, allocation, sweep.pool),
        sweep.scheduler,
        allocation.max_concurrency,
    )
    limited = ConcurrencyLimiter(
        config.search_alg, config.max_concurrent_trials
    )  # as tune.run does
    most = max(concurrency, final_concurrency)
    assert _get_max_pending_trials(SearchGenerator(limited)) == most


@pytest.fixture
def handler() -> Iterator[Any]:
    """Our handler of Ctrl-C, and after the test whatever there was before."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGUSR1, before[1])


@pytest.mark.parametrize("signals", [[], [signal.SIGINT], [signal.SIGUSR1]])
def test_interrupt_is_told_from_an_end_that_nobody_wanted(
    handler: Any, signals: list[signal.Signals]
) -> None:
    event = _setup_signal_catching()  # what Tune does before its first trial
    for number in signals:
        os.kill(os.getpid(), number)
    assert event.is_set() == bool(signals)
    assert ray_tuner.was_interrupted(handler) == bool(signals)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)  # ours again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_interrupt_has_packs_saved_before_tune_ends_the_processes_of_their_trials(
    handler: Any, sweep: Sweep, number: signal.Signals
) -> None:
    saved: list[str] = []
    sweep.pool.save_and_end = saved.append
    _setup_signal_catching()
    callback = sweep.make_callback()
    for _ in range(2):
        callback.on_step_begin(1, [])
        callback.on_step_end(1, [])
    assert not saved
    os.kill(os.getpid(), number)
    callback.on_step_end(1, [])
    assert saved == ["the sweep was interrupted"]


def test_early_end_is_an_interrupt_only_if_there_was_one() -> None:
    ray_tuner.raise_if_incomplete(0, was_interrupted=False)
    ray_tuner.raise_if_incomplete(0, was_interrupted=True)
    with pytest.raises(KeyboardInterrupt):
        ray_tuner.raise_if_incomplete(2, was_interrupted=True)
    with pytest.raises(SweepAborted, match="2 trials left") as caught:
        ray_tuner.raise_if_incomplete(2, was_interrupted=False)
    assert caught.value.is_resumable
