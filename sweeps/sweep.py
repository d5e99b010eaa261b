"""One sweep from its config to its best adapter: connect -> tune -> results -> test -> best/."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

from cluster.connect import connect
from sweeps import (
    finals,
    finish,
    gpu_time,
    outlook,
    packs,
    plan,
    record,
    results,
    summary,
    tuner,
)
from sweeps import verdict as verdicts
from sweeps.book import TrialBook
from sweeps.cli import EXIT_DONE, EXIT_NO_TRIAL
from sweeps.config import SweepConfig
from sweeps.estimate import workload
from sweeps.events import EventLog, TrialHistory, read_events, replay, replay_all
from sweeps.finals import Finals
from sweeps.forecast import Forecast
from sweeps.lanes import divide
from sweeps.outlook import Outlook
from sweeps.paths import RunPaths
from sweeps.preflight import Preflight
from sweeps.progress import ProgressTable
from sweeps.record import Identity
from sweeps.search import Search, enqueue, num_startup_trials, open_study
from sweeps.tracking import WandbTracker
from sweeps.verdict import Verdict
from trainables.checkpoint import prune_to_adapter
from trainables.config import Metric
from trainables.packing.capacity import num_cores
from trainables.packing.ledger import Share, read_ledgers


def run_sweep(
    config: SweepConfig,
    found: Preflight,
    paths: RunPaths,
    identity: Identity,
    *,
    is_resumed: bool,
) -> int:
    """Runs the trials and finals that are left, tests the winner, and writes the run's files.

    Returns:
        The process's exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was reported is kept.
        SweepAborted: the disk, the study storage or the cluster is of no more use.
    """
    began_s = time.monotonic()
    log = EventLog(paths.events)
    events = read_events(paths.events)
    histories = replay(events)
    log.append("sweep_resumed" if is_resumed else "sweep_started", name=config.name)
    with connect(num_local_cpus=max(num_cores(), 2)) as cluster:
        lanes = divide(config, found.model, tuner.hardware(cluster))
        study = open_study(
            config.study_storage or f"sqlite:///{paths.optuna_db}",
            identity.name,
            found.task.metric,
            is_resumed=is_resumed,
        )
        enqueue(study, plan.start_points(config), config.num_trials)
        num_startup = num_startup_trials(config.num_trials)
        search = Search(study, config.space, config.seed, num_startup, config.sampler)
        tracker = WandbTracker(
            found.wandb_mode, paths.folder, identity.name, identity.sweep_id, config.wandb_project,
            config.wandb_entity, found.task.metric, _shared_config(config), replay_all(events),
        )  # fmt: skip
        load = workload(config, lanes, len(found.splits.validation), len(found.splits.test))
        forecast = Forecast(load, found.task.metric, replay_all(events))
        progress = ProgressTable(
            found.task.metric, config.num_trials, config.max_steps, histories, forecast.left_s
        )
        listeners = (tracker, forecast, progress)
        book = TrialBook(config, paths, found.task.metric, search, log, listeners)
        earlier = read_ledgers(paths.checkpoints)
        has_trials = not finals.is_over(config, events, found.task.metric)
        with packs.running(
            lanes, config.settings, paths.checkpoints, has_trials=has_trials,
            probed=outlook.probed(config),
        ) as actors:  # fmt: skip
            try:
                ahead = outlook.look_ahead(
                    config, lanes, load, forecast, packs.pace(actors), events, earlier, began_s
                )
                _tell(ahead, log, paths)
                with progress:
                    book.resume(histories)
                    tuner.run_trials(
                        config, paths, found.task.metric, book, lanes, actors, ahead.budget
                    )
            finally:
                tracker.sweep_ended()
                events = read_events(paths.events)
                _prune(paths, replay_all(events))
                told = packs.ledgers(actors, paths.checkpoints)
                shares = gpu_time.shares_by(lanes, replay_all(events), told)
                trials = results.rows(replay(events), found.task.metric, shares)
                results.write_csv(trials, paths.trials_csv)
            met = finals.last_finals(events) if config.finals else None
            verdict = _verdict(config, paths, met, replay_all(events), found.task.metric, shares)
            results.write_csv(trials, paths.trials_csv, verdicts.columns(verdict))
            winner = finish.find_winner(paths, replay_all(events), trials, met, verdict)
            if winner is None:
                print(summary.without_best(trials), file=sys.stderr)
                return EXIT_NO_TRIAL
            score = partial(packs.final_scores, actors, lanes, config.settings)
            outcome = finish.final_scores(config, found, paths, winner, log, score)
            ledgers = packs.ledgers(actors, paths.checkpoints)
            for number, ledger in enumerate(ledgers):
                if number >= len(earlier):
                    log.append("pack_ended", pack=number, **asdict(ledger))
        outcome = finish.with_bertscore(config, found, paths, log, outcome)  # the GPUs are free now
        confusion = finish.write_best(config, found, paths, trials, outcome, verdict)
    spent = gpu_time.account(replay_all(events), ledgers, shares, load, ahead.pace)
    actual = outlook.actual_fields(ahead, ledgers)
    log.append(
        "sweep_ended",
        predicted=outlook.predicted_fields(ahead),
        actual=actual,
        gpu_time=asdict(spent),
    )
    print(summary.describe(config, paths, trials, outcome, ledgers, verdict, confusion))
    for line in (*gpu_time.describe(spent), *outlook.compared(ahead, actual)):
        print(line)
    return EXIT_DONE


def _tell(ahead: Outlook, log: EventLog, paths: RunPaths) -> None:
    """Says what is expected, before the first trial."""
    for line in outlook.describe(ahead):
        print(line, flush=True)
    fields = outlook.predicted_fields(ahead)
    if fields:
        log.append("predicted", **fields)
        record.add(paths, predicted=fields)


def _verdict(
    config: SweepConfig,
    paths: RunPaths,
    met: Finals | None,
    histories: Sequence[TrialHistory],
    metric: Metric,
    shares: Mapping[str, Share],
) -> Verdict | None:
    """What the finals came to, also as files; None without finals."""
    if met is None:
        return None
    verdict = verdicts.decide(config, paths, met, histories, metric)
    verdicts.write(verdict, paths, histories, shares)
    record.add(paths, finals=verdicts.in_short(verdict))
    return verdict


def _prune(paths: RunPaths, histories: Sequence[TrialHistory]) -> None:
    """Leaves the adapters of trials that have ended; their optimizers serve nobody."""
    for history in histories:
        if history.status is not None:
            prune_to_adapter(paths.trial(history.trial_id))


def _shared_config(config: SweepConfig) -> dict[str, object]:
    shared = asdict(config.settings) | {"recipe": config.recipe, "engine": config.engine}
    return shared | {"space": asdict(config.space)}
