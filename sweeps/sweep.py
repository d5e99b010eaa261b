"""One sweep from its config to its best adapter: connect -> tune -> results -> test -> best/."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial

from ray.actor import ActorHandle

from cluster.connect import Cluster, connect
from cluster.find import address_to_join
from sweeps.checks import sweep_json
from sweeps.checks.preflight import Preflight
from sweeps.checks.run_folder import Identity
from sweeps.cli import EXIT_DONE, EXIT_NO_TRIAL
from sweeps.config import SweepConfig
from sweeps.control import pack_pool
from sweeps.control.context import Events, Parts, Sweep, set_up
from sweeps.control.startup_gate import StartupGate
from sweeps.cost import gpu_time, hardware, outlook
from sweeps.cost.allocation import Allocation, allocate_slots
from sweeps.cost.outlook import Outlook
from sweeps.cost.workload import Workload
from sweeps.finals import final_test, finalists
from sweeps.finals import verdict as verdicts
from sweeps.finals.finalists import Finals
from sweeps.finals.verdict import Verdict
from sweeps.publish import summary
from sweeps.publish.best_folder import write_best
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord, replay, replay_all
from sweeps.records.trials_csv import write_csv
from sweeps.tracking.wandb_summary import write_summary
from trainables.checkpoint import prune_to_adapter
from trainables.data.files import first_line
from trainables.errors import SweepAborted
from trainables.packing.service.ledger import Ledger, read_ledgers
from trainables.packing.sizing.capacity import num_cores
from trainables.packing.sizing.pace import Pace
from trainables.process import gc_disabled


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
    sweep = Sweep(config=config, found=found, paths=paths, log=EventLog(paths.events))
    events = read_events(paths.events)
    histories = replay(events)
    sweep.log.append("sweep_resumed" if is_resumed else "sweep_started", name=config.name)
    with _connected() as cluster:
        allocation = allocate_slots(config, found.model, hardware.of_cluster(cluster))
        parts = set_up(sweep, identity, allocation, events, histories, is_resumed=is_resumed)
        earlier = read_ledgers(paths.checkpoints)
        has_trials = not finalists.is_over(config, events, sweep.metric)
        with pack_pool.running(
            allocation, config.settings, paths.checkpoints, has_trials=has_trials,
            probed=outlook.probed(config),
        ) as actors:  # fmt: skip
            try:
                look_ahead = partial(_look_ahead, sweep, parts, events, earlier, began_s)
                ahead = _run_trials(sweep, parts, actors, look_ahead)
            finally:
                parts.tracker.sweep_ended()
                records = _collect_records(sweep, allocation, actors)
                trials = _select_search(records)
                write_csv(trials, sweep.metric, paths.trials_csv)
            finals = finalists.last_finals(read_events(paths.events)) if config.finals else None
            verdict = _decide_finals(sweep, finals, records)
            winner = final_test.find_winner(paths, records, sweep.metric, finals, verdict)
            if winner is None:
                print(summary.without_best(trials), file=sys.stderr)
                return EXIT_NO_TRIAL
            score = partial(pack_pool.final_scores, actors, allocation, config.settings)
            outcome = final_test.score_on_test(config, found, paths, winner, sweep.log, score)
            ledgers = pack_pool.ledgers(actors, paths.checkpoints)
            _log_packs(sweep.log, ledgers, num_known=len(earlier))
        # The GPUs are free now.
        outcome = final_test.add_bertscore(config, found, paths, sweep.log, outcome)
        confusion = write_best(config, found, paths, trials, outcome, verdict)
    write_summary(parts.tracker, outcome, verdict, confusion)
    cost = _log_end(sweep, parts.load, records, ahead, ledgers)
    print(
        summary.describe(config, paths, trials, sweep.metric, outcome, ledgers, verdict, confusion),
        *cost,
        sep="\n",
    )
    return EXIT_DONE


def _connected() -> Cluster:
    try:
        return connect(num_local_cpus=max(num_cores(), 2))
    except (ConnectionError, RuntimeError, ValueError) as refused:  # as Ray tells, at length
        if address_to_join() is None:
            raise
        raise SweepAborted(
            f"Ray cannot be connected to: {first_line(refused)}",
            "check RAY_ADDRESS, and that its nodes have this Ray and this Python; without it, a "
            "sweep runs on this machine",
        ) from refused


def _look_ahead(
    sweep: Sweep,
    parts: Parts,
    events: Events,
    earlier: Sequence[Ledger],
    began_s: float,
    pace: Pace | None,
) -> Outlook:
    """Says what is expected, before the first trial."""
    ahead = outlook.look_ahead(
        sweep.config, parts.allocation, parts.load, parts.forecast, pace, events, earlier, began_s,
    )  # fmt: skip
    for line in outlook.describe(ahead):
        print(line, flush=True)
    fields = outlook.predicted_fields(ahead)
    if fields:
        sweep.log.append("predicted", **fields)
        sweep_json.add(sweep.paths, predicted=fields)
    return ahead


def _run_trials(
    sweep: Sweep,
    parts: Parts,
    actors: Sequence[ActorHandle],
    look_ahead: Callable[[Pace | None], Outlook],
) -> Outlook:
    """The search and its finals, from where earlier processes left them; returns the outlook.

    A budget may leave no room for a trial, which is known before the first one's process starts.
    """
    with gc_disabled():
        from sweeps.control import ray_tuner  # loads Ray Tune, for which the packs have not waited

    opening = StartupGate(parts.book, actors, look_ahead)
    if sweep.config.has_budget:
        opening.outlook()
    with parts.progress:
        parts.book.resume(parts.histories)
        opening.begin()
        ray_tuner.run_trials(
            sweep.config, sweep.paths, sweep.metric, parts.book, parts.allocation, actors, opening
        )
        return opening.outlook()


def _collect_records(
    sweep: Sweep, allocation: Allocation, actors: Sequence[ActorHandle]
) -> list[TrialRecord]:
    """All trials and runs of the finals, each with its share of the GPUs' time.

    Optimizer states of ended trials serve nobody from here on, so they are deleted.
    """
    records = replay_all(read_events(sweep.paths.events))
    for record in records:
        if record.status is not None:
            prune_to_adapter(sweep.paths.trial(record.trial_id))
    ledgers = pack_pool.ledgers(actors, sweep.paths.checkpoints)
    shares = gpu_time.shares_by(allocation, records, ledgers)
    return [replace(record, share=shares.get(record.trial_id)) for record in records]


def _decide_finals(
    sweep: Sweep, finals: Finals | None, records: Sequence[TrialRecord]
) -> Verdict | None:
    """What the finals came to, also as files and in trials.csv; None without finals."""
    verdict = None
    if finals is not None:
        verdict = verdicts.decide(sweep.config, sweep.paths, finals, records, sweep.metric)
        verdicts.write(verdict, sweep.paths)
        sweep_json.add(sweep.paths, finals=verdicts.summarize(verdict))
    columns = verdicts.make_columns(verdict)
    write_csv(_select_search(records), sweep.metric, sweep.paths.trials_csv, columns)
    return verdict


def _select_search(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The search's trials, without the runs of the finals."""
    return [record for record in records if record.final_of is None]


def _log_packs(log: EventLog, ledgers: Sequence[Ledger], num_known: int) -> None:
    """Logs where the time of this process's packs went; those before are known."""
    for number, ledger in enumerate(ledgers):
        if number >= num_known:
            log.append("pack_ended", pack=number, **asdict(ledger))


def _log_end(
    sweep: Sweep,
    load: Workload,
    records: Sequence[TrialRecord],
    ahead: Outlook,
    ledgers: Sequence[Ledger],
) -> list[str]:
    """Logs what the sweep took, beside what was predicted; the same in words."""
    shares = {record.trial_id: record.share for record in records if record.share is not None}
    spent = gpu_time.account(records, ledgers, shares, load, ahead.pace)
    actual = outlook.actual_fields(ahead, ledgers)
    sweep.log.append(
        "sweep_ended",
        predicted=outlook.predicted_fields(ahead),
        actual=actual,
        gpu_time=asdict(spent),
    )
    return [*gpu_time.describe(spent), *outlook.compared(ahead, actual)]
