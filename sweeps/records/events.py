"""The append-only event log: what happened in a sweep, kept through kill -9 and full disks.

events.jsonl is the source of truth: resume replays it, trials.csv is made from it, and the
listeners (W&B, terminal table) are told the same facts.
"""

import errno
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sweeps.records.paths import abort_if_unwritable
from sweeps.records.redact import redact
from sweeps.records.schemas import find_fault
from trainables.config import Hyperparameters, TrialReport
from trainables.errors import REPEAT, SweepAborted, find_disk_fault
from trainables.files import (
    DamagedLine,
    JsonLines,
    is_disk_full,
    parse_json_lines,
    to_strict_json,
)

Kind = Literal[
    "sweep_started",
    "sweep_resumed",
    "trial_started",
    "report",
    "trial_ended",
    "asked",
    "finals_started",
    "final_scores",
    "bertscore",
    "node_joined",
    "pack_started",
    "pack_lost",
    "pack_ended",
    "predicted",
    "summary",
    "sweep_ended",
    "sweep_interrupted",
]
_ASKING = ("sweep_started", "sweep_resumed", "asked")
"""Events that say how many trials the search shall have."""
_REASONS = ("reason", "refused")
_FLOATS = frozenset(f.name for f in fields(TrialReport) if f.type is float)


class EventLog:
    """Appends events to a file, and has each on disk before it returns; all methods, and opening
    it, raise SweepAborted if the disk is full or gone, or the file may not be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # what fails is cut off, and a line after it would go too
        with abort_if_unwritable(path):
            self._lines = JsonLines(path)

    def append(self, kind: Kind, **facts: object) -> None:
        """Writes one event."""
        self.append_all(kind, [facts])

    def append_all(self, kind: Kind, events: Iterable[Mapping[str, object]]) -> None:
        """Writes events of one kind together, which takes a shared disk as long as one.

        A reason may be any library's text: it is written without secrets.
        """
        event = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind}
        lines = [
            event
            | to_strict_json({n: redact(str(v)) if n in _REASONS else v for n, v in facts.items()})
            for facts in events
        ]
        if lines:
            with self._lock, abort_if_unwritable(self._path):
                self._lines.append(*lines)

    def abort_if_full(self) -> None:
        """Raises SweepAborted if the disk is full, which shows only when something is written."""
        with abort_if_unwritable(self._path):
            if is_disk_full(self._path.parent):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a log, oldest first, without a torn last line; none before there is a log.

    Raises:
        SweepAborted: it cannot be read, or a line that is not the last is damaged; the message
            names it.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as refused:
        fix = "put the file back from a copy, or let this user read it"
        if fault := find_disk_fault(refused):
            fix = f"{fault.remedy}, {REPEAT}"
        error = f"the event log {path} cannot be read: {refused.strerror}"
        raise SweepAborted(error, fix) from None
    return parse_events(content, path)


def parse_events(content: bytes, path: Path, num_before: int = 0) -> list[dict[str, Any]]:
    """The events in a piece of a log.

    Args:
        num_before: events before it.

    Raises:
        SweepAborted: as read_events.
    """
    try:
        events = parse_json_lines(content, path, num_before)
        for number, event in enumerate(events, start=num_before + 1):
            if fault := find_fault(event):
                raise DamagedLine(path, number, fault)
    except DamagedLine as damaged:
        fix = f"restore {path} from a copy, or remove line {damaged.number} and repeat the command"
        raise SweepAborted(str(damaged), fix) from damaged
    return events


def find_num_trials(events: Iterable[dict[str, Any]], default: int) -> int:
    """Trials that a sweep is asked for by what its log tells: as it began, was resumed, or as a
    user asked meanwhile.

    Args:
        default: of a log that does not tell.
    """
    numbers = [e["num_trials"] for e in events if e["kind"] in _ASKING and "num_trials" in e]
    return int(numbers[-1]) if numbers else default


def list_waiting_points(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points that users added and no trial has begun with, oldest first; --finish drops them."""
    waiting: list[dict[str, Any]] = []
    for event in events:
        if event["kind"] == "asked" and not event["refused"]:
            waiting = [] if event["finish"] else waiting + [event["add"]] * bool(event["add"])
        elif event["kind"] == "trial_started" and event.get("is_asked"):
            del waiting[:1]
    return waiting


def find_since_search(events: Sequence[dict[str, Any]], kind: Kind) -> dict[str, Any] | None:
    """The last event of a kind, unless a trial of the search has started since: the sweep was given
    more trials, so earlier finals and looks at test no longer count."""
    kinds = (kind, "trial_started")
    last = next((event for event in reversed(events) if event["kind"] in kinds), None)
    return last if last and last["kind"] == kind else None


def make_report_fields(report: TrialReport) -> dict[str, Any]:
    """The fields of a "report" event; of the trials that were scored with it, their ids."""
    cohort = [other.trial_id for other in report.cohort]
    alone = replace(report, cohort=())
    return asdict(alone) | {"checkpoint": str(report.checkpoint), "cohort": cohort}


def parse_report(event: dict[str, Any]) -> TrialReport:
    """The report of a "report" event; non-finite floats come back as they were."""
    known = {f.name: event[f.name] for f in fields(TrialReport) if f.name in event}
    known |= {name: float(known[name]) for name in _FLOATS & known.keys()}
    metrics = {name: float(value) for name, value in event["metrics"].items()}
    return TrialReport(
        **known | {"metrics": metrics, "checkpoint": Path(event["checkpoint"]), "cohort": ()}
    )


def parse_scores(scores: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Metrics by what was scored, of an event; non-finite floats come back as they were."""
    return {of: {name: float(v) for name, v in own.items()} for of, own in scores.items()}


def make_params_fields(params: Hyperparameters) -> dict[str, Any]:
    """The params of a "trial_started" event, and of a run's config in W&B."""
    return asdict(params) | {"target_modules": list(params.target_modules)}


def parse_params(event: dict[str, Any]) -> Hyperparameters:
    """The hyperparameters of a "trial_started" event."""
    params: dict[str, Any] = {
        n: tuple(v) if isinstance(v, list) else v for n, v in event["params"].items()
    }
    return Hyperparameters(**params)
