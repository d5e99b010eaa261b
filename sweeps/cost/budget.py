"""--time-budget and --gpu-hours: when the search must end so that finals and test still fit."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sweeps.config import SweepConfig
from sweeps.cost.durations import spelled
from sweeps.cost.forecast import Forecast
from sweeps.cost.simulation import State, simulate
from sweeps.cost.workload import Workload, segment_s, start_s, test_s
from sweeps.finals.finalists import num_runs
from trainables.errors import SweepAborted
from trainables.packing.service.ledger import Ledger
from trainables.packing.sizing.pace import Speed

UNKNOWN_RESERVE_FRAC = 0.5
"""Of the budget that is kept for the finals while no pace is known."""
RESERVE_MARGIN_FRAC = 0.1
"""By which what comes after the search may take longer than predicted."""
LOOK_S = 1.0
"""Between two looks at the clock."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What earlier processes of a sweep have used up."""

    wall_s: float = 0.0
    gpu_s: float = 0.0


def spent(events: Iterable[dict[str, Any]], ledgers: Sequence[Ledger], num_gpus: float) -> Spent:
    """What a sweep has used up before this process took it over.

    A process that was killed counts up to its last event. GPU-seconds are those for which packs
    held their GPUs; where there were no packs, wall time times GPUs.
    """
    wall_s = 0.0
    first = last = None
    for event in events:
        at = datetime.fromisoformat(event["time"])
        if event["kind"] in ("sweep_started", "sweep_resumed"):
            wall_s += (last - first).total_seconds() if first and last else 0.0
            first = at
        last = at
    wall_s += (last - first).total_seconds() if first and last else 0.0
    gpu_s = sum(ledger.wall_s for ledger in ledgers) if ledgers else wall_s * num_gpus
    return Spent(wall_s=wall_s, gpu_s=gpu_s)


def allowed_s(config: SweepConfig, used: Spent, num_gpus: float) -> float | None:
    """Wall seconds that this process may take; None without a budget."""
    limits = []
    if config.time_budget_s is not None:
        limits.append(config.time_budget_s - used.wall_s)
    if config.gpu_hours is not None:
        limits.append((config.gpu_hours * 3600 - used.gpu_s) / num_gpus)
    return min(limits, default=None)


def check_budget(config: SweepConfig, load: Workload, speed: Speed, left_s: float) -> None:
    """Refuses a budget in which not even one trial can make a report and be trained to its end.

    It makes the report beside those that begin with it.

    Raises:
        SweepAborted: the budget is too small; the remedy names one that is not.
    """
    num_live = -(-load.concurrency // load.num_packs)
    first_s = start_s(load, load.concurrency) + segment_s(load, speed, 0, num_live)
    first_s += speed.recording_s(0, load.rungs[0])
    after_s = _after_s(load, speed, num_runs(config, num_trials=1))
    if first_s + after_s <= left_s:
        return
    missing_s = first_s + after_s - left_s
    what = "finals and test" if config.finals else "the test"
    raise SweepAborted(
        f"the budget leaves {spelled(max(0.0, left_s))}, but one trial needs about "
        f"{spelled(first_s)} to its first report, and {what} about {spelled(after_s)} after it",
        f"raise {_raised(config, load, missing_s)}, or lower --max-steps"
        + (", or leave the finals out: --no-finals" if config.finals else ""),
    )


class Budget:
    """Says when no trial may begin any more, and which of those that run come too late.

    The search ends early enough for the finals of the trials that there are by then. A trial is
    late if its next report would come after that; nothing of it would be seen. The first trial may
    always begin, and none is late before one has reported: a sweep without a report has no result.
    Finals that have begun run to their end.

    Args:
        left_s: wall seconds from now until the sweep shall have ended.
    """

    def __init__(
        self,
        config: SweepConfig,
        load: Workload,
        left_s: float,
        forecast: Forecast,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._load = load
        self.left_s = left_s
        self._forecast = forecast
        self._now_s = now_s
        self._ends_s = now_s() + left_s
        self._looked_s = -float("inf")

    def search_ends_s(self, num_trials: int) -> float:
        """By the clock: when a search of so many trials shall have ended."""
        speed = self._forecast.speed
        if speed is None:
            return self._ends_s - UNKNOWN_RESERVE_FRAC * self.left_s
        runs = num_runs(self._config, num_trials)
        return self._ends_s - (1 + RESERVE_MARGIN_FRAC) * _after_s(self._load, speed, runs)

    @property
    def allows_new_trial(self) -> bool:
        """Whether a trial that began now could make a report in time."""
        num_begun = self._forecast.num_begun
        needed_s = self._forecast.first_report_s() or 0.0
        return not num_begun or self._now_s() + needed_s < self.search_ends_s(num_begun + 1)

    def late_trials(self) -> list[str]:
        """Trials of the search that run, and whose next report comes too late."""
        if self._forecast.num_reported == 0:
            return []
        ends_s = self.search_ends_s(self._forecast.num_reported)
        return [name for name, at_s in self._forecast.arrivals_s().items() if at_s > ends_s]

    def look(self) -> bool:
        """Whether it is time to look at the clock again."""
        now_s = self._now_s()
        is_due = now_s - self._looked_s >= LOOK_S
        if is_due:
            self._looked_s = now_s
        return is_due


def _after_s(load: Workload, speed: Speed, num_final_runs: int) -> float:
    """Seconds of the finals and the test."""
    state = State(num_begun=load.num_trials)
    alone = replace(load, num_final_runs=num_final_runs)
    finals_s = simulate(alone, speed, 0, state).finals_s if num_final_runs else 0.0
    return finals_s + test_s(load, speed)


def _raised(config: SweepConfig, load: Workload, missing_s: float) -> str:
    """The flag with a value that is enough."""
    margin_s = missing_s * 1.1 + 5
    if config.time_budget_s is not None and config.gpu_hours is None:
        return f"--time-budget to {round(config.time_budget_s + margin_s)}s at least"
    if config.gpu_hours is not None and config.time_budget_s is None:
        hours = config.gpu_hours + margin_s * load.num_gpus / 3600
        return f"--gpu-hours to {hours:.3g} at least"
    return f"--time-budget and --gpu-hours by {spelled(margin_s)} of wall time"
