"""Where a sweep's GPU-seconds went, by trial and by overhead, and what ASHA and packs saved."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from sweeps.command_line.durations import format_duration
from sweeps.cost.allocation import Allocation
from sweeps.cost.estimate import CostModel
from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import EARLY_REASONS
from trainables.packing.service.ledger import Ledger, Share
from trainables.packing.sizing.throughput import Throughput

OVERHEAD = ("load", "probe", "admit", "decide", "test", "idle")
"""Activities of packs that no trial is charged with."""


def sum_shares_by_trial(
    allocation: Allocation, records: Sequence[TrialRecord], ledgers: Sequence[Ledger]
) -> dict[str, Share]:
    """What each trial took of the GPUs: of all packs together, as their ledgers tell; of trials
    that train alone, busy seconds divided by the trials that share a GPU."""
    shares: dict[str, Share] = {}
    if not allocation.capacities:
        for record in records:
            if record.last is not None:
                seconds = record.last.seconds / allocation.slots_per_gpu
                share = Share(seconds=seconds, trained_tokens=record.last.tokens)
                shares[record.trial_id] = share
        return shares
    for ledger in ledgers:
        for trial_id, share in ledger.shares.items():
            shares[trial_id] = shares.get(trial_id, Share()) + share
    return shares


def account_gpu_time(
    records: Sequence[TrialRecord],
    ledgers: Sequence[Ledger],
    model: CostModel,
    throughput: Throughput | None,
) -> tuple[dict[str, Any], list[str]]:
    """Adds up a sweep: what its last event says of the GPU time, and the same in words.

    GPU-seconds are those of all packs that ever ran for the sweep. search_s, finals_s and
    overhead_s sum to their wall time; where trials trained alone, only training is known.

    Args:
        records: trials and runs of the finals, with their shares.
        throughput: as measured before the first trial.
    """
    search = [record for record in records if record.final_of is None]
    search_s = sum(_list_seconds(search))
    finals_s = sum(_list_seconds(records)) - search_s
    overhead_s = {}
    if ledgers:
        for name in OVERHEAD:
            overhead_s[name] = sum(ledger.seconds.get(name, 0.0) for ledger in ledgers)
        wall_s = sum(ledger.wall_s for ledger in ledgers)
        # What saving, telling and failing cost.
        overhead_s["other"] = wall_s - sum(overhead_s.values()) - search_s - finals_s
    parts = {"trials": search_s, "finals": finals_s, **overhead_s}
    total_s = sum(parts.values())
    shares = [f"{name} {s / total_s:.0%}" for name, s in parts.items() if s > 0.005 * total_s]
    where = f"{len(ledgers)} pack{'s' * (len(ledgers) != 1)}" if ledgers else "trials only"
    lines = [f"GPU time: {_format_hours(total_s)} ({where}): {', '.join(shares)}"]
    fields: dict[str, Any] = {
        "num_packs": len(ledgers),
        "search_s": search_s,
        "finals_s": finals_s,
        "overhead_s": overhead_s,
        "full_trial_s": None,
        "saved_by_asha_s": None,
        "alone_s": None,
    }
    if completed_s := _list_seconds(record for record in records if record.status == "completed"):
        asha = (r for r in search if r.status == "stopped" and r.reason not in EARLY_REASONS)
        stopped_s = _list_seconds(asha)
        full_trial_s = fmean(completed_s)
        saved_s = full_trial_s * len(stopped_s) - sum(stopped_s)
        fields |= {"full_trial_s": full_trial_s, "saved_by_asha_s": saved_s}
        lines.append(
            f"saved by ASHA: {_format_hours(saved_s)}, against training every stopped trial to its "
            f"end at the completed ones' mean of {format_duration(full_trial_s)}"
        )
    if throughput is not None and throughput.device != "cpu":  # whose cores one trial keeps busy
        # A trainer that is slower than a pack of one would take longer: packs save this at least.
        alone_s = sum(record.num_steps for record in records) * throughput.predict_step_s(1)
        rungs = list(zip(model.config.rungs, model.eval_rows, strict=True))
        reached = [rows for one in records for rung, rows in rungs if rung <= one.num_steps]
        alone_s += sum(throughput.predict_eval_s(1, rows) for rows in reached)
        saved_s = alone_s - search_s - finals_s
        fields["alone_s"] = alone_s
        lines.append(
            f"{'saved' if saved_s >= 0 else 'lost'} by packing: {_format_hours(abs(saved_s))}, "
            f"against {_format_hours(alone_s)} for one trial after another in packs of one "
            "(estimated from a few steps before the first trial)"
        )
    return fields, lines if total_s > 0 else []


def _list_seconds(records: Iterable[TrialRecord]) -> list[float]:
    return [record.share.seconds if record.share else 0.0 for record in records]


def _format_hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g} GPU-hours"
