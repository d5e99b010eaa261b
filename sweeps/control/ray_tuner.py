"""The Ray Tuner: resources, concurrency, failure policy, and Tune's words turned into ours."""

import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.actor import ActorHandle
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from ray.tune.result import DONE
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweeps.config import SweepConfig
from sweeps.control import pack_pool
from sweeps.control.budget_stop import Limit
from sweeps.control.controller import TrialController
from sweeps.control.startup_gate import StartupGate
from sweeps.cost.allocation import Allocation
from sweeps.records.paths import RunPaths
from trainables import trial as trainable
from trainables.config import Metric
from trainables.errors import SweepAborted


def run_trials(
    config: SweepConfig,
    paths: RunPaths,
    metric: Metric,
    book: TrialController,
    allocation: Allocation,
    actors: Sequence[ActorHandle],
    gate: StartupGate,
) -> None:
    """Runs trials until the book has no next one.

    Args:
        actors: the sweep's packs; none where trials train alone.
        gate: looks after the packs while they load; knows when the search must end.

    Raises:
        KeyboardInterrupt: Ctrl-C, or SIGUSR1, which Tune takes for it.
        SweepAborted: the event log cannot be written, or Tune ended early by itself.
    """
    limit = Limit(book, actors, gate.budget)
    limit.keep()
    if book.num_left == 0:
        return
    _quiet_ray_tune()
    tuner = _tuner(config, paths, metric, book, allocation, actors, limit, gate)
    handler = signal.getsignal(signal.SIGINT)
    try:
        tuner.fit()
    except TuneError as wrapped:  # Tune wraps what its searcher, scheduler or callbacks raise
        raise _abort_within(wrapped) or wrapped from None
    finally:
        was_interrupted = gave_way(handler)
    check_end(book.num_left, was_interrupted=was_interrupted)


def gave_way(handler: Any) -> bool:
    """Whether Tune's handler of Ctrl-C was called: it then gives way to the one before it, so that
    a second Ctrl-C ends all. It never does otherwise, not even once Tune has ended; here it does.
    """
    if signal.getsignal(signal.SIGINT) is handler:
        return True
    signal.signal(signal.SIGINT, handler)
    return False


def check_end(num_left: int, *, was_interrupted: bool) -> None:
    """Tells an end that was asked for from one that nobody wanted, if trials are left.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        SweepAborted: any other early end.
    """
    if num_left and was_interrupted:
        raise KeyboardInterrupt
    if num_left:
        raise SweepAborted(
            f"Ray Tune ended by itself with {num_left} trials left to run",
            "see Ray's logs for the reason, then repeat the command with --resume",
        )


def _tuner(
    config: SweepConfig,
    paths: RunPaths,
    metric: Metric,
    book: TrialController,
    allocation: Allocation,
    actors: Sequence[ActorHandle],
    limit: Limit,
    gate: StartupGate,
) -> tune.Tuner:
    trainable_with_data = tune.with_parameters(
        trainable.run_trial,
        settings=config.settings,
        checkpoints=paths.checkpoints,
        packs=actors,
        max_failures=config.max_failures,
    )
    return tune.Tuner(
        tune.with_resources(trainable_with_data, allocation.trial_resources),
        tune_config=_tune_config(
            _ControllerSearcher(book, metric, allocation),
            _ControllerScheduler(book, actors, limit, gate.open),
            allocation,
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=str(paths.folder),
            failure_config=FailureConfig(max_failures=config.max_failures),
            callbacks=[
                _ControllerCallback(
                    book, config.max_failures, limit, allocation.most_at_once, gate.poll
                )
            ],
            verbose=0,
        ),
    )


def _tune_config(
    searcher: Searcher, scheduler: FIFOScheduler, allocation: Allocation
) -> TuneConfig:
    return TuneConfig(
        search_alg=searcher,
        scheduler=scheduler,
        num_samples=-1,  # until the book has no trial left
        # Without it Tune waits for each trial's process before it asks for the next trial.
        max_concurrent_trials=allocation.most_at_once,
        reuse_actors=True,
        trial_name_creator=_trial_id,
        trial_dirname_creator=_trial_id,
    )


class _ControllerSearcher(Searcher):  # type: ignore[misc]
    """Hands the book's next trial to Tune, as long as fewer than may be at once have one.

    Tune's own limit of trials at once is the larger of two: the finals have another than the
    search.
    """

    def __init__(self, book: TrialController, metric: Metric, allocation: Allocation) -> None:
        super().__init__(metric=metric.name, mode=metric.mode)
        self._book = book
        self._lanes = allocation
        self._live: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._book.num_left == 0:
            return str(Searcher.FINISHED)
        in_finals = self._book.is_in_finals
        most = self._lanes.final_concurrency if in_finals else self._lanes.concurrency
        if len(self._live) >= most:
            return None
        trial = self._book.next_trial()
        if trial is None:  # a trial that runs may still have to be started again
            return None
        self._live.add(trial_id)
        seed = trial.settings.seed
        return {"trial_id": trial.trial_id, "seed": seed, **asdict(trial.params)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._live.discard(trial_id)  # the scheduler and the callback tell the book why

    def save(self, checkpoint_path: str) -> None:
        pass  # the event log and the study hold everything

    def restore(self, checkpoint_path: str) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher; a restored one would be a second book


class _ControllerScheduler(FIFOScheduler):  # type: ignore[misc]
    """Asks the book who goes on after a report, and tells the packs.

    The first report of a cohort decides about all of it, and the packs go on at once. The other
    trials of Tune learn it from their own reports, which are on their way: none is waited for, so
    none can hold up the others, whatever becomes of its process.

    Args:
        before: is called before each result.
    """

    def __init__(
        self,
        book: TrialController,
        actors: Sequence[ActorHandle],
        limit: Limit,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._book = book
        self._actors = actors
        self._limit = limit
        self._before = before

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        self._before()
        if trainable.ABORTED in result:
            raise SweepAborted(*result[trainable.ABORTED])
        if trainable.FAILED in result:
            self._book.end(_trial_id(trial), "failed", result[trainable.FAILED])
            return str(TrialScheduler.STOP)
        report = result.get(trainable.REPORT)
        if report is None or result[DONE]:
            self._book.end(_trial_id(trial), "failed", "its process ended before its last step")
            return str(TrialScheduler.STOP)
        announce = partial(pack_pool.decide, self._actors, report.step)
        decided = self._book.report(report, announce)
        goes_on = self._limit.applied_to(decided)
        if goes_on != decided:
            announce(goes_on)
        keeps = goes_on[report.trial_id]
        return str(TrialScheduler.CONTINUE if keeps else TrialScheduler.STOP)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _ControllerCallback(Callback):  # type: ignore[misc]
    """Tells the book of trials that lost more processes than allowed.

    Tune counts as a trial's failure, even twice, that it is handed the process of an ended trial
    and finds it dead: where several processes die at once, the death of its own is the third. Here
    count the processes in which the trial has started. With no more than allowed it is put back,
    as often as there may be dead processes; where none starts at all, that ends too.

    Args:
        most_at_once: trials with a process.
        look: is called again and again.
    """

    def __init__(
        self,
        book: TrialController,
        max_failures: int,
        limit: Limit,
        most_at_once: int,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._book = book
        self._max_failures = max_failures
        self._limit = limit
        self._most_at_once = most_at_once
        self._look = look
        self._starts: Counter[str] = Counter()
        self._put_back: Counter[str] = Counter()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._look()
        if self._limit.is_due:
            self._limit.keep([_trial_id(one) for one in trials if one.status == Trial.RUNNING])

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._starts[_trial_id(trial)] += 1

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        if trainable.REPORT in result:  # Tune keeps each trial's last result, and saves them all
            result[trainable.REPORT] = replace(result[trainable.REPORT], cohort=())

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Tune has given the trial up, so all processes in which it started are lost."""
        trial_id = _trial_id(trial)
        most_put_back = self._max_failures + self._most_at_once
        if self._starts[trial_id] > self._max_failures or self._put_back[trial_id] >= most_put_back:
            self._book.end(trial_id, "failed", _reason(trial))
        else:
            self._put_back[trial_id] += 1
            self._book.put_back(trial_id)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _reason(trial: Trial) -> str:
    """One line that says why a trial's process failed, more often than it may.

    Tune keeps a text a failure: a worker's traceback, whose last line names the error, or what
    became of the process, which the first line says.
    """
    text = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    _, _, last = text.rpartition("Failure # ")
    lines = [line for line in last.splitlines()[1:] if line.strip()] or ["its process failed"]
    has_traceback = any("Traceback" in line or "ray::" in line for line in lines)
    return lines[-1 if has_traceback else 0].strip()[:500]


def _abort_within(error: BaseException | None) -> SweepAborted | None:
    """The SweepAborted that an error was raised from."""
    while error is not None and not isinstance(error, SweepAborted):
        error = error.__cause__ or error.__context__
    return error


def _trial_id(trial: Trial) -> str:
    return str(trial.config["trial_id"])


def _quiet_ray_tune() -> None:
    """Tune's own tables, loggers and warnings would repeat what the sweep shows.

    A trial that fails before its first report has no metric, which Tune would refuse.
    """
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
