"""A run folder, read once: what sweep.json and the event log say of a sweep."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from sweeps.records.events import Kind, find_num_trials, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.redact import join_lines
from sweeps.records.schemas import SweepRecord, describe_fault
from sweeps.records.trial_record import TrialRecord, replay_all
from trainables.config import Metric
from trainables.errors import SweepAborted
from trainables.files import parse_json
from trainables.shell import write_command


@dataclass(frozen=True, kw_only=True, repr=False)
class Run:
    """A sweep as it stood when its folder was read, finished or not."""

    paths: RunPaths
    """Every file of it; paths.folder is the run folder."""
    record: Mapping[str, Any]
    """The content of sweep.json."""
    metric: Metric
    """What ranks trials, by name, and whether more or less of it is better."""
    events: Sequence[dict[str, Any]]
    """What the log has, oldest first."""
    trials: tuple[TrialRecord, ...]
    """The search's, in the order in which they were proposed, with their reports."""
    final_runs: tuple[TrialRecord, ...]
    """Trainings of the finals, by their trial and seed."""

    @property
    def num_trials(self) -> int:
        """Trials that the search is asked for."""
        return find_num_trials(self.events, int(self.record["config"]["num_trials"]))

    @property
    def last_turn(self) -> Mapping[str, Any]:
        """The last event of a process's start or end; {} before the first."""
        turns = (event for event in reversed(self.events) if event["kind"].startswith("sweep_"))
        return next(turns, {})

    @property
    def is_ended(self) -> bool:
        """Whether the sweep came to its end; python -m sweeps.status tells whether one that did not
        is still at work."""
        return self.last_turn.get("kind") == "sweep_ended"

    @property
    def began(self) -> datetime | None:
        """When the first of its processes began."""
        return find_time(self.events[0]) if self.events else None

    @property
    def last_event_time(self) -> datetime | None:
        """When the log was last written."""
        return find_time(self.events[-1]) if self.events else None

    def find_last(self, kind: Kind) -> dict[str, Any] | None:
        """The last event of a kind."""
        return next((event for event in reversed(self.events) if event["kind"] == kind), None)

    def get_scores(self, rung: int) -> dict[str, float]:
        """The metric by trial of the search, of those that reported at a rung and did not fail."""
        return {
            trial.trial_id: value
            for trial in self.trials
            if trial.status != "failed"
            for value in [trial.get_values(self.metric).get(rung)]
            if value is not None and math.isfinite(value)
        }


def read_run(paths: RunPaths) -> Run:
    """The run in a folder, which may be moved, unfinished, or being written.

    Raises:
        SweepAborted: there is no run, or a file of it cannot be read.
    """
    record = read_record(paths)
    events = read_events(paths.events)
    records = replay_all(events)
    metric = Metric(name=record["metric"]["name"], mode=record["metric"]["mode"])
    for one in records:
        if any(metric.name not in report.metrics for report in one.reports):
            error = f"{paths.events} has reports of {one.trial_id} without {metric.name}"
            raise SweepAborted(error, f"restore it, or {paths.sweep_json.name}, from a copy")
    return Run(
        paths=paths,
        record=record,
        metric=metric,
        events=events,
        trials=tuple(record for record in records if record.final_of is None),
        final_runs=tuple(record for record in records if record.final_of is not None),
    )


def read_record(paths: RunPaths) -> dict[str, Any]:
    """The content of sweep.json.

    Raises:
        SweepAborted: there is none, or it is damaged or of another version.
    """
    check_is_run(paths)
    try:
        record: dict[str, Any] = parse_json(paths.sweep_json.read_text(encoding="utf-8"))
        SweepRecord.model_validate(record)
    except (OSError, ValueError) as damaged:
        raise refuse_record(paths, damaged) from None
    return record


def check_is_run(paths: RunPaths) -> None:
    """Refuses a folder that is no run of a sweep, and names those beside it."""
    if not paths.sweep_json.is_file():
        records = filter(os.path.isfile, paths.folder.parent.glob("*/sweep.json"))
        runs = sorted(path.parent for path in records)[-8:]
        fix = f"name one of: {', '.join(map(write_command, runs))}"
        fix = fix if runs else "python -m sweeps.run samsum --tiny makes one in runs/"
        raise SweepAborted(f"there is no sweep in {paths.folder}", fix)


def refuse_record(paths: RunPaths, damaged: Exception) -> SweepAborted:
    """What the user is told of a sweep.json that is damaged, or of another version."""
    reason = join_lines(str(damaged))
    if isinstance(damaged, ValidationError):
        reason = describe_fault(damaged)
    return SweepAborted(
        f"{paths.sweep_json} cannot be read: {reason}",
        "use the version of this project that wrote it, or begin a new sweep",
    )


def find_time(event: Mapping[str, Any]) -> datetime:
    """When an event was written."""
    return datetime.fromisoformat(event["time"])
