"""How a run stands, as its folder tells: from the event log, the lock and the heartbeat.

Loads neither torch nor Ray. Reads a folder that is being written, on this machine or another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import fmean, median
from typing import Any, Literal

from sweeps.records.events import find_since_search
from sweeps.records.paths import RunPaths
from sweeps.records.request_file import Request, RequestReader
from sweeps.records.run import Run, find_time, read_run
from sweeps.records.run_lock import LockOwner, find_lock_owner, read_heartbeat
from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import Unended, rank

Phase = Literal["start", "search", "finals", "test"]
State = Literal["running", "stalled", "interrupted", "dead", "ended", "unknown"]
FACTS = ("num_gpus", "num_packs", "slots_per_gpu")
"""What a heartbeat says beside the time left."""
STARTS = ("sweep_started", "sweep_resumed")
OVERDUE = 3.0
"""A report that takes so many times as long as usual is overdue."""
LEAST_STALL_S = 60.0
"""Without a word for less than that, no sweep is called stalled."""
QUIET_S = 900.0
"""LEAST_STALL_S while nothing is known: models load, the best adapters are tested."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """The trial that leads the search, or the winner."""

    trial_id: str
    step: int
    value: float
    """Its last; of a winner of finals the mean of its runs there."""
    num_seeds: int
    """Runs of the finals that the value is the mean of; 0 is the search's own run."""


@dataclass(frozen=True, kw_only=True, repr=False)
class RunStatus(Run):
    """A run, and how it stands."""

    state: State
    """stalled: its process lives, and a report is long overdue; interrupted: the process said why
    it ended before the sweep had; dead: it said nothing; unknown: it was on another machine, whose
    locks are not seen here, and gives no sign of life."""
    phase: Phase
    """What it does, or did last."""
    reason: str
    """Why it was interrupted, or what is overdue."""
    owner: LockOwner
    driver_began: datetime | None
    """Start of the process that ran it last."""
    now: datetime
    finals: list[TrialRecord]
    """Runs of the finals that were held last."""
    running: list[TrialRecord]
    """Trials, or runs of the finals, that have begun and not ended."""
    left_s: float | None
    """Until the sweep has ended, as its process expects; None if it does not run or say."""
    pending: list[Request]
    """What was asked and is not taken up yet."""
    facts: dict[str, Any]
    """What the heartbeat says of GPUs and packs; nothing where none is fresh."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state in ("interrupted", "dead", "ended")

    @property
    def unended(self) -> Unended:
        """What its trials that have not ended are called."""
        return "unfinished" if self.is_over else "running"

    @property
    def summary(self) -> Mapping[str, Any]:
        """The "winner" of a sweep that has ended, and its scores on test; {} of all others."""
        summary = self.find_last("summary") if self.state == "ended" else None
        return summary["values"] if summary else {}

    @property
    def best(self) -> Best | None:
        """The winner; before there is one, the best of the search's trials that reached the highest
        rung, for only these compare. Runs of the finals have fresh seeds, of which one is lucky."""
        winner = self.summary.get("winner")
        leader = next((one for one in self.trials if one.trial_id == winner), None)
        leader = leader or next(iter(rank(self.trials, self.metric)), None)
        if leader is None:
            return None
        runs = [one for one in self.finals if winner == one.final_of and one.status == "completed"]
        values = [one.get_value(self.metric) for one in runs or [leader]]
        return Best(
            trial_id=leader.trial_id,
            step=(runs or [leader])[0].num_steps,
            value=fmean(value for value in values if value is not None),
            num_seeds=len(runs),
        )


def read_status(paths: RunPaths, now: datetime | None = None) -> RunStatus:
    """How the run stands.

    Raises:
        SweepAborted: a file of it is damaged.
    """
    now, run = now or datetime.now(UTC), read_run(paths)
    started = find_since_search(run.events, "finals_started")
    ids = {one["trial_id"] for one in started["runs"]} if started else set()
    finals = [one for one in run.final_runs if one.trial_id in ids]
    owner, beat = find_lock_owner(paths), read_heartbeat(paths)
    starts = [n for n, event in enumerate(run.events) if event["kind"] in STARTS]
    is_fresh = beat is not None and beat.is_fresh(now)
    state, reason = _find_state(run, owner, is_fresh=is_fresh)
    running = [one for one in (*run.trials, *finals) if one.status is None]
    if state == "running" and run.last_event_time is not None:
        limit_s = find_stall_limit_s(
            run.events[starts[-1] if starts else 0 :], running, run.record.get("rungs", [])
        )
        if (now - run.last_event_time).total_seconds() > limit_s:
            state, reason = "stalled", f"nothing happened for longer than {limit_s:.0f} s"
    fresh = beat if is_fresh and state in ("running", "stalled") else None
    left_s = None
    if fresh is not None and fresh.left_s is not None:
        left_s = max(0.0, fresh.left_s - (now - fresh.time).total_seconds())
    return RunStatus(
        **vars(run),
        state=state,
        phase=_find_phase(run, finals),
        reason=reason,
        owner=owner,
        driver_began=find_time(run.events[starts[-1]]) if starts else None,
        now=now,
        finals=finals,
        running=running,
        left_s=left_s,
        pending=RequestReader(paths, run.events).read_new(),
        facts={name: getattr(fresh, name) for name in FACTS} if fresh else {},
    )


def _find_phase(run: Run, finals: Sequence[TrialRecord]) -> Phase:
    if finals:
        return "finals" if any(one.status is None for one in finals) else "test"
    if not run.trials:
        return "start"
    has_more = len(run.trials) < run.num_trials or any(one.status is None for one in run.trials)
    return "search" if has_more else "test"


def _find_state(run: Run, owner: LockOwner, *, is_fresh: bool) -> tuple[State, str]:
    """The state but for stalls, and the reason of an interruption."""
    if owner.is_driver:
        return "running", ""
    if run.is_ended:
        return "ended", ""
    if run.last_turn.get("kind") == "sweep_interrupted":
        return "interrupted", str(run.last_turn["reason"])
    if owner.is_alive is None:
        return ("running", "") if is_fresh else ("unknown", "")
    return "dead", ""


def find_stall_limit_s(
    events: Sequence[dict[str, Any]], running: Sequence[TrialRecord], rungs: Sequence[int]
) -> float:
    """Seconds without an event after which a sweep is called stalled: by what a step of a trial
    has taken so far, and how many are missing to the next reports.

    Args:
        events: of the process that runs it.
    """
    since: dict[str, tuple[datetime, int]] = {}
    step_s: list[float] = []
    gaps_s = [0.0]
    for event in events:
        at, trial_id = find_time(event), event.get("trial_id")
        if event["kind"] == "report" and trial_id in since:
            then, step = since[trial_id]
            step_s.append((at - then).total_seconds() / max(1, event["step"] - step))
        if event["kind"] in ("trial_started", "report") and trial_id:
            since[trial_id] = at, event.get("step", 0)
    gaps_s += [(find_time(b) - find_time(a)).total_seconds() for a, b in pairwise(events)]
    if not running or not step_s:
        return max(QUIET_S, OVERDUE * max(gaps_s))
    steps = [next((r for r in rungs if r > one.num_steps), 0) - one.num_steps for one in running]
    due_s = median(step_s) * max(1, *steps)
    return max(LEAST_STALL_S, OVERDUE * due_s, OVERDUE * max(gaps_s))
