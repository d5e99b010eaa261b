"""What is still to come of a sweep that runs: an estimate from where it stands, as it goes."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import NamedTuple

from sweeps.cost.estimate import estimate
from sweeps.cost.simulation import Running, State
from sweeps.cost.workload import Workload, fixed_report_s, segment_s
from sweeps.records.events import Status
from sweeps.records.trial_record import TrialRecord
from trainables.config import Metric, TrialConfig, TrialReport
from trainables.packing.sizing.pace import Speed

NUM_SEEDS = 8
"""Simulated sweeps of one forecast: it is made every few seconds."""
REFRESH_S = 2.0
NUM_SEGMENTS = 64
"""Latest trainings from rung to rung, which tell how far the measured pace is off."""
FACTORS = (0.2, 5.0)
"""How far the pace of a few steps may be corrected."""


@dataclass(frozen=True)
class Scaled:
    """A Speed times a factor that reports have shown."""

    speed: Speed
    factor: float

    def step_s(self, num_live: int) -> float:
        """See Speed."""
        return self.factor * self.speed.step_s(num_live)

    def evaluation_s(self, num_live: int, num_rows: int) -> float:
        """See Speed."""
        return self.factor * self.speed.evaluation_s(num_live, num_rows)

    def recording_s(self, num_before: float, num_steps: float) -> float:
        """See Speed."""
        return self.factor * self.speed.recording_s(num_before, num_steps)


@dataclass(frozen=True)
class Observed:
    """A Speed known from reports alone: seconds a step with its share of evaluation, whatever the
    number of neighbours."""

    seconds: float

    def step_s(self, num_live: int) -> float:
        """See Speed."""
        return self.seconds

    def evaluation_s(self, num_live: int, num_rows: int) -> float:
        """See Speed; it is in the steps."""
        return 0.0

    def recording_s(self, num_before: float, num_steps: float) -> float:
        """See Speed; what was observed includes it."""
        return 0.0


class Forecast:
    """A Listener that knows how far a sweep is, and what the rest will take.

    Args:
        histories: trials and runs of the finals of a sweep that is being resumed.
        now_s: the clock.
    """

    def __init__(
        self,
        load: Workload,
        metric: Metric,
        histories: Sequence[TrialRecord] = (),
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._metric = metric
        self._measured: Speed | None = None
        self._now_s = now_s
        self._lock = RLock()
        self._seen: dict[str, _Seen] = {}
        self._final_ids = {one.trial_id for one in histories if one.final_of is not None}
        self._in_finals: set[str] | None = None
        self._segments: deque[_Segment] = deque(maxlen=NUM_SEGMENTS)
        self._made: tuple[float, float | None] | None = None
        self._num_steps = 0.0
        for history in histories:
            self._seen[history.trial_id] = _of_history(history, metric, now_s())

    def measured(self, speed: Speed) -> None:
        """The pace as measured before the first trial; without it, reports alone tell."""
        with self._lock:
            self._measured = speed

    def trial_started(self, config: TrialConfig, number: int) -> None:
        """A trial trains from now on."""
        with self._lock:
            seen = self._seen.setdefault(config.trial_id, _Seen())
            seen.status, seen.is_running, seen.mark_s = None, True, self._now_s()
            seen.num_before = self._num_steps

    def reported(self, config: TrialConfig, report: TrialReport) -> None:
        """A trial stands at a rung: its pace tells that of the others."""
        with self._lock:
            seen = self._seen[config.trial_id]
            num_steps = report.step - seen.step
            self._segments.append(self._segment(seen, report))
            self._num_steps += num_steps / max(1, self._num_running)
            seen.num_before = self._num_steps
            seen.step, seen.seconds, seen.mark_s = report.step, report.seconds, self._now_s()
            seen.values[report.step] = report.metrics.get(self._metric.name, math.nan)

    def trial_ended(self, config: TrialConfig, status: Status, reason: str) -> None:
        """A trial trains no more."""
        with self._lock:
            seen = self._seen.setdefault(config.trial_id, _Seen())
            seen.status, seen.is_running = status, False

    def finals_started(self, runs: Sequence[TrialRecord]) -> None:
        """From now on only these runs count."""
        with self._lock:
            self._in_finals = {run.trial_id for run in runs}
            self._final_ids |= self._in_finals
            for run in runs:
                self._seen.setdefault(run.trial_id, _of_history(run, self._metric, self._now_s()))

    def sweep_ended(self) -> None:
        """Nothing is left."""

    @property
    def is_in_finals(self) -> bool:
        """Whether the search has ended."""
        return self._in_finals is not None

    @property
    def speed(self) -> Speed | None:
        """The measured pace corrected by the reports, or theirs alone; None while none is known."""
        with self._lock:
            if self._measured is not None:
                expected_s = sum(one.expected_s for one in self._segments)
                actual_s = sum(one.paced_s for one in self._segments)
                factor = actual_s / expected_s if expected_s else 1.0
                return Scaled(self._measured, min(max(factor, FACTORS[0]), FACTORS[1]))
            num_steps = sum(one.num_steps for one in self._segments)
            seconds = sum(one.seconds for one in self._segments)
            return Observed(seconds / num_steps) if num_steps else None

    def left_s(self) -> float | None:
        """Seconds until the sweep has ended, counted down between two forecasts; None while no
        pace is known."""
        with self._lock:
            now_s = self._now_s()
            if self._made is None or now_s - self._made[0] > REFRESH_S:
                speed = self.speed
                left_s = None
                if speed is not None:
                    state = self.state(speed)
                    left_s = estimate(self._load, speed, state, num_seeds=NUM_SEEDS).wall_s
                self._made = now_s, left_s
            made_s, left_s = self._made
            return None if left_s is None else max(0.0, left_s - (now_s - made_s))

    def arrivals_s(self) -> dict[str, float]:
        """When each trial of the search that trains will make its next report, by the clock: now,
        if it should have made it; none while no pace is known."""
        with self._lock:
            speed = self.speed
            if speed is None:
                return {}
            num_live = self._num_live()
            now_s = self._now_s()
            return {
                trial_id: max(
                    now_s, seen.mark_s + segment_s(self._load, speed, seen.step, num_live)
                )
                for trial_id, seen in self._searched().items()
                if seen.is_running
            }

    def first_report_s(self) -> float | None:
        """Seconds in which a trial that began now would make its first report."""
        speed = self.speed
        return None if speed is None else segment_s(self._load, speed, 0, self._num_live())

    @property
    def num_begun(self) -> int:
        """Trials that the search has proposed."""
        return len(self._searched())

    @property
    def num_reported(self) -> int:
        """Trials of the search that have made a report."""
        return sum(bool(seen.values) for seen in self._searched().values())

    def state(self, speed: Speed) -> State:
        """Where the sweep stands now."""
        with self._lock:
            searched = self._searched()
            places = self._places()
            values = {
                rung: {name: places[name] for name, s in searched.items() if rung in s.values}
                for rung in self._load.rungs
            }
            runs = None
            if self._in_finals is not None:
                mine = [(name, s) for name, s in self._seen.items() if name in self._in_finals]
                mine.sort(key=lambda one: not one[1].is_running)
                runs = [self._running(name, s, 0.0, speed) for name, s in mine if s.is_left]
            running = [
                self._running(name, seen, places.get(name, 0.5), speed)
                for name, seen in searched.items()
                if seen.is_left
            ]
            return State(
                num_begun=len(searched),
                running=running,
                values=values,
                final_runs=runs,
                num_steps=self._num_steps,
            )

    def _running(self, trial_id: str, seen: "_Seen", value: float, speed: Speed) -> Running:
        rung = next((step for step in self._load.rungs if step > seen.step), seen.step)
        done = (self._now_s() - seen.mark_s) / speed.step_s(self._num_live())
        step = min(float(rung), seen.step + done) if seen.is_running else float(seen.step)
        return Running(trial_id=trial_id, value=value, step=min(step, rung - 0.5))

    def _places(self) -> dict[str, float]:
        """Place of each trial by its value at the first rung, from 0 (worst) to 1."""
        first = self._load.rungs[0]
        known = {
            name: seen.values[first]
            for name, seen in self._searched().items()
            if math.isfinite(seen.values.get(first, math.nan))
        }
        sign = 1.0 if self._metric.mode == "max" else -1.0
        order = sorted(known, key=lambda name: sign * known[name])
        places = {name: (rank + 0.5) / len(order) for rank, name in enumerate(order)}
        return {name: places.get(name, 0.5) for name in self._seen}

    def _segment(self, seen: "_Seen", report: TrialReport) -> "_Segment":
        """A trial's way from its last report to this one, beside what the measured pace foretold.

        What does not depend on the pace is left out of both.
        """
        num_steps, seconds = report.step - seen.step, report.seconds - seen.seconds
        if self._measured is None:
            return _Segment(num_steps, seconds, 0.0, 0.0)
        num_live = self._num_live()
        fixed_s = fixed_report_s(num_live)
        expected_s = segment_s(self._load, self._measured, seen.step, num_live) - fixed_s
        expected_s += self._measured.recording_s(seen.num_before, num_steps)
        return _Segment(num_steps, seconds, max(0.0, seconds - fixed_s), expected_s)

    @property
    def _num_running(self) -> int:
        return sum(seen.is_running for seen in self._seen.values())

    def _num_live(self) -> int:
        """Trials of one pack, as things stand."""
        return max(1, math.ceil(self._num_running / max(1, self._load.num_packs)))

    def _searched(self) -> dict[str, "_Seen"]:
        return {name: seen for name, seen in self._seen.items() if name not in self._final_ids}


class _Segment(NamedTuple):
    """A trial's way from one report to the next."""

    num_steps: int
    seconds: float
    """Busy ones."""
    paced_s: float
    """Of them, those that depend on the pace."""
    expected_s: float
    """What the measured pace foretold of these."""


@dataclass
class _Seen:
    """What was told of a trial."""

    step: int = 0
    """Of its last report."""
    seconds: float = 0.0
    """Busy seconds up to it."""
    mark_s: float = 0.0
    """When it was made, or when the trial began or went on, by the clock."""
    is_running: bool = False
    num_before: float = 0.0
    """Steps that a pack had made then."""
    status: Status | None = None
    values: dict[int, float] = field(default_factory=dict)

    @property
    def is_left(self) -> bool:
        """Whether it has not ended."""
        return self.status is None


def _of_history(history: TrialRecord, metric: Metric, now_s: float) -> _Seen:
    last = history.reports[-1] if history.reports else None
    return _Seen(
        step=last.step if last else 0,
        seconds=last.seconds if last else 0.0,
        mark_s=now_s,
        status=history.status,
        values={r.step: r.metrics.get(metric.name, math.nan) for r in history.reports},
    )
