"""--time-budget and --gpu-hours: when the search must end so that finals and test still fit."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sweeps.config import SweepConfig
from sweeps.cost.estimate import STEPS_PER_CAPTURE, CostModel, Estimate
from sweeps.cost.eta import Eta
from sweeps.durations import format_duration
from sweeps.finals.finalists import num_runs
from trainables.errors import SweepAborted
from trainables.packing.service.ledger import Ledger
from trainables.packing.sizing.throughput import Throughput

UNKNOWN_RESERVE_FRAC = 0.5
"""Of the budget that is kept for the finals while no throughput is known."""
RESERVE_MARGIN_FRAC = 0.1
"""By which what comes after the search may take longer than predicted."""
CHECK_INTERVAL_S = 1.0
"""Between two checks of the clock."""


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
        if first is None or last is None or event["kind"] in ("sweep_started", "sweep_resumed"):
            first = last = at
        wall_s += (at - last).total_seconds()
        last = at
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


def check_budget(
    config: SweepConfig, model: CostModel, throughput: Throughput, left_s: float
) -> None:
    """Refuses a budget in which not even one trial can make a report and be trained to its end.

    It makes the report beside those that begin with it.

    Raises:
        SweepAborted: the budget is too small; the remedy names one that is not.
    """
    num_live = -(-model.concurrency // model.num_packs)
    first_s = model.start_s(model.concurrency) + model.segment_s(throughput, 0, num_live)
    first_s += throughput.capture_s * model.rungs[0] / STEPS_PER_CAPTURE
    after_s = model.finals_s(throughput, num_runs(config, num_trials=1))
    after_s += model.test_s(throughput)
    missing_s = first_s + after_s - left_s
    if missing_s <= 0:
        return
    what = "finals and test" if config.finals else "the test"
    raise SweepAborted(
        f"the budget leaves {format_duration(max(0.0, left_s))}, but one trial needs about "
        f"{format_duration(first_s)} to its first report, and {what} about "
        f"{format_duration(after_s)} after it",
        f"raise {_sufficient_flag(config, model, missing_s)}, or lower --max-steps"
        + (", or leave the finals out: --no-finals" if config.finals else ""),
    )


def predict(
    config: SweepConfig,
    eta: Eta,
    throughput: Throughput | None,
    events: Sequence[dict[str, Any]],
    ledgers: Sequence[Ledger],
    elapsed_s: float,
) -> "tuple[Estimate | None, Budget | None]":
    """What is expected of this process, once its packs have loaded: an estimate if the throughput
    was measured, and the budget if there is one.

    Args:
        events: of the sweep's earlier processes.
        ledgers: of their packs.
        elapsed_s: what this process has taken so far.

    Raises:
        SweepAborted: a new sweep has a budget that not even one trial fits into.
    """
    model = eta.model
    estimate = None
    if throughput is not None:
        # Without a budget, trials' processes start while the packs load.
        head_start_s = 0.0 if config.has_budget else throughput.load_s + throughput.probe_s
        estimate = model.estimate(
            throughput,
            elapsed_s=elapsed_s,
            head_start_s=head_start_s,
            search_left=eta.search_left,
            finals_left=eta.finals_left,
        )
        eta.set_throughput(throughput, estimate.wall_s - elapsed_s)
    most_s = allowed_s(config, spent(events, ledgers, model.num_gpus), model.num_gpus)
    if most_s is None:
        return estimate, None
    has_trials = any(event["kind"] == "trial_started" for event in events)
    if throughput is not None and not has_trials:
        check_budget(config, model, throughput, most_s - elapsed_s)
    if estimate is not None:
        estimate = estimate.within(max(elapsed_s, most_s))
    return estimate, Budget(config, eta, most_s - elapsed_s)


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
        eta: Eta,
        left_s: float,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._eta = eta
        self.left_s = left_s
        self._now_s = now_s
        self._ends_s = now_s() + left_s
        self._checked_s = -float("inf")

    def search_ends_s(self, num_trials: int) -> float:
        """By the clock: when a search of so many trials shall have ended."""
        after_s = self._eta.after_search_s(num_runs(self._config, num_trials))
        if after_s is None:
            return self._ends_s - UNKNOWN_RESERVE_FRAC * self.left_s
        return self._ends_s - (1 + RESERVE_MARGIN_FRAC) * after_s

    @property
    def allows_new_trial(self) -> bool:
        """Whether a trial that began now could make a report in time."""
        num_begun = self._eta.num_begun
        reports_s = self._now_s() + self._eta.first_report_s()
        return num_begun == 0 or reports_s < self.search_ends_s(num_begun + 1)

    def late_trials(self) -> list[str]:
        """Trials of the search that run, and whose next report comes too late."""
        if self._eta.num_reported == 0:
            return []
        ends_s = self.search_ends_s(self._eta.num_reported)
        return [name for name, at_s in self._eta.next_reports_s().items() if at_s > ends_s]

    def is_check_due(self) -> bool:
        """Whether the last True is CHECK_INTERVAL_S ago."""
        now_s = self._now_s()
        is_due = now_s - self._checked_s >= CHECK_INTERVAL_S
        if is_due:
            self._checked_s = now_s
        return is_due


def _sufficient_flag(config: SweepConfig, model: CostModel, missing_s: float) -> str:
    """The flag with a value that is enough."""
    margin_s = missing_s * 1.1 + 5
    if config.time_budget_s is not None and config.gpu_hours is None:
        return f"--time-budget to {round(config.time_budget_s + margin_s)}s at least"
    if config.gpu_hours is not None and config.time_budget_s is None:
        hours = config.gpu_hours + margin_s * model.num_gpus / 3600
        return f"--gpu-hours to {hours:.3g} at least"
    return f"--time-budget and --gpu-hours by {format_duration(margin_s)} of wall time"
