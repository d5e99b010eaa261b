"""What every stage of a sweep needs: what was asked for, where it is written, who is told."""

from dataclasses import dataclass
from typing import Any

from sweeps.checks import sweep_json
from sweeps.checks.preflight import Preflight
from sweeps.config import SweepConfig
from sweeps.control.controller import TrialController
from sweeps.cost import plan
from sweeps.cost.allocation import Allocation
from sweeps.cost.estimate import CostModel
from sweeps.cost.eta import Eta
from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import replay, replay_all
from sweeps.search.storage import open_study
from sweeps.search.study import Search, enqueue, num_startup_trials
from sweeps.tracking.progress import ProgressTable
from sweeps.tracking.wandb_tracker import Tracker, open_tracker

Events = list[dict[str, Any]]
"""Of the log, oldest first."""


@dataclass(frozen=True)
class SweepContext:
    """One sweep on the cluster that it has connected to."""

    config: SweepConfig
    paths: RunPaths
    log: EventLog
    allocation: Allocation
    controller: TrialController
    tracker: Tracker
    """Follows the log."""
    eta: Eta
    """Listens to the controller, and so does the next."""
    progress: ProgressTable


def open_context(
    config: SweepConfig,
    preflight: Preflight,
    paths: RunPaths,
    log: EventLog,
    allocation: Allocation,
    events: Events,
    *,
    is_resumed: bool,
) -> SweepContext:
    """Opens the study, and makes the controller with all who listen to it.

    Args:
        events: of the sweep's earlier processes.
    """
    metric, splits, mode = preflight.task.metric, preflight.splits, preflight.wandb_mode
    began = sweep_json.read(paths)  # its name stays that of the study and of the group in W&B
    url = config.study_storage or f"sqlite:///{paths.optuna_db}"
    study = open_study(url, began["name"], metric, is_resumed=is_resumed)
    enqueue(study, plan.start_points(config), config.num_trials)
    num_startup = num_startup_trials(config.num_trials)
    search = Search(study, config.space, config.seed, num_startup, config.sampler)
    tracker = open_tracker(config, mode, paths, metric, began["name"], began["sweep_id"])
    cost_model = CostModel.of_sweep(config, allocation, len(splits.validation), len(splits.test))
    eta = Eta(cost_model, replay_all(events))
    progress = ProgressTable(
        metric, config.num_trials, config.max_steps, replay(events), eta.left_s
    )
    controller = TrialController(config, paths, metric, search, log, (eta, progress))
    return SweepContext(config, paths, log, allocation, controller, tracker, eta, progress)
