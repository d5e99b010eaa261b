"""The append-only event log: what happened in a sweep, kept through kill -9 and full disks.

events.jsonl is the source of truth: resume replays it, trials.csv is made from it, and the
listeners (W&B, terminal table) are told the same facts.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from trainables.config import Hyperparameters, TrialConfig, TrialReport
from trainables.errors import SweepAborted

Status = Literal["completed", "stopped", "failed"]
Kind = Literal[
    "sweep_started", "sweep_resumed", "trial_started", "report", "trial_ended", "finals_started",
    "final_scores", "bertscore", "pack_ended", "predicted",
    "sweep_ended",
]  # fmt: skip


class Listener(Protocol):
    """What the tuner tells while a sweep runs, in the driver process."""

    def trial_started(self, config: TrialConfig, number: int) -> None:
        """Trial number (from 0) begins, or goes on after a resume."""

    def reported(self, config: TrialConfig, report: TrialReport) -> None:
        """A report; each (trial, step) is told once."""

    def trial_ended(self, config: TrialConfig, status: Status, reason: str) -> None:
        """The trial is over; reason is empty where there is nothing to say."""

    def finals_started(self, runs: "Sequence[TrialHistory]") -> None:
        """The search has ended, and these runs follow; trials to whoever is told of them."""

    def sweep_ended(self) -> None:
        """No call follows."""


@dataclass(frozen=True, kw_only=True)
class TrialHistory:
    """All that the log knows of one trial."""

    trial_id: str
    number: int
    """Place in the order of proposal, from 0."""
    params: Hyperparameters
    reports: list[TrialReport] = field(default_factory=list)
    """By step, without duplicates."""
    status: Status | None = None
    """None while the trial runs, or was running when the driver died."""
    reason: str = ""
    final_of: str | None = None
    """The search's trial that is trained again in the finals; None of a trial of the search."""
    seed: int | None = None
    """Of a run of the finals; None is the sweep's."""


class EventLog:
    """Appends events to a file, one line each, and has each on disk before it returns.

    A kill at any moment leaves at most one torn last line (one without a newline): nobody was
    told of that event, so opening the log again cuts it off.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        whole_bytes = content.rfind(b"\n") + 1
        if whole_bytes < len(content):
            os.ftruncate(self._file, whole_bytes)

    def append(self, kind: Kind, **fields: object) -> None:
        """Write one event. Raises SweepAborted if the disk is full or gone."""
        event = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind}
        line = json.dumps(_strict({**event, **fields}), ensure_ascii=False, allow_nan=False)
        size_bytes = os.fstat(self._file).st_size
        try:
            _write_all(self._file, line.encode() + b"\n")
            os.fsync(self._file)
        except OSError as error:
            self._cut(size_bytes)
            raise SweepAborted(
                f"cannot write {self._path}: {error.strerror}; the events before are kept",
                "free some space there, then repeat the command with --resume",
            ) from error

    def close(self) -> None:
        """Give the file back; events are on disk already."""
        os.close(self._file)

    def _cut(self, size_bytes: int) -> None:
        with contextlib.suppress(OSError):  # else read_events takes the half line for a torn one
            os.ftruncate(self._file, size_bytes)


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a log, oldest first, without a torn last line.

    Raises:
        SweepAborted: a line that is not the last is damaged; the message names it.
    """
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1)]


def replay(events: Iterable[dict[str, Any]]) -> list[TrialHistory]:
    """The trials of the search that the events tell of, by number.

    A step that is told twice counts as told first: that is what the search decided on. A trial
    that starts again after its end is running again.
    """
    return [history for history in replay_all(events) if history.final_of is None]


def replay_finals(events: Iterable[dict[str, Any]]) -> list[TrialHistory]:
    """The runs of the finals that the events tell of, by number of their trial and seed."""
    return [history for history in replay_all(events) if history.final_of is not None]


def replay_all(events: Iterable[dict[str, Any]]) -> list[TrialHistory]:
    """The trials of the search by number, each before its runs of the finals."""
    trials: dict[str, dict[str, Any]] = {}
    reports: dict[str, dict[int, TrialReport]] = {}
    for event in events:
        if event["kind"] == "trial_started":
            trials[event["trial_id"]] = {
                "trial_id": event["trial_id"],
                "number": event["number"],
                "params": params_from_event(event),
            }
            reports.setdefault(event["trial_id"], {})
        elif event["kind"] == "finals_started":
            for run in event["runs"]:
                known = {**trials[run["of"]], "status": None, "reason": ""}
                known |= {"trial_id": run["trial_id"], "final_of": run["of"], "seed": run["seed"]}
                trials.setdefault(run["trial_id"], known)
                reports.setdefault(run["trial_id"], {})
        elif event["kind"] == "report":
            report = report_from_event(event)
            reports[report.trial_id].setdefault(report.step, report)
        elif event["kind"] == "trial_ended":
            trials[event["trial_id"]] |= {"status": event["status"], "reason": event["reason"]}
    histories = [
        TrialHistory(**trial, reports=[report for _, report in sorted(reports[trial_id].items())])
        for trial_id, trial in trials.items()
    ]
    return sorted(histories, key=lambda one: (one.number, one.final_of is not None, one.seed or 0))


def report_fields(report: TrialReport) -> dict[str, Any]:
    """The fields of a "report" event; of the trials that were scored with it, their ids."""
    cohort = [other.trial_id for other in report.cohort]
    alone = replace(report, cohort=())
    return asdict(alone) | {"checkpoint": str(report.checkpoint), "cohort": cohort}


def report_from_event(event: dict[str, Any]) -> TrialReport:
    """The report of a "report" event; non-finite floats come back as they were."""
    floats = ("train_loss", "learning_rate", "epoch", "tokens_per_s", "seconds", "peak_gib")
    gpu_seconds = float(event.get("gpu_seconds", 0.0))
    return TrialReport(
        trial_id=event["trial_id"],
        step=event["step"],
        metrics={name: float(value) for name, value in event["metrics"].items()},
        tokens=event["tokens"],
        checkpoint=Path(event["checkpoint"]),
        eval_rows=event.get("eval_rows", 0),
        gpu_seconds=gpu_seconds,
        cohort=(),
        **{name: float(event[name]) for name in floats},
    )


def params_fields(params: Hyperparameters) -> dict[str, Any]:
    """The params of a "trial_started" event, also what W&B shows as the run's config."""
    return asdict(params) | {"target_modules": list(params.target_modules)}


def params_from_event(event: dict[str, Any]) -> Hyperparameters:
    """The hyperparameters of a "trial_started" event."""
    params = event["params"]
    return Hyperparameters(**params | {"target_modules": tuple(params["target_modules"])})


def _strict(value: object) -> object:
    """Value as strict JSON can hold it: NaN and infinities as strings that float() reads."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _write_all(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    fix = f"restore {path} from a copy, or remove line {number} and repeat the command"
    try:
        event = json.loads(line)
    except ValueError as error:
        raise SweepAborted(f"line {number} of {path} is damaged: {error}", fix) from error
    if not isinstance(event, dict) or "kind" not in event:
        raise SweepAborted(f"line {number} of {path} is not an event: {line[:80]!r}", fix)
    return event
