"""A sweep that runs: the time left by what was observed, and who still fits into its budget:
--time-budget and --gpu-hours, less what earlier processes have used."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sweeps.command_line.durations import format_duration
from sweeps.cost.estimate import STEPS_PER_CAPTURE, CostModel, Estimate
from sweeps.finals.finalists import count_final_runs
from sweeps.records.schemas import Status
from sweeps.records.trial_record import TrialRecord
from trainables.config import TrialConfig, TrialReport
from trainables.errors import SweepAborted
from trainables.packing.service.ledger import Ledger
from trainables.packing.sizing.throughput import Throughput

NUM_SEGMENTS = 64
"""Latest trainings from rung to rung, which tell how far the measured throughput is off."""
SCALES = (0.2, 5.0)
"""How far the throughput of a few steps may be corrected."""
UNKNOWN_RESERVE_FRAC = 0.5
"""Share of the budget that is kept for the finals while no throughput is known."""
RESERVE_MARGIN_FRAC = 0.1
"""By which what comes after the search may take longer than predicted."""
UNMEASURED = Throughput(device="", num_slots=1, step_fixed_s=1.0)
"""Counts a step as a second, until reports tell what a step takes, its evaluation included."""


@dataclass(kw_only=True)
class _Progress:
    """How far a trial is."""

    step: int = 0
    """The step of its last report."""
    seconds: float = 0.0
    """Busy seconds up to it."""
    reported_s: float = 0.0
    """When it was made, or when the trial began or went on, by the clock."""
    has_ended: bool = False


class Eta:
    """A Listener that knows how far a sweep is, what the rest will take, and when it must end.

    One thread tells it; any may ask for left_s.

    Args:
        histories: trials and runs of the finals of a sweep that is being resumed.
        now_s: the clock.
    """

    def __init__(
        self,
        model: CostModel,
        histories: Sequence[TrialRecord] = (),
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.estimate: Estimate | None = None
        """What was predicted; None before, or if no throughput was measured."""
        self.budget_s: float | None = None
        """Wall seconds that the budget left at the prediction; None before, or without a budget."""
        self._budget_ends_s = math.inf
        self._ends_s: float | None = None
        """When the sweep is expected to end, by the clock."""
        self._now_s = now_s
        self._throughput = UNMEASURED
        self._trials = self._follow(r for r in histories if r.final_of is None)
        self._finals = self._follow(r for r in histories if r.final_of is not None)
        self._runs = self._trials
        """Those of the present phase."""
        self._running: set[str] = set()
        """Trials, or runs of the finals, that train."""
        self._segments: deque[tuple[float, float]] = deque(maxlen=NUM_SEGMENTS)
        """Seconds that were taken and expected."""

    def predict(
        self,
        throughput: Throughput | None,
        events: Sequence[dict[str, Any]] = (),
        ledgers: Sequence[Ledger] = (),
        elapsed_s: float = 0.0,
    ) -> None:
        """Sets estimate and budget_s once the packs have loaded.

        Args:
            throughput: as they measured it; without it, reports alone tell the time left.
            events: of the sweep's earlier processes.
            ledgers: of their packs.
            elapsed_s: what this process has taken so far.

        Raises:
            SweepAborted: a new sweep has a budget that not even one trial fits into.
        """
        limit_s = find_limit_s(self.model, events, ledgers)
        if limit_s is not None:
            self.budget_s = limit_s - elapsed_s
            self._budget_ends_s = self._now_s() + self.budget_s
        if throughput is None:
            return
        if self.budget_s is not None and not self._trials:
            check_budget(self.model, throughput, self.budget_s)
        search_left, finals_left = self.compute_left_shares()
        self._throughput = throughput
        self.estimate = self.model.estimate(
            throughput,
            elapsed_s=elapsed_s,
            # Without a budget, trials' processes start while the packs load.
            head_start_s=throughput.load_s + throughput.probe_s if limit_s is None else 0.0,
            search_left=search_left,
            finals_left=finals_left,
            limit_s=math.inf if limit_s is None else max(elapsed_s, limit_s),
        )
        self._ends_s = self._now_s() + self.estimate.wall_s - elapsed_s

    def on_trial_start(self, config: TrialConfig, number: int) -> None:
        """A trial trains from now on."""
        trial = self._runs.setdefault(config.trial_id, _Progress())
        trial.has_ended, trial.reported_s = False, self._now_s()
        self._running.add(config.trial_id)

    def on_report(self, config: TrialConfig, report: TrialReport) -> None:
        """A trial stands at a rung: the time that it took tells that of the others."""
        trial = self._runs[config.trial_id]
        self._segments.append((report.seconds - trial.seconds, self._predict_segment_s(trial.step)))
        trial.step, trial.seconds, trial.reported_s = report.step, report.seconds, self._now_s()
        self._update()

    def on_trial_end(self, config: TrialConfig, status: Status, reason: str) -> None:
        """A trial trains no more."""
        self._runs[config.trial_id].has_ended = True
        self._running.discard(config.trial_id)
        self._update()

    def on_finals_start(self, runs: Sequence[TrialRecord]) -> None:
        """From now on only these runs count."""
        self._runs = self._finals = self._follow(runs)
        self._update()

    def on_request(self, request: str, num_trials: int) -> None:
        """The search takes longer, or ends earlier."""
        self.model.config = replace(self.model.config, num_trials=num_trials)
        self._update()

    def compute_left_s(self) -> float | None:
        """Seconds until the sweep has ended, counted down between two reports; None while nothing
        is known."""
        ends_s = self._ends_s
        return None if ends_s is None else max(0.0, ends_s - self._now_s())

    def find_search_deadline_s(self, num_trials: int) -> float:
        """By the clock: when a search of so many trials must end, so that their finals and the test
        fit into the budget."""
        if self._scale is None:
            return self._budget_ends_s - UNKNOWN_RESERVE_FRAC * (self.budget_s or 0.0)
        num_final_runs = count_final_runs(self.model.config, num_trials)
        after_s = self._scale * self.model.predict_finals_s(self._throughput, num_final_runs)
        after_s += self.model.predict_test_s(self._throughput)
        return self._budget_ends_s - (1 + RESERVE_MARGIN_FRAC) * after_s

    def allows_new_trial(self) -> bool:
        """Whether a trial that began now could make a report in time; the first may always begin,
        because a sweep without a report has no result."""
        reports_s = self._now_s() + (self._scale or 0.0) * self._predict_segment_s(0)
        return not self._trials or reports_s < self.find_search_deadline_s(len(self._trials) + 1)

    def find_late_trials(self) -> list[str]:
        """Trials of the search that run, and whose next report comes too late: nothing of it would
        be seen. None is late before one has reported."""
        num_reported = sum(trial.step > 0 for trial in self._trials.values())
        scale, now_s = self._scale, self._now_s()
        if scale is None or num_reported == 0:
            return []
        late_s = self.find_search_deadline_s(num_reported)
        running = {name: trial for name, trial in self._trials.items() if name in self._running}
        steps = {trial.step for trial in running.values()}
        left_s = {step: scale * self._predict_segment_s(step) for step in steps}
        return [
            name
            for name, trial in running.items()
            if max(now_s, trial.reported_s + left_s[trial.step]) > late_s
        ]

    def compute_left_shares(self) -> tuple[float, float]:
        """Shares of the search's expected steps and of its finals' steps that are still to be
        made; a search that goes on has other finals than those that are known."""
        config, predict_steps = self.model.config, self.model.predict_steps
        begun = self._trials.values()
        steps = max(0, config.num_trials - len(begun)) * predict_steps(0)
        going_on = Counter([trial.step for trial in begun if not trial.has_ended])
        steps += sum(number * predict_steps(step) for step, number in going_on.items())
        is_in_finals = self._runs is self._finals  # a budget may have ended the search
        if steps > 0 and not is_in_finals:
            return steps / (config.num_trials * predict_steps(0)), 1.0
        num_unknown = 0 if is_in_finals else count_final_runs(config) - len(self._finals)
        known = (config.max_steps - run.step for run in self._finals.values() if not run.has_ended)
        steps = max(0, num_unknown) * config.max_steps + sum(known)
        return 0.0, steps / max(1, count_final_runs(config) * config.max_steps)

    @property
    def _scale(self) -> float | None:
        """By which trainings from rung to rung took longer than expected; None while there is
        neither a throughput nor a report."""
        is_measured = self._throughput is not UNMEASURED
        if not self._segments:
            return 1.0 if is_measured else None
        scale = sum(taken for taken, _ in self._segments) / sum(s for _, s in self._segments)
        return min(SCALES[1], max(SCALES[0], scale)) if is_measured else scale

    def _predict_segment_s(self, step: int) -> float:
        """From a rung to the next report, as measured before the first trial."""
        num_live = max(1, math.ceil(len(self._running) / self.model.num_packs))
        return self.model.predict_segment_s(self._throughput, step, num_live)

    def _update(self) -> None:
        """Takes the time left anew."""
        scale = self._scale
        if scale is None:
            return
        search_left, finals_left = self.compute_left_shares()
        model, throughput = self.model, self._throughput
        finals_s = model.predict_finals_s(throughput, count_final_runs(model.config))
        left_s = search_left * model.predict_search_s(throughput) + finals_left * finals_s
        left_s = scale * left_s + model.predict_test_s(throughput)
        self._ends_s = self._now_s() + left_s

    def _follow(self, histories: Iterable[TrialRecord]) -> dict[str, _Progress]:
        """How far trials of an earlier process are."""
        return {
            history.trial_id: _Progress(
                step=history.num_steps,
                seconds=history.last.seconds if history.last else 0.0,
                reported_s=self._now_s(),
                has_ended=history.status is not None,
            )
            for history in histories
        }


def sum_spent_s(
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
    wall_s, gpu_s = sum_spent_s(events, ledgers, model.num_gpus)
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
    first_s = model.predict_start_s(concurrency)
    first_s += model.predict_segment_s(throughput, 0, -(-concurrency // model.num_packs))
    first_s += throughput.capture_s * config.rungs[0] / STEPS_PER_CAPTURE
    after_s = model.predict_finals_s(throughput, count_final_runs(config, num_trials=1))
    after_s += model.predict_test_s(throughput)
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
