"""--time-budget and --gpu-hours: what earlier processes have left of them, and who is refused."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sweeps.command_line.durations import format_duration
from sweeps.cost.estimate import STEPS_PER_CAPTURE, CostModel
from sweeps.finals.finalists import num_runs
from trainables.errors import SweepAborted
from trainables.packing.service.ledger import Ledger
from trainables.packing.sizing.throughput import Throughput


def spent_s(
    events: Iterable[dict[str, Any]], ledgers: Sequence[Ledger], num_gpus: float
) -> tuple[float, float]:
    """Wall seconds and GPU-seconds that a sweep has used up before this process took it over.

    A process that was killed counts up to its last event. GPU-seconds are those for which packs
    held their GPUs; where there were no packs, wall time times GPUs.
    """
    wall_s = 0.0
    last = None
    for event in events:
        at = datetime.fromisoformat(event["time"])
        if last is not None and event["kind"] not in ("sweep_started", "sweep_resumed"):
            wall_s += (at - last).total_seconds()
        last = at
    gpu_s = sum(ledger.wall_s for ledger in ledgers) if ledgers else wall_s * num_gpus
    return wall_s, gpu_s


def find_limit_s(
    model: CostModel, events: Iterable[dict[str, Any]], ledgers: Sequence[Ledger]
) -> float | None:
    """Wall seconds that this process may take, whichever budget is tighter; None without one."""
    config = model.config
    wall_s, gpu_s = spent_s(events, ledgers, model.num_gpus)
    limits = []
    if config.time_budget_s is not None:
        limits.append(config.time_budget_s - wall_s)
    if config.gpu_hours is not None:
        limits.append((config.gpu_hours * 3600 - gpu_s) / model.num_gpus)
    return min(limits, default=None)


def check_budget(model: CostModel, throughput: Throughput, left_s: float) -> None:
    """Refuses a budget in which not even one trial can make a report, beside those that begin with
    it, and be trained to its end; the remedy names one that is large enough."""
    config, concurrency = model.config, model.allocation.concurrency
    first_s = model.start_s(concurrency)
    first_s += model.segment_s(throughput, 0, -(-concurrency // model.num_packs))
    first_s += throughput.capture_s * config.rungs[0] / STEPS_PER_CAPTURE
    after_s = model.finals_s(throughput, num_runs(config, num_trials=1))
    after_s += model.test_s(throughput)
    missing_s = first_s + after_s - left_s
    if missing_s <= 0:
        return
    margin_s = missing_s * 1.1 + 5
    enough = []
    if config.time_budget_s is not None:
        enough.append(f"--time-budget to {round(config.time_budget_s + margin_s)}s")
    if config.gpu_hours is not None:
        hours = config.gpu_hours + margin_s * model.num_gpus / 3600
        enough.append(f"--gpu-hours to {hours:.3g}")
    what = "finals and test" if config.finals else "the test"
    raise SweepAborted(
        f"the budget leaves {format_duration(max(0.0, left_s))}, but one trial needs about "
        f"{format_duration(first_s)} to its first report, and {what} about "
        f"{format_duration(after_s)} after it",
        f"raise {' and '.join(enough)} at least, or lower --max-steps"
        + (", or leave the finals out: --no-finals" if config.finals else ""),
    )
