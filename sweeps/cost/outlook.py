"""The outlook of a sweep: a pace is measured, an estimate told, and a budget made of both."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from sweeps.config import SweepConfig
from sweeps.cost import budget as budgets
from sweeps.cost.allocation import Allocation
from sweeps.cost.budget import Budget
from sweeps.cost.durations import spelled
from sweeps.cost.estimate import Estimate, estimate
from sweeps.cost.forecast import Forecast
from sweeps.cost.workload import Workload
from trainables.config import Hyperparameters
from trainables.packing.service.ledger import Ledger
from trainables.packing.sizing.pace import Pace


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is expected of a process of a sweep."""

    began_s: float
    """time.monotonic() when it began with the sweep."""
    pace: Pace | None
    """None if it was not measured."""
    predicted: Estimate | None
    """None without a pace."""
    memory_gib: float
    """Predicted peak of a GPU; 0 without one."""
    budget: Budget | None
    """None without a limit."""


def probed(config: SweepConfig) -> list[Hyperparameters]:
    """What the packs' pace is measured with: ranks and dropouts as the space has them, in turn."""
    if not config.estimate:
        return []
    space = config.space
    return [
        Hyperparameters(
            lora_rank=rank,
            lora_alpha=float(rank),
            lora_dropout=dropout,
            learning_rate=space.learning_rates[0],
        )
        for dropout, rank in product(space.lora_dropouts, space.lora_ranks)
    ]


def look_ahead(
    config: SweepConfig,
    allocation: Allocation,
    load: Workload,
    forecast: Forecast,
    pace: Pace | None,
    events: Sequence[dict[str, Any]],
    ledgers: Sequence[Ledger],
    began_s: float,
) -> Outlook:
    """What is to be expected, once the packs have loaded.

    Args:
        events: of the sweep's earlier processes.
        ledgers: of their packs.
        began_s: time.monotonic() when this process began with the sweep.

    Raises:
        SweepAborted: a new sweep has a budget that not even one trial fits into.
    """
    elapsed_s = time.monotonic() - began_s
    predicted = None
    if pace is not None:
        forecast.measured(pace)
        # Without a budget, trials' processes start while the packs load.
        head_start_s = 0.0 if config.has_budget else pace.load_s + pace.probe_s
        state = replace(forecast.state(pace), head_start_s=head_start_s)
        predicted = estimate(load, pace, state, elapsed_s=elapsed_s)
    used = budgets.spent(events, ledgers, load.num_gpus)
    allowed_s = budgets.allowed_s(config, used, load.num_gpus)
    budget = None
    if allowed_s is not None:
        left_s = allowed_s - elapsed_s
        if pace is not None and not any(one["kind"] == "trial_started" for one in events):
            budgets.check_budget(config, load, pace, left_s)
        budget = Budget(config, load, left_s, forecast)
        predicted = _within(predicted, max(elapsed_s, allowed_s))
    return Outlook(
        began_s=began_s,
        pace=pace,
        predicted=predicted,
        memory_gib=allocation.capacity.predicted_gib if allocation.capacity else 0.0,
        budget=budget,
    )


def predicted_fields(outlook: Outlook) -> dict[str, Any]:
    """The fields of a "predicted" event, also in sweep.json; {} where nothing is."""
    if outlook.predicted is None or outlook.pace is None:
        return {}
    pace = asdict(outlook.pace)
    for name in ("steps_s", "recordings"):  # JSON has no numbers for keys
        pace[name] = {str(number): value for number, value in pace[name].items()}
    return asdict(outlook.predicted) | {
        "gpu_hours": outlook.predicted.gpu_hours,
        "memory_gib": outlook.memory_gib,
        "pace": pace,
    }


def actual_fields(outlook: Outlook, ledgers: Sequence[Ledger]) -> dict[str, Any]:
    """The same of what has come true, for the end of the process."""
    wall_s = time.monotonic() - outlook.began_s
    num_gpus = outlook.predicted.num_gpus if outlook.predicted else 1.0
    return {
        "wall_s": wall_s,
        "gpu_hours": wall_s * num_gpus / 3600,
        "memory_gib": max((ledger.peak_gib for ledger in ledgers), default=math.nan),
    }


def describe(outlook: Outlook) -> list[str]:
    """The estimate in words, a line each, before the first trial."""
    lines = []
    predicted, pace = outlook.predicted, outlook.pace
    if predicted is not None and pace is not None:
        lines = [
            f"estimate: about {spelled(predicted.wall_s)} ({band(predicted)}), "
            f"{predicted.gpu_hours:.2g} GPU-hours; {spelled(predicted.finals_s)} of it after the "
            "search",
            f"pace: a step takes {_steps(pace)}; scoring 100 rows of {pace.num_slots} trials "
            f"takes {spelled_short(pace.evaluation_s(pace.num_slots, 100))} "
            f"(loaded in {spelled(pace.load_s)}, measured in {spelled_short(pace.probe_s)})",
        ]
        if outlook.memory_gib:
            lines.append(
                f"memory: {outlook.memory_gib:.1f} GiB a GPU at most, {pace.num_slots} slots"
            )
    if outlook.budget is not None:
        lines.append(f"budget: {spelled(max(0.0, outlook.budget.left_s))} are left")
    return lines


def compared(outlook: Outlook, actual: dict[str, Any]) -> list[str]:
    """What was predicted beside what came true, for the end."""
    predicted = outlook.predicted
    if predicted is None:
        return []
    off = actual["wall_s"] / predicted.wall_s - 1
    line = f"time: {spelled(actual['wall_s'])}, predicted {spelled(predicted.wall_s)} "
    line += f"({band(predicted)}), {off:+.0%}; {actual['gpu_hours']:.2g} GPU-hours, predicted "
    line += f"{predicted.gpu_hours:.2g}"
    if outlook.memory_gib and math.isfinite(actual["memory_gib"]):
        line += f"; peak {actual['memory_gib']:.1f} GiB of {outlook.memory_gib:.1f} planned at most"
    return [line]


def band(predicted: Estimate) -> str:
    """E.g. 9 min to 14 min."""
    return f"{spelled(predicted.wall_low_s)} to {spelled(predicted.wall_high_s)}"


def spelled_short(seconds: float) -> str:
    """E.g. 35 ms or 1.4 s."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _within(predicted: Estimate | None, most_s: float) -> Estimate | None:
    """The estimate of a sweep that its budget ends after so many seconds at most."""
    if predicted is None:
        return None
    return replace(
        predicted,
        wall_s=min(predicted.wall_s, most_s),
        wall_low_s=min(predicted.wall_low_s, most_s),
        wall_high_s=min(predicted.wall_high_s, most_s),
    )


def _steps(pace: Pace) -> str:
    return ", ".join(
        f"{spelled_short(seconds)} with {live} {'trial' if live == 1 else 'trials'}"
        for live, seconds in sorted(pace.steps_s.items())
    )
