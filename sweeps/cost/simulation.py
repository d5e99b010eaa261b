"""A sweep as discrete events: trials join packs, step together, are scored, stopped and replaced.

No torch, no Ray. The simulation knows how fast a pack is and what is to
be done. What it cannot know is which trials are good: ASHA's decisions follow random values, among
which those of later trials are higher, for the search learns.
"""

import heapq
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sweeps.cost.workload import (
    PROPOSAL_S,
    REFILL_S,
    Workload,
    report_s,
    start_s,
    test_s,
)
from sweeps.search.asha import Asha
from trainables.config import Metric
from trainables.packing.sizing.pace import Speed

LEARNT_DRAWS = 8
"""A trial that was proposed with results known is as good as the best of so many random ones: of 64
trials on SAMSum 31 and 38 reached the second rung of four in two sweeps, 15 and 21 the third and 5
and 11 the last, where equally good ones would be 21, 7 and 2; the best of 8 gives 31, 13 and 5."""
_ORDER = Metric(name="place in a random order", mode="max")


@dataclass(frozen=True, kw_only=True)
class Running:
    """A trial that has begun."""

    trial_id: str
    value: float
    """Its place among all trials, from 0 (worst) to 1: what ASHA decides on."""
    step: float = 0.0
    """Optimizer steps done."""


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a sweep is; by default it has not begun."""

    num_begun: int = 0
    """Trials that the search has proposed."""
    running: Sequence[Running] = ()
    values: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Values of the trials that have reached a rung, by rung and trial."""
    head_start_s: float = 0.0
    """For how long the processes of the first trials have been starting already."""
    num_steps: float = 0.0
    """Steps that each pack has made: the more, the fewer graphs are left to be recorded."""
    final_runs: Sequence[Running] | None = None
    """Runs of the finals that have not ended, those that train first; None while the search goes
    on."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One simulated sweep."""

    search_s: float
    finals_s: float
    test_s: float
    num_reached: dict[int, int]
    """Trials that reached a rung, by rung."""

    @property
    def wall_s(self) -> float:
        """From the first proposal to the end."""
        return self.search_s + self.finals_s + self.test_s


def simulate(load: Workload, speed: Speed, seed: int, state: State | None = None) -> Outcome:
    """One sweep whose trials' values are in the random order of a seed."""
    state = state or State()
    trials = [
        Running(trial_id=f"#{number}", value=_value(f"{seed} {number}", number, load))
        for number in range(state.num_begun, load.num_trials)
    ]
    num_reached = {rung: len(state.values.get(rung, {})) for rung in load.rungs}
    if state.final_runs is not None:
        finals = _Packs(load, speed, None, state.num_steps)
        at_once = load.final_concurrency
        search_s = 0.0
        finals_s = finals.run(state.final_runs[:at_once], state.final_runs[at_once:], at_once)
    else:
        asha = Asha(load.rungs, load.reduction_factor, _ORDER)
        for rung, values in state.values.items():
            asha.decide(rung, values)
        search = _Packs(load, speed, asha, state.num_steps)
        search_s = search.run(state.running, trials, load.concurrency, state.head_start_s)
        num_reached = {rung: n + search.num_reached[rung] for rung, n in num_reached.items()}
        runs = [Running(trial_id=f"final {n}", value=0.0) for n in range(load.num_final_runs)]
        finals = _Packs(load, speed, None, search.num_steps)
        finals_s = finals.run((), runs, load.final_concurrency)
    return Outcome(
        search_s=search_s, finals_s=finals_s, test_s=test_s(load, speed), num_reached=num_reached
    )


def _value(seed: str, number: int, load: Workload) -> float:
    draws = random.Random(seed)
    return max(draws.random() for _ in range(1 if number < load.concurrency else LEARNT_DRAWS))


@dataclass(eq=False)
class _Trial:
    trial_id: str
    value: float
    step: float
    rung: int
    """Place of the rung that it goes for."""


@dataclass
class _Pack:
    live: list[_Trial] = field(default_factory=list)
    since_s: float = 0.0
    """Up to when its trials' steps are counted."""
    busy_until_s: float = 0.0
    num_steps: float = 0.0
    """Steps that it has made."""
    step_s: float = 0.0
    """Of a step up to the next rung, with what is recorded on the way."""
    version: int = 0
    """Of its next rung: one that was planned before somebody joined or left is void."""


class _Packs:
    """Packs that work through trials; each steps all its trials at once and waits while it scores.

    Args:
        asha: decides who goes on; None lets everybody go on.
        num_steps: that each has made before.
    """

    def __init__(
        self, load: Workload, speed: Speed, asha: Asha | None, num_steps: float = 0.0
    ) -> None:
        self._load = load
        self._speed = speed
        self._asha = asha
        self._packs = [_Pack(num_steps=num_steps) for _ in range(max(1, load.num_packs))]
        self._queue: list[_Trial] = []
        self._events: list[tuple[float, int, str, int, object]] = []
        self._num_events = 0
        self._end_s = 0.0
        self.num_reached = dict.fromkeys(load.rungs, 0)

    def run(
        self,
        running: Sequence[Running],
        waiting: Iterable[Running],
        at_once: int,
        head_start_s: float = 0.0,
    ) -> float:
        """Seconds until all have ended, of whom so many are at work at once."""
        self._queue = [self._trial(one) for one in waiting][::-1]
        for number, one in enumerate(running):
            self._push(0.0, "join", number % len(self._packs), self._trial(one))
        num_new = min(len(self._queue), max(0, at_once - len(running)))
        for number in range(len(running), len(running) + num_new):
            begins_s = max(0.0, start_s(self._load, num_new) - head_start_s)
            self._refill(begins_s, number % len(self._packs))
        while self._events:
            at_s, _, kind, number, what = heapq.heappop(self._events)
            pack = self._packs[number]
            if kind == "join":
                self._join(at_s, number, what)
            elif kind == "rung" and what == pack.version:
                self._score(at_s, number)
            elif kind == "decide":
                self._decide(at_s, number, what)
        return self._end_s

    @property
    def num_steps(self) -> float:
        """Steps that a pack has made, on average."""
        return sum(pack.num_steps for pack in self._packs) / len(self._packs)

    def _join(self, at_s: float, number: int, trial: object) -> None:
        pack = self._packs[number]
        assert isinstance(trial, _Trial)
        if at_s < pack.busy_until_s:
            self._push(pack.busy_until_s, "join", number, trial)
            return
        self._advance(pack, at_s)
        pack.live.append(trial)
        self._plan(number)

    def _score(self, at_s: float, number: int) -> None:
        """The trials that stand at a rung are scored, those of one rung together."""
        pack = self._packs[number]
        self._advance(pack, at_s)
        due = [one for one in pack.live if self._load.rungs[one.rung] - one.step < 1e-6]
        seconds = 0.0
        for rung in {one.rung for one in due}:
            num_due = sum(one.rung == rung for one in due)
            seconds += report_s(self._speed, num_due, self._load.eval_rows[rung])
        pack.busy_until_s = at_s + seconds
        self._push(pack.busy_until_s, "decide", number, due)

    def _decide(self, at_s: float, number: int, due: object) -> None:
        assert isinstance(due, list)
        pack = self._packs[number]
        pack.since_s = at_s
        cohorts = {rung: [one for one in due if one.rung == rung] for rung in {o.rung for o in due}}
        num_ended = 0
        for rung, cohort in sorted(cohorts.items()):
            step = self._load.rungs[rung]
            self.num_reached[step] += len(cohort)
            keeps = {one.trial_id: True for one in cohort}
            if self._asha is not None:
                keeps = self._asha.decide(step, {one.trial_id: one.value for one in cohort})
            for trial in cohort:
                trial.step, trial.rung = float(step), rung + 1
                if not keeps[trial.trial_id] or trial.rung == len(self._load.rungs):
                    pack.live.remove(trial)
                    self._end_s = max(self._end_s, at_s)
                    num_ended += 1
        num_new = min(num_ended, len(self._queue))
        for _ in range(num_new):
            self._refill(at_s + REFILL_S + PROPOSAL_S * num_new, number)
        self._plan(number)

    def _refill(self, at_s: float, number: int) -> None:
        if self._queue:
            self._push(at_s, "join", number, self._queue.pop())

    def _plan(self, number: int) -> None:
        """When the next of its trials stands at a rung."""
        pack = self._packs[number]
        pack.version += 1
        if pack.live:
            to_rung = min(self._load.rungs[one.rung] - one.step for one in pack.live)
            num_steps = max(1e-9, to_rung)
            recording_s = self._speed.recording_s(pack.num_steps, num_steps)
            pack.step_s = self._speed.step_s(len(pack.live)) + recording_s / num_steps
            self._push(pack.since_s + num_steps * pack.step_s, "rung", number, pack.version)

    def _advance(self, pack: _Pack, at_s: float) -> None:
        if pack.live and at_s > pack.since_s:
            num_steps = (at_s - pack.since_s) / pack.step_s
            pack.num_steps += num_steps
            for one in pack.live:
                one.step = min(one.step + num_steps, float(self._load.rungs[one.rung]))
        pack.since_s = max(pack.since_s, at_s)

    def _trial(self, one: Running) -> _Trial:
        rungs = self._load.rungs
        rung = next((n for n, step in enumerate(rungs) if step > one.step), len(rungs) - 1)
        return _Trial(one.trial_id, one.value, one.step, rung)

    def _push(self, at_s: float, kind: str, number: int, what: object) -> None:
        self._num_events += 1
        heapq.heappush(self._events, (at_s, self._num_events, kind, number, what))
