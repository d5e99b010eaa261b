"""One sweep from its config to its best adapter: connect -> tune -> results -> test -> best/."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from cluster.connect import connect
from sweeps import finish, packs, plan, results, summary, tuner
from sweeps.book import TrialBook
from sweeps.cli import EXIT_DONE, EXIT_NO_TRIAL
from sweeps.config import SweepConfig
from sweeps.events import EventLog, TrialHistory, read_events, replay
from sweeps.lanes import divide
from sweeps.paths import RunPaths
from sweeps.preflight import Preflight
from sweeps.progress import ProgressTable
from sweeps.record import Identity
from sweeps.search import Search, enqueue, num_startup_trials, open_study
from sweeps.tracking import WandbTracker
from trainables.checkpoint import prune_to_adapter


def run_sweep(
    config: SweepConfig,
    found: Preflight,
    paths: RunPaths,
    identity: Identity,
    *,
    is_resumed: bool,
) -> int:
    """Runs the trials that are left, tests the best one, and writes what the run's folder holds.

    Returns:
        The process's exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was reported is kept.
        SweepAborted: the disk, the study storage or the cluster is of no more use.
    """
    log = EventLog(paths.events)
    histories = replay(read_events(paths.events))
    log.append("sweep_resumed" if is_resumed else "sweep_started", name=config.name)
    with connect(num_local_cpus=max(os.cpu_count() or 1, 2)) as cluster:
        lanes = divide(config, found.model, tuner.hardware(cluster))
        study = open_study(
            config.study_storage or f"sqlite:///{paths.optuna_db}",
            identity.name,
            found.task.metric,
            is_resumed=is_resumed,
        )
        enqueue(study, plan.start_points(config), config.num_trials)
        num_startup = num_startup_trials(config.num_trials, lanes.concurrency)
        search = Search(study, config.space, config.seed, num_startup)
        tracker = WandbTracker(
            found.wandb_mode, paths.folder, identity.name, identity.sweep_id, config.wandb_project,
            config.wandb_entity, found.task.metric, _shared_config(config), histories,
        )  # fmt: skip
        progress = ProgressTable(
            found.task.metric, config.num_trials, config.max_steps, lanes.concurrency, histories
        )
        book = TrialBook(config, paths, found.task.metric, search, log, (tracker, progress))
        has_trials = sum(one.status is not None for one in histories) < config.num_trials
        with packs.running(
            lanes, config.settings, paths.checkpoints, has_trials=has_trials
        ) as actors:
            try:
                with progress:
                    book.resume(histories)
                    tuner.run_trials(config, paths, found.task.metric, book, lanes, actors)
            finally:
                tracker.sweep_ended()
                histories = replay(read_events(paths.events))
                _prune(paths, histories)
                trials = results.rows(histories, found.task.metric)
                results.write_csv(trials, paths.trials_csv)
            if book.num_left:  # Tune turns Ctrl-C into an early end
                raise KeyboardInterrupt
            if results.best(trials) is None:
                print(summary.without_best(trials), file=sys.stderr)
                return EXIT_NO_TRIAL
            score = partial(packs.final_scores, actors, lanes, config.settings)
            scores = finish.final_scores(config, paths, trials, log, score)
            ledgers = packs.ledgers(actors)
            for number, ledger in enumerate(ledgers):
                log.append("pack_ended", pack=number, **asdict(ledger))
            finish.write_best(config, found, paths, trials, scores)
    log.append("sweep_ended")
    print(summary.describe(config, paths, trials, scores, ledgers))
    return EXIT_DONE


def _prune(paths: RunPaths, histories: Sequence[TrialHistory]) -> None:
    """Leaves the adapters of trials that have ended; their optimizers serve nobody."""
    for history in histories:
        if history.status is not None:
            prune_to_adapter(paths.trial(history.trial_id))


def _shared_config(config: SweepConfig) -> dict[str, object]:
    shared = asdict(config.settings) | {"recipe": config.recipe, "engine": config.engine}
    return shared | {"space": asdict(config.space)}
