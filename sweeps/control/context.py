"""The parts of a sweep on the cluster that was found: allocation, study, book, and who is told."""

from dataclasses import asdict, dataclass
from typing import Any

from sweeps.checks.preflight import Preflight
from sweeps.checks.run_folder import Identity
from sweeps.config import SweepConfig
from sweeps.control.controller import TrialController
from sweeps.cost import plan
from sweeps.cost.allocation import Allocation
from sweeps.cost.estimate import CostModel
from sweeps.cost.eta import Eta
from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord, replay_all
from sweeps.search.study import Search, enqueue, num_startup_trials, open_study
from sweeps.tracking.progress import ProgressTable
from sweeps.tracking.wandb_runs import WandbTracker
from trainables.config import Metric

Events = list[dict[str, Any]]
"""Of the log, oldest first."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What was asked for, and where it is written down: every stage needs these."""

    config: SweepConfig
    found: Preflight
    paths: RunPaths
    log: EventLog

    @property
    def metric(self) -> Metric:
        return self.found.task.metric


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What runs the trials, and who is told of them, on the cluster that was found."""

    allocation: Allocation
    cost_model: CostModel
    histories: list[TrialRecord]
    """Trials of the search that earlier processes ran."""
    tracker: WandbTracker
    eta: Eta
    progress: ProgressTable
    book: TrialController


def set_up(
    sweep: Sweep,
    identity: Identity,
    allocation: Allocation,
    events: Events,
    histories: list[TrialRecord],
    *,
    is_resumed: bool,
) -> Parts:
    """Opens the study, and makes the book with all who listen to it."""
    config, metric = sweep.config, sweep.metric
    search = _search(sweep, identity, is_resumed=is_resumed)
    tracker = WandbTracker(
        sweep.found.wandb_mode, sweep.paths.folder, identity.name, identity.sweep_id,
        config.wandb_project, config.wandb_entity, metric, _shared_config(config),
        replay_all(events),
    )  # fmt: skip
    splits = sweep.found.splits
    cost_model = CostModel.of_sweep(config, allocation, len(splits.validation), len(splits.test))
    eta = Eta(cost_model, replay_all(events))
    progress = ProgressTable(metric, config.num_trials, config.max_steps, histories, eta.left_s)
    listeners = (tracker, eta, progress)
    book = TrialController(config, sweep.paths, metric, search, sweep.log, listeners)
    return Parts(
        allocation=allocation,
        cost_model=cost_model,
        histories=histories,
        tracker=tracker,
        eta=eta,
        progress=progress,
        book=book,
    )


def _search(sweep: Sweep, identity: Identity, *, is_resumed: bool) -> Search:
    """The study with its start points, and the sampler that goes on from them."""
    config = sweep.config
    url = config.study_storage or f"sqlite:///{sweep.paths.optuna_db}"
    study = open_study(url, identity.name, sweep.metric, is_resumed=is_resumed)
    enqueue(study, plan.start_points(config), config.num_trials)
    num_startup = num_startup_trials(config.num_trials)
    return Search(study, config.space, config.seed, num_startup, config.sampler)


def _shared_config(config: SweepConfig) -> dict[str, object]:
    shared = asdict(config.settings)
    del shared["rows_dir"]  # a folder of this machine
    of_sweep = ("recipe", "engine", "task", "data")
    shared |= {name: getattr(config, name) for name in of_sweep}
    return shared | {"task_options": asdict(config.task_options), "space": asdict(config.space)}
