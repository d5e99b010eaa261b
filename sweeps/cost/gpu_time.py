"""Where a sweep's GPU-seconds went, by trial and by overhead, and what ASHA and packs saved."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from sweeps.cost.allocation import Allocation
from sweeps.cost.estimate import CostModel
from sweeps.durations import format_duration
from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import BUDGET_REASON
from trainables.packing.service.ledger import Ledger, Share
from trainables.packing.sizing.throughput import Throughput

OVERHEAD = ("load", "probe", "admit", "decide", "test", "idle")
"""Activities of packs that no trial is charged with."""


@dataclass(frozen=True, kw_only=True)
class GpuTime:
    """GPU-seconds over all packs that ever ran for the sweep; search, finals and overhead sum to
    the packs' wall time."""

    num_packs: int
    """0 where trials trained alone: what is not training is not known then."""
    search_s: float
    """Shares of the search's trials."""
    finals_s: float
    """Shares of the runs of the finals."""
    overhead_s: dict[str, float] = field(default_factory=dict)
    """By activity; "other" is what saving, telling and failing cost."""
    full_trial_s: float | None = None
    """Mean share of a trial or a run of the finals that came to its end; None if none did."""
    saved_by_asha_s: float | None = None
    """Against training every trial that ASHA stopped to its end, at full_trial_s each."""
    alone_s: float | None = None
    """The same steps and evaluations, one trial after another, each in a pack of one, as fast as
    measured before the first trial; None if that was not measured, and on a CPU, whose cores one
    trial keeps busy. A trainer that is slower than a pack of one would take longer, so packs save
    this much at least."""

    @property
    def total_s(self) -> float:
        """GPU-seconds of the sweep."""
        return self.search_s + self.finals_s + sum(self.overhead_s.values())

    @property
    def saved_by_packing_s(self) -> float | None:
        """Against alone_s."""
        return None if self.alone_s is None else self.alone_s - self.search_s - self.finals_s


def sum_shares(ledgers: Sequence[Ledger]) -> dict[str, Share]:
    """What each trial took of all packs together."""
    shares: dict[str, Share] = {}
    for ledger in ledgers:
        for trial_id, share in ledger.shares.items():
            shares[trial_id] = shares.get(trial_id, Share()) + share
    return shares


def shares_by_trial(
    allocation: Allocation, records: Sequence[TrialRecord], ledgers: Sequence[Ledger]
) -> dict[str, Share]:
    """What each trial took of the GPUs: as the packs' ledgers tell; of trials that train alone,
    busy seconds divided by the trials that share a GPU."""
    if allocation.capacity is not None:
        return sum_shares(ledgers)
    return {
        record.trial_id: Share(
            seconds=record.reports[-1].seconds / allocation.slots_per_gpu,
            trained_tokens=record.reports[-1].tokens,
        )
        for record in records
        if record.reports
    }


def account(
    records: Sequence[TrialRecord],
    ledgers: Sequence[Ledger],
    cost_model: CostModel,
    throughput: Throughput | None,
) -> GpuTime:
    """Adds up a sweep.

    Args:
        records: trials and runs of the finals, with their shares.
        cost_model: knows the rungs and the rows of each.
        throughput: as measured before the first trial.
    """
    finals = [record for record in records if record.final_of is not None]
    search = [record for record in records if record.final_of is None]
    search_s, finals_s = (sum(map(_charged_s, some)) for some in (search, finals))
    overhead_s = {}
    if ledgers:
        for name in OVERHEAD:
            overhead_s[name] = sum(ledger.seconds.get(name, 0.0) for ledger in ledgers)
        wall_s = sum(ledger.wall_s for ledger in ledgers)
        overhead_s["other"] = wall_s - sum(overhead_s.values()) - search_s - finals_s
    completed_s = [_charged_s(record) for record in records if record.status == "completed"]
    stopped_s = [
        _charged_s(record)
        for record in search
        if record.status == "stopped" and record.reason != BUDGET_REASON
    ]
    full_trial_s = saved_by_asha_s = alone_s = None
    if completed_s:
        full_trial_s = fmean(completed_s)
        saved_by_asha_s = full_trial_s * len(stopped_s) - sum(stopped_s)
    if throughput is not None and throughput.device != "cpu":
        alone_s = sum(_alone_s(record, cost_model, throughput) for record in records)
    return GpuTime(
        num_packs=len(ledgers),
        search_s=search_s,
        finals_s=finals_s,
        overhead_s=overhead_s,
        full_trial_s=full_trial_s,
        saved_by_asha_s=saved_by_asha_s,
        alone_s=alone_s,
    )


def describe(spent: GpuTime) -> list[str]:
    """The GPU time in words, a line each."""
    if spent.total_s <= 0:
        return []
    parts = {"trials": spent.search_s, "finals": spent.finals_s, **spent.overhead_s}
    percentages = ", ".join(
        f"{name} {seconds / spent.total_s:.0%}"
        for name, seconds in parts.items()
        if seconds >= 0.005 * spent.total_s
    )
    packs = f"{spent.num_packs} packs" if spent.num_packs != 1 else "1 pack"
    where = packs if spent.num_packs else "trials only"
    lines = [f"GPU time: {format_gpu_hours(spent.total_s)} ({where}): {percentages}"]
    if spent.saved_by_asha_s is not None and spent.full_trial_s is not None:
        lines.append(
            f"saved by ASHA: {format_gpu_hours(spent.saved_by_asha_s)}, against training every "
            "stopped trial to its end at the completed ones' mean of "
            f"{format_duration(spent.full_trial_s)}"
        )
    if spent.saved_by_packing_s is not None and spent.alone_s is not None:
        saved = "saved" if spent.saved_by_packing_s >= 0 else "lost"
        lines.append(
            f"{saved} by packing: {format_gpu_hours(abs(spent.saved_by_packing_s))}, against "
            f"{format_gpu_hours(spent.alone_s)} for one trial after another in packs of one "
            "(estimated from a few steps before the first trial)"
        )
    return lines


def format_gpu_hours(seconds: float) -> str:
    """Seconds as GPU-hours."""
    return f"{seconds / 3600:.3g} GPU-hours"


def _charged_s(record: TrialRecord) -> float:
    return record.share.seconds if record.share else 0.0


def _alone_s(record: TrialRecord, cost_model: CostModel, throughput: Throughput) -> float:
    """A trial's steps and evaluations in a pack of one."""
    step = record.reports[-1].step if record.reports else 0
    rungs = zip(cost_model.rungs, cost_model.eval_rows, strict=True)
    scored_s = sum(throughput.evaluation_s(1, rows) for rung, rows in rungs if rung <= step)
    return step * throughput.step_s(1) + scored_s
