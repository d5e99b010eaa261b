"""One sweep from its config to its best adapter: connect -> tune -> results -> test -> best/."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from ray.actor import ActorHandle

from cluster.connect import Cluster, connect
from cluster.find import address_to_join
from sweeps.checks import sweep_json
from sweeps.checks.preflight import Preflight
from sweeps.checks.sweep_json import Identity
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
from sweeps.finals.final_test import Outcome
from sweeps.finals.finalists import Finals
from sweeps.finals.verdict import Verdict
from sweeps.publish import summary
from sweeps.records import trials_csv
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord, replay, replay_all
from sweeps.records.trials_csv import TrialRow
from sweeps.tracking.wandb_summary import write_summary
from trainables.checkpoint import prune_to_adapter
from trainables.data.files import first_line
from trainables.errors import SweepAborted
from trainables.imports import gc_disabled
from trainables.packing.service.ledger import Ledger, Share, read_ledgers
from trainables.packing.sizing.capacity import num_cores
from trainables.packing.sizing.pace import Pace


@dataclass(frozen=True, kw_only=True)
class _Searched:
    """What the log holds when the search and its finals have ended."""

    events: Events
    histories: list[TrialRecord]
    """Trials and runs of the finals."""
    shares: Mapping[str, Share]
    """Of the GPUs' time, by trial."""
    trials: list[TrialRow]


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
                searched = _searched(sweep, allocation, actors)
            met = finalists.last_finals(searched.events) if config.finals else None
            verdict = _verdict(sweep, searched, met)
            outcome = _tested(sweep, allocation, actors, searched, met, verdict)
            if outcome is None:
                print(summary.without_best(searched.trials), file=sys.stderr)
                return EXIT_NO_TRIAL
            ledgers = pack_pool.ledgers(actors, paths.checkpoints)
            _log_packs(sweep.log, ledgers, num_known=len(earlier))
        # The GPUs are free now.
        outcome = final_test.add_bertscore(config, found, paths, sweep.log, outcome)
        confusion = final_test.write_best(config, found, paths, searched.trials, outcome, verdict)
    write_summary(parts.tracker, outcome, verdict, confusion)
    cost = _log_end(sweep, parts.load, searched, ahead, ledgers)
    print(
        summary.describe(config, paths, searched.trials, outcome, ledgers, verdict, confusion),
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


def _searched(sweep: Sweep, allocation: Allocation, actors: Sequence[ActorHandle]) -> _Searched:
    """Reads the log, and writes trials.csv; also of a sweep that was interrupted."""
    events = read_events(sweep.paths.events)
    histories = replay_all(events)
    _prune(sweep.paths, histories)
    told = pack_pool.ledgers(actors, sweep.paths.checkpoints)
    shares = gpu_time.shares_by(allocation, histories, told)
    trials = trials_csv.rows(replay(events), sweep.metric, shares)
    trials_csv.write_csv(trials, sweep.paths.trials_csv)
    return _Searched(events=events, histories=histories, shares=shares, trials=trials)


def _prune(paths: RunPaths, histories: Sequence[TrialRecord]) -> None:
    """Leaves the adapters of trials that have ended; their optimizers serve nobody."""
    for history in histories:
        if history.status is not None:
            prune_to_adapter(paths.trial(history.trial_id))


def _verdict(sweep: Sweep, searched: _Searched, met: Finals | None) -> Verdict | None:
    """What the finals came to, also as files and in trials.csv; None without finals."""
    verdict = None
    if met is not None:
        verdict = verdicts.decide(sweep.config, sweep.paths, met, searched.histories, sweep.metric)
        verdicts.write(verdict, sweep.paths, searched.histories, searched.shares)
        sweep_json.add(sweep.paths, finals=verdicts.in_short(verdict))
    trials_csv.write_csv(searched.trials, sweep.paths.trials_csv, verdicts.columns(verdict))
    return verdict


def _tested(
    sweep: Sweep,
    allocation: Allocation,
    actors: Sequence[ActorHandle],
    searched: _Searched,
    met: Finals | None,
    verdict: Verdict | None,
) -> Outcome | None:
    """The one look at test, for the winner; None if no trial came to an end."""
    winner = final_test.find_winner(sweep.paths, searched.histories, searched.trials, met, verdict)
    if winner is None:
        return None
    score = partial(pack_pool.final_scores, actors, allocation, sweep.config.settings)
    return final_test.final_scores(sweep.config, sweep.found, sweep.paths, winner, sweep.log, score)


def _log_packs(log: EventLog, ledgers: Sequence[Ledger], num_known: int) -> None:
    """Logs where the time of this process's packs went; those before are known."""
    for number, ledger in enumerate(ledgers):
        if number >= num_known:
            log.append("pack_ended", pack=number, **asdict(ledger))


def _log_end(
    sweep: Sweep, load: Workload, searched: _Searched, ahead: Outlook, ledgers: Sequence[Ledger]
) -> list[str]:
    """Logs what the sweep took, beside what was predicted; the same in words."""
    spent = gpu_time.account(searched.histories, ledgers, searched.shares, load, ahead.pace)
    actual = outlook.actual_fields(ahead, ledgers)
    sweep.log.append(
        "sweep_ended",
        predicted=outlook.predicted_fields(ahead),
        actual=actual,
        gpu_time=asdict(spent),
    )
    return [*gpu_time.describe(spent), *outlook.compared(ahead, actual)]
