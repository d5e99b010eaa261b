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
from sweeps.cost import gpu_time, hardware
from sweeps.cost.allocation import Allocation, allocate_slots
from sweeps.cost.budget import Budget, predict
from sweeps.cost.durations import format_duration
from sweeps.cost.estimate import CostModel, Estimate, actual_fields, probe_params
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
from trainables.packing.sizing.throughput import Throughput
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
        with pack_pool.run_packs(
            allocation, config.settings, paths.checkpoints, has_trials=has_trials,
            probed=probe_params(config),
        ) as actors:  # fmt: skip
            try:
                tell = partial(_tell_estimate, sweep, parts, events, earlier, began_s)
                estimate = _run_trials(sweep, parts, actors, tell)
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
    wall_s = time.monotonic() - began_s
    cost = _log_end(sweep, parts.cost_model, records, estimate, ledgers, wall_s)
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


def _tell_estimate(
    sweep: Sweep,
    parts: Parts,
    events: Events,
    earlier: Sequence[Ledger],
    began_s: float,
    throughput: Throughput | None,
) -> tuple[Estimate | None, Budget | None]:
    """Says what is expected, before the first trial."""
    elapsed_s = time.monotonic() - began_s
    estimate, budget = predict(sweep.config, parts.eta, throughput, events, earlier, elapsed_s)
    if estimate is not None:
        print(*estimate.describe(), sep="\n", flush=True)
        sweep.log.append("predicted", **estimate.fields())
        sweep_json.add(sweep.paths, predicted=estimate.fields())
    if budget is not None:
        print(f"budget: {format_duration(max(0.0, budget.left_s))} are left", flush=True)
    return estimate, budget


def _run_trials(
    sweep: Sweep,
    parts: Parts,
    actors: Sequence[ActorHandle],
    tell_estimate: Callable[[Throughput | None], tuple[Estimate | None, Budget | None]],
) -> Estimate | None:
    """The search and its finals, from where earlier processes left them; returns what was told.

    A budget may leave no room for a trial, which is known before the first one's process starts.
    """
    with gc_disabled():
        from sweeps.control import ray_tuner  # loads Ray Tune, for which the packs have not waited

    gate = StartupGate(parts.book, actors, tell_estimate)
    if sweep.config.has_budget:
        gate.open(pack_pool.LOAD_TIMEOUT_S)
    with parts.progress:
        parts.book.resume(parts.histories)
        gate.close()
        ray_tuner.run_trials(
            sweep.config, sweep.paths, sweep.metric, parts.book, parts.allocation, actors, gate
        )
        gate.open(pack_pool.LOAD_TIMEOUT_S)
    return gate.estimate


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
    cost_model: CostModel,
    records: Sequence[TrialRecord],
    estimate: Estimate | None,
    ledgers: Sequence[Ledger],
    wall_s: float,
) -> list[str]:
    """Logs what the sweep took, beside what was predicted; the same in words."""
    shares = {record.trial_id: record.share for record in records if record.share is not None}
    throughput = estimate.throughput if estimate else None
    spent = gpu_time.account(records, ledgers, shares, cost_model, throughput)
    actual = actual_fields(wall_s, cost_model.num_gpus, ledgers)
    sweep.log.append(
        "sweep_ended",
        predicted=estimate.fields() if estimate else {},
        actual=actual,
        gpu_time=asdict(spent),
    )
    compared = [estimate.compare(actual)] if estimate else []
    return [*gpu_time.describe(spent), *compared]
