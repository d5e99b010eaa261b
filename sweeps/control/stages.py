"""One sweep from its config to its best adapter: connect -> tune -> results -> test -> best/."""

import math
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial

import optuna
import ray

from cluster.connect import Cluster, connect
from cluster.find import ClusterError
from sweeps.checks import sweep_json
from sweeps.checks.nodes import check_nodes, find_late_fault, find_usable
from sweeps.checks.preflight import Preflight
from sweeps.cli import EXIT_DONE, EXIT_NO_TRIAL
from sweeps.command_line.durations import format_duration
from sweeps.config import SweepConfig
from sweeps.control import pack_pool
from sweeps.control.controller import TrialController
from sweeps.control.gpu_places import GpuPlaces
from sweeps.control.interruption import handle_signals_as_ctrl_c, watch_head
from sweeps.control.pack_pool import PackPool
from sweeps.control.packed_final_test import run_final_test
from sweeps.control.resolve_request import is_any_possible, keep_begun
from sweeps.control.startup_gate import StartupGate
from sweeps.control.steering import Steering
from sweeps.cost import gpu_time, plan
from sweeps.cost.allocation import Allocation, allocate_slots, describe_place
from sweeps.cost.estimate import CostModel, make_probe_params
from sweeps.cost.eta import Eta
from sweeps.cost.hardware import Hardware
from sweeps.finals import final_test
from sweeps.finals import verdict as verdicts
from sweeps.finals.baselines import add_baselines
from sweeps.finals.bertscore import add_bertscore
from sweeps.finals.finalists import find_last_finals, is_over
from sweeps.publish import summary
from sweeps.publish.best_folder import list_exported, write_best
from sweeps.records.events import EventLog, Kind, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.request_file import RequestReader
from sweeps.records.run import read_record
from sweeps.records.run_lock import keep_heartbeat
from sweeps.records.trial_record import TrialRecord, replay, replay_all
from sweeps.records.trials_csv import write_csv
from sweeps.search.storage import open_storage
from sweeps.search.study import Search, choose_num_startup_trials
from sweeps.tracking.progress import ProgressTable
from sweeps.tracking.run_status import FACTS
from sweeps.tracking.run_values import TrackedSweep
from sweeps.tracking.tracker_process import run_trackers, start_trackers
from trainables.checkpoint import prune_to_adapter
from trainables.checkpoint_storage import prune
from trainables.config import Metric
from trainables.errors import SweepAborted
from trainables.packing.service.ledger import Ledger, read_ledgers
from trainables.packing.sizing.throughput import Throughput
from trainables.process import count_cores, disable_gc


def run_stages(
    config: SweepConfig,
    preflight: Preflight,
    paths: RunPaths,
    *,
    is_resumed: bool,
    resume_with: str,
) -> int:
    """Runs the trials and finals that are left, tests the winner, and writes the run's files.

    Args:
        resume_with: how the sweep goes on, in words to paste.

    Returns:
        The process's exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGUSR1; what was reported is kept.
        SweepAborted: the disk or the cluster is of no more use.
    """
    began_s = time.monotonic()
    metric, splits = preflight.task.metric, preflight.splits
    log = EventLog(paths.events)
    events = read_events(paths.events)  # what earlier processes of this sweep have done
    earlier = replay(events)
    earlier_ledgers = read_ledgers(paths.checkpoints, config.storage)
    reader = RequestReader(paths, events)
    pending = reader.read_new()
    num_trials, note = keep_begun(config.num_trials, events)
    config = replace(config, num_trials=num_trials)
    if note:
        print(f"--num-trials {note}", flush=True)
    kind: Kind = "sweep_resumed" if is_resumed else "sweep_started"
    log.append(kind, name=config.name, num_trials=config.num_trials)
    names = (*config.trackers, "optuna")
    with (
        start_trackers(paths, names) as trackers,
        _connect_cluster() as cluster,
        ExitStack() as at_end,
    ):
        handle_signals_as_ctrl_c()
        head = ray.get_runtime_context().gcs_address
        at_end.enter_context(watch_head(head, log, resume_with))
        nodes = [] if cluster.is_local else check_nodes(config, paths)
        hardware = Hardware.from_cluster(cluster, nodes)
        allocation = allocate_slots(config, preflight.model, hardware)
        places = GpuPlaces(
            has_gpu=allocation.num_gpus > 0,
            find_fault=None
            if cluster.is_local
            else partial(find_late_fault, config, paths, log, allocation.choose_pack),
            is_usable=find_usable(nodes, allocation.choose_pack),
        )
        with pack_pool.run_packs(
            allocation,
            config.settings,
            paths.checkpoints,
            has_trials=not is_over(config, events, metric)
            or is_any_possible(pending, config, events),
            places=places,
            log=log,
            probed=make_probe_params(config, preflight.model),
        ) as pool:
            # The packs load meanwhile.
            began = read_record(paths)  # its name stays that of the study, and of the group in W&B
            search = open_search(
                config, metric, paths, began["name"], earlier, is_resumed=is_resumed
            )
            model = CostModel(config, allocation, len(splits.validation), len(splits.test))
            eta = Eta(model, replay_all(events))
            place = describe_place(cluster, allocation)
            slots = [capacity.num_slots for capacity in allocation.capacities]
            left_s = eta.compute_left_s
            progress = ProgressTable(
                metric, config.num_trials, config.max_steps, earlier, left_s, place, slots
            )
            controller = TrialController(config, paths, metric, search, log, (eta, progress))
            facts = {name: getattr(allocation, name) for name in FACTS}
            at_end.enter_context(keep_heartbeat(paths, left_s, facts))
            tracked = TrackedSweep(
                config=replace(config, track=",".join(names)),
                wandb_mode=preflight.wandb_mode,
                paths=paths,
                metric=metric,
                name=began["name"],
                sweep_id=began["sweep_id"],
            )
            at_end.enter_context(run_trackers(trackers, tracked))  # ends when no GPU waits for it

            def tell_estimate(throughput: Throughput | None) -> None:
                eta.predict(throughput, events, earlier_ledgers, time.monotonic() - began_s)
                if eta.estimate is not None:
                    print(*eta.estimate.describe(), sep="\n", flush=True)
                    log.append("predicted", **asdict(eta.estimate))
                    sweep_json.add(paths, predicted=asdict(eta.estimate))
                if eta.budget_s is not None:
                    left = format_duration(max(0.0, eta.budget_s))
                    print(f"budget: {left} are left", flush=True)

            # The search and the finals' runs, from where earlier processes left them.
            try:
                with disable_gc():
                    from sweeps.control import ray_tuner  # the packs have not waited for Ray Tune

                steering = Steering(controller, paths, log, events, reader, pending)
                gate = StartupGate(controller, pool, tell_estimate)
                if config.time_budget is not None or config.gpu_hours is not None:
                    gate.wait()  # it may leave no room for a trial, and then none is to start
                with progress:
                    controller.resume(earlier, steering.resume)
                    gate.close()
                    ray_tuner.run_trials(
                        controller,
                        allocation,
                        pool,
                        gate,
                        eta,
                        steering,
                        folder=paths.folder,
                        max_failures=config.max_failures,
                    )
                    gate.wait()
            finally:
                records = _collect_records(config, paths, allocation, pool)
                trials = [record for record in records if record.final_of is None]
                write_csv(trials, metric, paths.trials_csv)
            config = controller.config  # users may have asked for more or fewer trials
            sweep_json.add(paths, config=sweep_json.dump_config(config))
            # The verdict on validation.
            finals = find_last_finals(read_events(paths.events)) if config.finals else None
            verdict = None
            if finals is not None:
                verdict = verdicts.decide_winner(
                    config, paths, finals, records, metric, splits.scoring
                )
                verdicts.write(verdict, paths)
                sweep_json.add(paths, finals=verdicts.summarize(verdict))
                write_csv(trials, metric, paths.trials_csv, verdicts.make_columns(verdict))
            winner = final_test.find_winner(paths, records, metric, finals, verdict, config.storage)
            if winner is None:
                print(summary.describe_no_best(trials), file=sys.stderr)
                log.append("sweep_interrupted", reason="no trial completed")
                return EXIT_NO_TRIAL
            # The one look at test.
            score = partial(run_final_test, pool, allocation, config.settings)
            outcome = final_test.score_on_test(config, preflight, paths, winner, log, score)
            ledgers = pack_pool.collect_ledgers(pool, paths.checkpoints, config.storage)
            own_ledgers = ledgers[len(earlier_ledgers) :]  # of the packs of this process
            for ledger in own_ledgers:
                log.append("pack_ended", pack=ledger.pack_id, **asdict(ledger))
        # The GPUs are free now.
        outcome = add_bertscore(config, splits, paths, log, outcome)
        outcome = add_baselines(config, splits, paths, metric, outcome)
        sweep_json.add(paths, **outcome.baseline_facts)
        if verdict is not None:
            verdicts.write(verdict, paths, outcome.baseline_facts)
        confusion = write_best(config, preflight, paths, trials, outcome, verdict)
        files = [path.name for path in list_exported(paths.best)]
        fields = summary.make_summary_fields(outcome, verdict, confusion)
        log.append("summary", **fields, files=files)
    cost = _log_end(eta, log, records, ledgers, own_ledgers, time.monotonic() - began_s)
    about = plan.describe_added_rows(splits)
    print(
        summary.describe(
            config, paths, trials, metric, outcome, ledgers, verdict, confusion, about
        ),
        *cost,
        sep="\n",
    )
    return EXIT_DONE


def open_search(
    config: SweepConfig,
    metric: Metric,
    paths: RunPaths,
    name: str,
    earlier: Sequence[TrialRecord],
    *,
    is_resumed: bool,
) -> Search:
    """Makes the study's database, which a tracker writes, and the search from what the log has.

    Args:
        name: of the study.
        earlier: trials of the sweep's earlier processes.
    """
    url = config.study_storage or paths.study_url
    open_storage(url, name, metric, is_resumed=is_resumed)
    study = optuna.create_study(direction=metric.direction)
    num_startup = choose_num_startup_trials(config.num_trials)
    search = Search(study, config.space, config.seed, num_startup, config.sampler)
    search.restore(earlier, metric, plan.list_start_points(config)[: config.num_trials])
    return search


def _connect_cluster() -> Cluster:
    if ray.is_initialized():  # by whoever calls us in their own process
        raise SweepAborted(
            "this process is connected to Ray already, and a sweep connects by itself",
            "call ray.shutdown() first; a cluster that RAY_ADDRESS names is joined",
        )
    try:
        return connect(num_local_cpus=max(count_cores(), 2))
    except ClusterError as refused:
        raise SweepAborted(refused.error, refused.fix) from refused


def _collect_records(
    config: SweepConfig, paths: RunPaths, allocation: Allocation, pool: PackPool
) -> list[TrialRecord]:
    """All trials and runs of the finals, each with its share of the GPUs' time.

    Optimizer states of ended trials serve nobody from here on, so they are deleted.
    """
    records = replay_all(read_events(paths.events))
    ended = [record.trial_id for record in records if record.status is not None]
    for trial_id in ended:
        prune_to_adapter(paths.get_trial_folder(trial_id))
    if config.storage is not None:
        prune(f"{config.storage}/checkpoints", ended, have_ended=True)
    ledgers = pack_pool.collect_ledgers(pool, paths.checkpoints, config.storage)
    shares = gpu_time.sum_shares_by_trial(allocation, records, ledgers)
    return [replace(record, share=shares.get(record.trial_id)) for record in records]


def _log_end(
    eta: Eta,
    log: EventLog,
    records: Sequence[TrialRecord],
    ledgers: Sequence[Ledger],
    own_ledgers: Sequence[Ledger],
    wall_s: float,
) -> list[str]:
    """Logs what the sweep took, beside what was predicted; the same in words.

    GPU-hours are those for which the packs of this process (own_ledgers) held their GPUs, each from
    its start on; where trials trained alone, all GPUs count for all of wall_s.
    """
    estimate, model = eta.estimate, eta.model
    throughput = estimate.throughput if estimate else None
    fields, lines = gpu_time.account_gpu_time(records, ledgers, model, throughput)
    held_s = sum(ledger.wall_s for ledger in own_ledgers) or wall_s * model.num_gpus
    actual = {
        "wall_s": wall_s,
        "gpu_hours": held_s / 3600,
        "memory_gib": max((ledger.peak_gib for ledger in ledgers), default=math.nan),
    }
    predicted = asdict(estimate) if estimate else {}
    log.append("sweep_ended", predicted=predicted, actual=actual, gpu_time=fields)
    return [*lines, estimate.compare(actual)] if estimate else lines
