"""How a run stands, as its folder tells: from the event log, the lock and the heartbeat.

Loads neither torch nor Ray. Reads a folder that is being written, on this machine or another.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Any, Literal

from sweeps.records.events import find_num_trials, list_since_search, read_events
from sweeps.records.heartbeat import read_heartbeat
from sweeps.records.paths import RunPaths
from sweeps.records.run_lock import LockOwner, find_lock_owner
from sweeps.records.trial_record import TrialRecord, replay_all
from sweeps.records.trials_csv import rank
from trainables.config import Metric
from trainables.errors import SweepAborted

Phase = Literal["start", "search", "finals", "test"]
State = Literal["running", "stalled", "interrupted", "dead", "ended", "unknown"]
FACTS = ("num_gpus", "num_packs", "slots_per_gpu")
"""What a heartbeat says beside the time left."""
OVERDUE = 3.0
"""A report that takes so many times as long as usual is overdue."""
LEAST_STALL_S = 60.0
"""Without a word for less than that, no sweep is called stalled."""
QUIET_S = 900.0
"""The same while nothing is known: models load, the best adapters are tested."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How a run stands."""

    paths: RunPaths
    config: dict[str, Any]
    """As sweep.json has it."""
    metric: Metric
    state: State
    """stalled: its process lives, and a report is long overdue; interrupted: the process said why
    it ended before the sweep had; dead: it said nothing; unknown: it was on another machine, whose
    locks are not seen here, and gives no sign of life."""
    phase: Phase
    """What it does, or did last."""
    reason: str
    """Why it was interrupted, or what is overdue."""
    owner: LockOwner
    began: datetime | None
    """Start of the process that ran it last."""
    last_event: datetime | None
    now: datetime
    events: list[dict[str, Any]]
    trials: list[TrialRecord]
    """Of the search."""
    num_trials: int
    """Trials that the search is asked for."""
    finals: list[TrialRecord]
    """Runs of the finals that were held last."""
    left_s: float | None
    """Until the sweep has ended, as its process expects; None if it does not run or say."""
    facts: dict[str, Any]
    """What the heartbeat says of GPUs and packs; nothing where none is fresh."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state in ("interrupted", "dead", "ended")

    @property
    def best(self) -> TrialRecord | None:
        """The best of those that reached the highest rung, for only these compare: of the trials,
        until a run of the finals is trained to its end."""
        completed = [run for run in self.finals if run.status == "completed"]
        ranked = rank(completed, self.metric) or rank(self.trials, self.metric)
        return next(iter(ranked), None)

    @property
    def running(self) -> list[TrialRecord]:
        """Trials, or runs of the finals, that have begun and not ended."""
        return [one for one in (*self.trials, *self.finals) if one.status is None]


def read_status(paths: RunPaths, now: datetime | None = None) -> RunStatus:
    """How the run stands.

    Raises:
        SweepAborted: a file of it is damaged.
    """
    now = now or datetime.now(UTC)
    try:
        record = json.loads(paths.sweep_json.read_text(encoding="utf-8"))
        metric = Metric(name=record["metric"]["name"], mode=record["metric"]["mode"])
        config = dict(record["config"])
        default = int(config["num_trials"])
    except (OSError, ValueError, KeyError, TypeError) as damaged:
        error = f"{paths.sweep_json} cannot be read: {damaged}"
        raise SweepAborted(error, "use the version of this project that wrote it") from None
    try:
        events = read_events(paths.events) if paths.events.is_file() else []
    except OSError as refused:
        error = f"{paths.events} cannot be read: {refused.strerror}"
        raise SweepAborted(error, "have its owner let you read it") from None
    records = replay_all(events)
    trials = [one for one in records if one.final_of is None]
    finals = _find_finals(events, records)
    num_trials = find_num_trials(events, default)
    owner, beat = find_lock_owner(paths), read_heartbeat(paths)
    times = [datetime.fromisoformat(event["time"]) for event in events]
    starts = [n for n, event in enumerate(events) if _is_start(event)]
    began = times[starts[-1]] if starts else None
    is_fresh = beat is not None and beat.is_fresh(now)
    state, reason = _find_state(events, owner, is_fresh=is_fresh)
    running = [one for one in (*trials, *finals) if one.status is None]
    if state == "running" and times:
        limit_s = find_stall_limit_s(events[starts[-1] :], running, record.get("rungs", []))
        quiet_s = (now - times[-1]).total_seconds()
        if quiet_s > limit_s:
            state, reason = "stalled", f"nothing happened for longer than {limit_s:.0f} s"
    told = beat if is_fresh and state in ("running", "stalled") else None
    left_s = None
    if told is not None and told.left_s is not None:
        left_s = max(0.0, told.left_s - (now - told.time).total_seconds())
    return RunStatus(
        paths=paths,
        config=config,
        metric=metric,
        state=state,
        phase=_find_phase(trials, finals, num_trials),
        reason=reason,
        owner=owner,
        began=began,
        last_event=times[-1] if times else None,
        now=now,
        events=events,
        trials=trials,
        num_trials=num_trials,
        finals=finals,
        left_s=left_s,
        facts={name: getattr(told, name) for name in FACTS} if told else {},
    )


def _is_start(event: dict[str, Any]) -> bool:
    return event["kind"] in ("sweep_started", "sweep_resumed")


def _find_finals(
    events: Sequence[dict[str, Any]], records: Sequence[TrialRecord]
) -> list[TrialRecord]:
    """The runs of the finals that the log tells of last, unless the search has gone on since."""
    last = [e for e in list_since_search(events) if e["kind"] == "finals_started"][-1:]
    ids = {run["trial_id"] for event in last for run in event["runs"]}
    return [record for record in records if record.trial_id in ids]


def _find_phase(
    trials: Sequence[TrialRecord], finals: Sequence[TrialRecord], num_trials: int
) -> Phase:
    if finals:
        return "finals" if any(run.status is None for run in finals) else "test"
    has_more = len(trials) < num_trials or any(trial.status is None for trial in trials)
    return "start" if not trials else "search" if has_more else "test"


def _find_state(
    events: Sequence[dict[str, Any]], owner: LockOwner, *, is_fresh: bool
) -> tuple[State, str]:
    """The state but for stalls, and the reason of an interruption."""
    if owner.is_alive and owner.work != "sync":
        return "running", ""
    marks = ("sweep_started", "sweep_resumed", "sweep_ended", "sweep_interrupted")
    last = next((event for event in reversed(events) if event["kind"] in marks), None)
    if last is not None and last["kind"] == "sweep_ended":
        return "ended", ""
    if last is not None and last["kind"] == "sweep_interrupted":
        return "interrupted", str(last["reason"])
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
        at, trial_id = datetime.fromisoformat(event["time"]), event.get("trial_id")
        if event["kind"] == "report" and trial_id in since:
            then, step = since[trial_id]
            step_s.append((at - then).total_seconds() / max(1, event["step"] - step))
        if event["kind"] in ("trial_started", "report") and trial_id:
            since[trial_id] = at, event.get("step", 0)
    gaps_s += [
        (datetime.fromisoformat(b["time"]) - datetime.fromisoformat(a["time"])).total_seconds()
        for a, b in pairwise(events)
    ]
    if not running or not step_s:
        return max(QUIET_S, OVERDUE * max(gaps_s))
    steps = [next((r for r in rungs if r > one.num_steps), 0) - one.num_steps for one in running]
    due_s = median(step_s) * max(1, *steps)
    return max(LEAST_STALL_S, OVERDUE * due_s, OVERDUE * max(gaps_s))
