"""The time left of a sweep that runs: seconds per trial-step as observed, times the steps left."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import RLock

from sweeps.cost.estimate import CLOSING_S, CostModel
from sweeps.records.events import Status
from sweeps.records.trial_record import TrialRecord
from trainables.config import TrialConfig, TrialReport
from trainables.packing.sizing.throughput import Throughput

NUM_SEGMENTS = 64
"""Latest trainings from rung to rung, which tell how far the measured throughput is off."""
SCALES = (0.2, 5.0)
"""How far the throughput of a few steps may be corrected."""


class Eta:
    """A Listener that knows how far a sweep is, and what the rest will take.

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
        self._throughput: Throughput | None = None
        self._now_s = now_s
        self._lock = RLock()
        self._trials: dict[str, _Progress] = {}
        self._finals: dict[str, _Progress] = {}
        self._is_in_finals = False
        self._segments: deque[tuple[float, float]] = deque(maxlen=NUM_SEGMENTS)
        self._phase_began_s: float | None = None
        self._phase_steps = 0
        self._known: tuple[float, float] | None = None
        for history in histories:
            runs = self._trials if history.final_of is None else self._finals
            runs[history.trial_id] = _progress_of(history, now_s())

    def set_throughput(self, throughput: Throughput, left_s: float) -> None:
        """What was measured before the first trial, and what it makes of the sweep; without it,
        reports alone tell."""
        with self._lock:
            self._throughput = throughput
            self._known = self._now_s(), left_s

    def trial_started(self, config: TrialConfig, number: int) -> None:
        """A trial trains from now on."""
        with self._lock:
            trial = self._runs.setdefault(config.trial_id, _Progress())
            trial.has_ended, trial.is_running, trial.reported_s = False, True, self._now_s()
            if self._phase_began_s is None:
                self._phase_began_s = self._now_s()

    def reported(self, config: TrialConfig, report: TrialReport) -> None:
        """A trial stands at a rung: the time that it took tells that of the others."""
        with self._lock:
            trial = self._runs[config.trial_id]
            expected_s = self._expected_segment_s(trial.step)
            self._segments.append((report.seconds - trial.seconds, expected_s))
            self._phase_steps += report.step - trial.step
            trial.step, trial.seconds, trial.reported_s = report.step, report.seconds, self._now_s()
            self._look_again()

    def trial_ended(self, config: TrialConfig, status: Status, reason: str) -> None:
        """A trial trains no more."""
        with self._lock:
            trial = self._runs.setdefault(config.trial_id, _Progress())
            trial.has_ended, trial.is_running = True, False
            self._look_again()

    def finals_started(self, runs: Sequence[TrialRecord]) -> None:
        """From now on only these runs count."""
        with self._lock:
            self._is_in_finals = True
            known, self._finals = self._finals, {}
            for run in runs:
                progress = known.get(run.trial_id) or _progress_of(run, self._now_s())
                self._finals[run.trial_id] = progress
            self._phase_began_s, self._phase_steps = None, 0
            left_s = self.after_search_s(sum(not one.has_ended for one in self._finals.values()))
            self._known = None if left_s is None else (self._now_s(), left_s)

    def left_s(self) -> float | None:
        """Seconds until the sweep has ended, counted down between two reports; None while nothing
        is known."""
        with self._lock:
            if self._known is None:
                return None
            known_s, left_s = self._known
            return max(0.0, left_s - (self._now_s() - known_s))

    def after_search_s(self, num_final_runs: int) -> float | None:
        """Seconds of finals with so many runs and of the test; None while nothing is known."""
        with self._lock:
            scale = self._scale
            if scale is None:
                return None
            if self._throughput is not None:
                finals_s = scale * self.model.finals_s(self._throughput, num_final_runs)
                return finals_s + self.model.test_s(self._throughput)
            num_waves = math.ceil(num_final_runs / max(1, self.model.final_concurrency))
            return scale * num_waves * self.model.rungs[-1] + CLOSING_S

    def next_reports_s(self) -> dict[str, float]:
        """When each trial of the search that trains will make its next report, by the clock: now,
        if it should have made it; none while nothing is known."""
        with self._lock:
            scale, now_s = self._scale, self._now_s()
            if scale is None:
                return {}
            return {
                trial_id: max(
                    now_s, trial.reported_s + scale * self._expected_segment_s(trial.step)
                )
                for trial_id, trial in self._trials.items()
                if trial.is_running
            }

    def first_report_s(self) -> float:
        """Seconds in which a trial that began now would make its first report; 0 if not known."""
        with self._lock:
            return (self._scale or 0.0) * self._expected_segment_s(0)

    @property
    def num_begun(self) -> int:
        """Trials that the search has proposed."""
        return len(self._trials)

    @property
    def num_reported(self) -> int:
        """Trials of the search that have made a report."""
        return sum(trial.step > 0 for trial in self._trials.values())

    @property
    def search_left(self) -> float:
        """Share of the search's expected steps that is still to be made."""
        left = self._search_steps_left()
        return left / max(1.0, left + sum(trial.step for trial in self._trials.values()))

    @property
    def finals_left(self) -> float:
        """Share of the finals' runs that has not ended; a search that goes on has other finals."""
        if self.search_left > 0:
            return 1.0
        num_ended = sum(run.has_ended for run in self._finals.values())
        return max(0.0, 1 - num_ended / max(1, self.model.num_final_runs))

    @property
    def _runs(self) -> dict[str, "_Progress"]:
        """The trials of the present phase: the search, or its finals."""
        return self._finals if self._is_in_finals else self._trials

    @property
    def _scale(self) -> float | None:
        """By which trainings from rung to rung took longer than expected; None while there is
        neither a throughput nor a report."""
        actual_s = sum(actual for actual, _ in self._segments)
        expected_s = sum(expected for _, expected in self._segments)
        if self._throughput is None:
            return actual_s / expected_s if expected_s else None
        low, high = SCALES
        return min(high, max(low, actual_s / expected_s)) if expected_s else 1.0

    def _expected_segment_s(self, step: int) -> float:
        """From a rung to the next report; without a throughput, in steps: the scale is then what a
        trial's step takes."""
        if self._throughput is None:
            return float(next((rung - step for rung in self.model.rungs if rung > step), 0))
        num_running = sum(trial.is_running for trial in self._runs.values())
        num_live = max(1, math.ceil(num_running / max(1, self.model.num_packs)))
        return self.model.segment_s(self._throughput, step, num_live)

    def _search_steps_left(self) -> float:
        num_to_begin = max(0, self.model.num_trials - len(self._trials))
        return num_to_begin * self.model.steps_from(0) + sum(
            self.model.steps_from(trial.step)
            for trial in self._trials.values()
            if not trial.has_ended
        )

    def _look_again(self) -> None:
        """Takes the time left anew from what was observed in the present phase."""
        if self._phase_began_s is None or self._phase_steps == 0:
            return
        now_s = self._now_s()
        step_s = (now_s - self._phase_began_s) / self._phase_steps
        if self._is_in_finals:
            left = (run for run in self._finals.values() if not run.has_ended)
            steps = float(sum(self.model.rungs[-1] - run.step for run in left))
            after_s = self.after_search_s(0)
        else:
            steps = self._search_steps_left()
            after_s = self.after_search_s(self.model.num_final_runs)
        self._known = now_s, step_s * steps + (after_s or 0.0)


@dataclass
class _Progress:
    """How far a trial is."""

    step: int = 0
    """Step of its last report."""
    seconds: float = 0.0
    """Busy seconds up to it."""
    reported_s: float = 0.0
    """When it was made, or when the trial began or went on, by the clock."""
    is_running: bool = False
    has_ended: bool = False


def _progress_of(history: TrialRecord, now_s: float) -> _Progress:
    last = history.reports[-1] if history.reports else None
    return _Progress(
        step=last.step if last else 0,
        seconds=last.seconds if last else 0.0,
        reported_s=now_s,
        has_ended=history.status is not None,
    )
