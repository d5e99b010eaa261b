"""The Ray Tuner: resources, concurrency, failure policy, and Tune's words turned into ours."""

import logging
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from ray.tune.result import DONE
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweeps.control.budget_stop import BudgetStop
from sweeps.control.controller import TrialController
from sweeps.control.gpu_places import IN_USE, UNITS, Waits, find_short
from sweeps.control.interruption import handle_signals_as_ctrl_c
from sweeps.control.pack_pool import PackPool
from sweeps.control.quiet_tune import NoReporter, SilentProgress, silence_tune
from sweeps.control.startup_gate import StartupGate
from sweeps.control.steering import Steering
from sweeps.cost.allocation import Allocation
from sweeps.cost.eta import Eta
from trainables import trial as trainable
from trainables.errors import REPEAT, SweepAborted

logger = logging.getLogger(__name__)


def run_trials(
    controller: TrialController,
    allocation: Allocation,
    pool: PackPool,
    gate: StartupGate,
    eta: Eta,
    steering: Steering,
    *,
    folder: Path,
    max_failures: int,
) -> None:
    """Runs trials until the controller has no next one.

    Args:
        pool: the sweep's packs; none where trials train alone.
        gate: looks after the packs while they load.
        eta: knows when the search must end.
        steering: takes up what users ask.
        folder: the run's, for Tune's own files.
        max_failures: processes that a trial may lose.

    Raises:
        KeyboardInterrupt: Ctrl-C, or SIGUSR1, which Tune takes for it.
        SweepAborted: the event log cannot be written, or Tune ended early by itself.
    """
    budget_stop = BudgetStop(controller, eta)
    budget_stop.enforce()
    if controller.num_left == 0:
        return
    silence_tune()
    run_one_trial = partial(
        trainable.run_trial, is_packed=allocation.num_packs > 0, max_failures=max_failures
    )
    searcher = _ControllerSearcher(controller, allocation, pool)
    scheduler = _ControllerScheduler(controller, pool, budget_stop, gate)
    max_concurrency = allocation.max_concurrency
    callback = _ControllerCallback(
        controller,
        max_failures,
        max_concurrency,
        budget_stop,
        gate,
        steering,
        pool,
        allocation.trial_resources,
    )
    tuner = tune.Tuner(
        tune.with_resources(run_one_trial, allocation.trial_resources),
        tune_config=_make_tune_config(searcher, scheduler, max_concurrency),
        run_config=RunConfig(
            name="tune",
            storage_path=str(folder),
            # Tune gives up a trial at its first failure; _ControllerCallback counts and retries.
            failure_config=FailureConfig(max_failures=0),
            callbacks=[callback, SilentProgress()],
            progress_reporter=NoReporter(),
            verbose=0,
        ),
    )
    handler = signal.getsignal(signal.SIGINT)
    try:
        tuner.fit()
    except TuneError as wrapped:  # Tune wraps what its searcher, scheduler or callbacks raise
        raise _find_abort(wrapped) or wrapped from None
    finally:
        interrupted = was_interrupted(handler)
        handle_signals_as_ctrl_c()  # Tune has set a handler of its own
    raise_if_incomplete(controller.num_left, was_interrupted=interrupted)


def was_interrupted(handler: Any) -> bool:
    """Whether Ctrl-C was pressed; the handler from before Tune is then in its place again.

    Tune's handler of Ctrl-C, once called, restores the one before it, so that a second Ctrl-C ends
    all. It never does otherwise, not even once Tune has ended; here it does.
    """
    if signal.getsignal(signal.SIGINT) is handler:
        return True
    signal.signal(signal.SIGINT, handler)
    return False


def raise_if_incomplete(num_left: int, *, was_interrupted: bool) -> None:
    """Tells an end by Ctrl-C from one that nobody wanted (SweepAborted), if trials are left."""
    if num_left and was_interrupted:
        raise KeyboardInterrupt
    if num_left:
        raise SweepAborted(
            f"Ray Tune ended by itself with {num_left} trials left to run",
            f"see Ray's logs for the reason, {REPEAT}",
        )


def _make_tune_config(
    searcher: Searcher, scheduler: FIFOScheduler, max_concurrency: int
) -> TuneConfig:
    return TuneConfig(
        search_alg=searcher,
        scheduler=scheduler,
        num_samples=-1,  # until the controller has no trial left
        # Without it Tune waits for each trial's process before it asks for the next trial.
        max_concurrent_trials=max_concurrency,
        reuse_actors=True,
        trial_name_creator=_get_trial_id,
        trial_dirname_creator=_get_trial_id,
    )


class _ControllerSearcher(Searcher):  # type: ignore[misc]
    """Hands the controller's next trial to Tune, as long as fewer than may be at once have one.

    That is a number for the search and another for the finals, and no more than the packs have
    slots at the moment: packs come and go with the GPUs of a cluster. But one trial always may,
    because Tune does nothing else while it waits for its only trial. Tune's own limit is the
    largest that may ever be.
    """

    def __init__(self, controller: TrialController, allocation: Allocation, pool: PackPool) -> None:
        super().__init__(metric=controller.metric.name, mode=controller.metric.mode)
        self._controller = controller
        self._allocation = allocation
        self._pool = pool
        self._live: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._controller.num_left == 0:
            return str(Searcher.FINISHED)
        in_finals, allocation = self._controller.is_in_finals, self._allocation
        num_slots = self._pool.num_slots if allocation.capacities else allocation.num_slots
        most = allocation.most_runs if in_finals else allocation.most_trials
        if len(self._live) >= max(1, min(num_slots, most)):
            return None
        trial = self._controller.next_trial()
        if trial is None:  # a trial that runs may still have to be started again
            return None
        self._live.add(trial_id)
        return {trainable.TRIAL: trial}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._live.discard(trial_id)  # the scheduler and the callback tell the controller why

    def save(self, checkpoint_path: str) -> None:
        pass  # the event log and the study hold everything

    def restore(self, checkpoint_path: str) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher; a restored one would be a second controller


@dataclass(eq=False)
class _ControllerScheduler(FIFOScheduler):  # type: ignore[misc]
    """Has the controller decide each report, and tells the packs.

    The first report of a cohort decides about all of it, and the packs go on at once. The other
    trials of Tune learn it from their own reports, which are on their way: none is waited for, so
    none can hold up the others, whatever becomes of its process.
    """

    controller: TrialController
    pool: PackPool
    budget_stop: BudgetStop
    gate: StartupGate

    def __post_init__(self) -> None:
        super().__init__()

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        self.gate.open()
        if trainable.ABORTED in result:
            raise SweepAborted(*result[trainable.ABORTED])
        report = result.get(trainable.REPORT)
        if report is None or result[DONE]:
            reason = result.get(trainable.FAILED, "its process ended before its last step")
            self.controller.end(_get_trial_id(trial), "failed", reason)
            return str(TrialScheduler.STOP)
        tell_packs = partial(self.pool.decide, report.step, pack_id=report.pack or None)
        decided = self.controller.report(report, tell_packs)
        should_continue = self.budget_stop.restrict(decided)
        if should_continue != decided:
            tell_packs(should_continue)
        goes_on = should_continue[report.trial_id]
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Tune starts what waits in its own order; FIFOScheduler looks at every trial each time."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


@dataclass(eq=False)
class _ControllerCallback(Callback):  # type: ignore[misc]
    """Has a trial that lost its process run again, until it has lost too many.

    This is the only count of lost processes: each process in which the trial had started counts
    once, and one that was dead before the trial could start in it does not count. Tune keeps the
    processes of ended trials for others, and may hand several dead ones to a trial in a row; a
    trial that gets more of them than there can be fails, because then no process can start.
    """

    controller: TrialController
    max_failures: int
    """Processes that a trial may lose."""
    max_dead_starts: int
    """Processes in a row that it may be handed dead."""
    budget_stop: BudgetStop
    gate: StartupGate
    steering: Steering
    pool: PackPool
    needs: Mapping[str, float]
    """What Ray reserves for a trial's process."""
    waits: Waits = field(default_factory=Waits)
    ctrl_c: Any = None
    """Tune's handler of Ctrl-C, until it is pressed."""
    has_started: set[str] = field(default_factory=set)
    num_lost: Counter[str] = field(default_factory=Counter)
    num_dead_starts: Counter[str] = field(default_factory=Counter)

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        self.ctrl_c = self.ctrl_c or signal.getsignal(signal.SIGINT)
        self.gate.poll()
        if self.budget_stop.is_due:
            self.budget_stop.enforce()
        if self.gate.is_open and self.steering.is_due:  # a request has the held trials start
            self.steering.poll()
            self._tell_packs(trials)
        num_waiting = sum(trial.status == Trial.PENDING for trial in trials)
        if self.waits.is_to_be_told(num_waiting, time.monotonic()):
            num_short, kind = find_short(num_waiting, self.needs)
            if num_short > 0:
                trials_short = f"{num_short} trial{'s' * (num_short > 1)}"
                logger.warning("waiting for a %s for %s: %s", UNITS[kind], trials_short, IN_USE)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        if signal.getsignal(signal.SIGINT) is not self.ctrl_c:  # before Tune ends the processes
            self.pool.save_and_end("the sweep was interrupted")

    def _tell_packs(self, trials: Sequence[Trial]) -> None:
        """Has packs free the slots of trials that ended between two reports; of one that had no
        place in a pack yet they are told again. Trials without a pack end at their next report."""
        running = {_get_trial_id(trial) for trial in trials if trial.status == Trial.RUNNING}
        ended = running & self.controller.ended_between_reports
        if ended:
            self.pool.decide(0, dict.fromkeys(ended, False))

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self.has_started.add(_get_trial_id(trial))
        self.num_dead_starts[_get_trial_id(trial)] = 0

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        if trainable.REPORT in result:  # Tune keeps each trial's last result, and saves them all
            result[trainable.REPORT] = replace(result[trainable.REPORT], cohort=())

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Counts a lost process; the trial goes on from its last report in another, or fails."""
        trial_id = _get_trial_id(trial)
        if trial_id in self.has_started:
            self.has_started.remove(trial_id)
            self.num_lost[trial_id] += 1
        else:
            self.num_dead_starts[trial_id] += 1
        has_lost_many = self.num_lost[trial_id] > self.max_failures
        if has_lost_many or self.num_dead_starts[trial_id] > self.max_dead_starts:
            self.controller.end(trial_id, "failed", _read_reason(trial))
        else:
            self.controller.put_back(trial_id)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _read_reason(trial: Trial) -> str:
    """One line that says why a trial's process failed, more often than it may.

    Tune keeps a text a failure: a worker's traceback, whose last line names the error, or what
    became of the process, which the first line says.
    """
    text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    _, _, last = text.rpartition("Failure # ")
    lines = [line for line in last.splitlines()[1:] if line.strip()] or ["its process failed"]
    has_traceback = any("Traceback" in line or "ray::" in line for line in lines)
    return lines[-1 if has_traceback else 0].strip()[:500]


def _find_abort(error: BaseException | None) -> SweepAborted | None:
    """The SweepAborted that an error was raised from."""
    while error is not None and not isinstance(error, SweepAborted):
        error = error.__cause__ or error.__context__
    return error


def _get_trial_id(trial: Trial) -> str:
    return str(trial.config[trainable.TRIAL].trial_id)
