"""The append-only event log: what happened in a sweep, kept through kill -9 and full disks.

events.jsonl is the source of truth: resume replays it, trials.csv is made from it, and the
listeners (W&B, terminal table) are told the same facts.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from trainables.config import Hyperparameters, TrialConfig, TrialReport
from trainables.errors import SweepAborted
from trainables.files import DamagedLine, JsonLines, read_json_lines

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
    """Appends events to a file, and has each on disk before it returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = JsonLines(path)

    def append(self, kind: Kind, **fields: object) -> None:
        """Writes one event. Raises SweepAborted if the disk is full or gone."""
        event = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind}
        try:
            self._lines.append({**event, **_to_strict_json(fields)})
        except OSError as error:
            raise SweepAborted(
                f"cannot write {self._path}: {error.strerror}; the events before are kept",
                "free some space there, then repeat the command with --resume",
            ) from error

    def close(self) -> None:
        """Closes the file; its events are on disk already."""
        self._lines.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a log, oldest first, without a torn last line.

    Raises:
        SweepAborted: a line that is not the last is damaged; the message names it.
    """
    try:
        events = read_json_lines(path)
    except DamagedLine as damaged:
        raise SweepAborted(str(damaged), _name_repair(path, damaged.number)) from damaged
    for number, event in enumerate(events, start=1):
        if not isinstance(event, dict) or "kind" not in event:
            error = f"line {number} of {path} is not an event: {str(event)[:80]}"
            raise SweepAborted(error, _name_repair(path, number))
    return events


def _name_repair(path: Path, number: int) -> str:
    return f"restore {path} from a copy, or remove line {number} and repeat the command"


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


def _to_strict_json(value: Any) -> Any:
    """Value as strict JSON can hold it: NaN and infinities as strings that float() reads."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, dict):
        return {key: _to_strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_strict_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value
