"""The Ray Tuner: resources, concurrency, failure policy, and Tune's words turned into ours."""

import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, TuneConfig
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.connect import Cluster
from sweeps.book import TrialBook
from sweeps.config import SweepConfig
from sweeps.paths import RunPaths
from sweeps.preflight import local_gpus, no_gpu
from trainables import trial as trainable
from trainables.config import Metric
from trainables.errors import SweepAborted

MAX_AUTO_SLOTS = 8
"""Solo trials at once on one GPU: each is a process that wants a CPU core to launch kernels."""


@dataclass(frozen=True)
class Lanes:
    """How many trials run at once, and what each takes."""

    concurrency: int
    gpus_per_trial: float

    @property
    def trial_resources(self) -> dict[str, float]:
        """What Ray reserves for one trial."""
        return {"CPU": 1, "GPU": self.gpus_per_trial}


def lanes(config: SweepConfig, cluster: Cluster, trial_gib: float) -> Lanes:
    """Divides the cluster's GPUs into slots; a tiny sweep on a machine without one, its CPUs.

    Args:
        trial_gib: the most memory that one trial is expected to need.

    Raises:
        SweepAborted: a real sweep on a cluster without a GPU.
    """
    if cluster.num_gpus == 0:
        if not config.tiny:
            raise no_gpu()
        num_slots = MAX_AUTO_SLOTS if config.slots_per_gpu == "auto" else config.slots_per_gpu
        return Lanes(min(num_slots, cluster.num_cpus, config.num_trials), 0.0)
    num_gpus = min(config.gpus or cluster.num_gpus, cluster.num_gpus)
    per_gpu = config.slots_per_gpu
    if per_gpu == "auto":
        per_gpu = _slots_that_fit(trial_gib, cluster.num_cpus // num_gpus)
    return Lanes(min(num_gpus * per_gpu, cluster.num_cpus, config.num_trials), 1 / per_gpu)


def _slots_that_fit(trial_gib: float, num_cpus: int) -> int:
    """Trials that fit on the smallest GPU of this machine; 1 where its memory is not known."""
    gpus_gib = [gib for _, gib in local_gpus()]
    if not gpus_gib:
        return 1
    process_gib = 1.0  # a CUDA context with its libraries, beside what torch allocates
    num_fitting = int(0.9 * min(gpus_gib) / (trial_gib + process_gib))
    return max(1, min(MAX_AUTO_SLOTS, num_cpus - 1, num_fitting))


def run_trials(
    config: SweepConfig,
    paths: RunPaths,
    metric: Metric,
    book: TrialBook,
    lanes: Lanes,
) -> None:
    """Runs trials until the book has no next one; returns early after Ctrl-C.

    Raises:
        SweepAborted: the event log cannot be written.
    """
    if book.num_left == 0:
        return
    _quiet_ray_tune()
    trainable_with_data = tune.with_parameters(
        trainable.run_trial, settings=config.settings, checkpoints=paths.checkpoints
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable_with_data, lanes.trial_resources),
        tune_config=TuneConfig(
            search_alg=_BookSearcher(book, metric),
            scheduler=_BookScheduler(book),
            num_samples=book.num_left,
            max_concurrent_trials=lanes.concurrency,
            reuse_actors=True,
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=str(paths.folder),
            failure_config=FailureConfig(max_failures=config.max_failures),
            callbacks=[_BookCallback(book)],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except TuneError as wrapped:  # Tune wraps what its searcher, scheduler or callbacks raise
        raise _abort_within(wrapped) or wrapped from None


class _BookSearcher(Searcher):  # type: ignore[misc]
    """Hands the book's next trial to Tune."""

    def __init__(self, book: TrialBook, metric: Metric) -> None:
        super().__init__(metric=metric.name, mode=metric.mode)
        self._book = book

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        trial = self._book.next_trial()
        if trial is None:
            return str(Searcher.FINISHED)
        return {"trial_id": trial.trial_id, **asdict(trial.params)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        pass  # the scheduler and the callback tell the book, with the reason

    def save(self, checkpoint_path: str) -> None:
        pass  # the event log and the study hold everything

    def restore(self, checkpoint_path: str) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher; a restored one would be a second book


class _BookScheduler(FIFOScheduler):  # type: ignore[misc]
    """Asks the book whether a trial that reported goes on."""

    def __init__(self, book: TrialBook) -> None:
        super().__init__()
        self._book = book

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if trainable.ABORTED in result:
            raise SweepAborted(*result[trainable.ABORTED])
        if trainable.FAILED in result:
            self._book.end(_trial_id(trial), "failed", result[trainable.FAILED])
            return str(TrialScheduler.STOP)
        goes_on = self._book.report(result[trainable.REPORT])
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _BookCallback(Callback):  # type: ignore[misc]
    """Tells the book of trials whose process died more often than allowed."""

    def __init__(self, book: TrialBook) -> None:
        self._book = book

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._book.end(_trial_id(trial), "failed", _reason(trial))

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
    """Tune's own tables, loggers and warnings would repeat what the sweep shows."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
