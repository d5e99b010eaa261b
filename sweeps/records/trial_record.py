"""What the event log tells of each trial: one record a trial, from which all tables are made."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from sweeps.records.events import parse_params, parse_report, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.schemas import Status
from trainables.config import Hyperparameters, Metric, TrialReport
from trainables.errors import SweepAborted
from trainables.packing.service.ledger import Share


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial of the search, or a run of the finals, as far as the log knows it."""

    trial_id: str
    number: int
    """Position in the order of proposal, from 0; a run of the finals has that of its trial."""
    params: Hyperparameters
    is_asked: bool = False
    """Whether a user asked for its point while the search ran, so that it is no start point."""
    reports: list[TrialReport] = field(default_factory=list)
    """By step, without duplicates: one for each rung that the trial has reached."""
    status: Status | None = None
    """None while the trial runs, or was running when the driver died."""
    reason: str = ""
    final_of: str | None = None
    """The search's trial that is trained again in the finals; None for a trial of the search."""
    seed: int | None = None
    """Seed of a run of the finals; None is the sweep's."""
    share: Share | None = None
    """What the trial took of the GPUs' time; None where the packs' ledgers do not tell."""

    @property
    def last(self) -> TrialReport | None:
        """The report at the highest rung that the trial has reached; None before the first."""
        return self.reports[-1] if self.reports else None

    @property
    def num_steps(self) -> int:
        """Optimizer steps at the last report."""
        return self.last.step if self.last else 0

    def get_value(self, metric: Metric) -> float | None:
        """The metric at the last report; None before the first."""
        return self.last.metrics.get(metric.name, math.nan) if self.last else None

    def get_worth(self, metric: Metric) -> float:
        """The metric at the last report, where more is better; NaN and infinities are worst."""
        value = self.get_value(metric)
        if value is None or not math.isfinite(value):
            return -math.inf
        return metric.sign * value

    def find_best_value(self, metric: Metric) -> float | None:
        """The best finite value of the metric at any report; None without one."""
        finite = [value for value in self.get_values(metric).values() if math.isfinite(value)]
        return metric.choose_best(finite) if finite else None

    def get_values(self, metric: Metric) -> dict[int, float]:
        """The metric by step."""
        return {one.step: one.metrics.get(metric.name, math.nan) for one in self.reports}


def replay(events: Iterable[dict[str, Any]]) -> list[TrialRecord]:
    """The trials of the search that the events tell of, by number.

    A step that is told twice counts as told first: that is what the search decided on. A trial
    that starts again after its end is running again.
    """
    return [record for record in replay_all(events) if record.final_of is None]


def replay_finals(events: Iterable[dict[str, Any]]) -> list[TrialRecord]:
    """The runs of the finals that the events tell of, by number of their trial and seed."""
    return [record for record in replay_all(events) if record.final_of is not None]


def replay_all(events: Iterable[dict[str, Any]]) -> list[TrialRecord]:
    """The trials of the search by number, each before its runs of the finals.

    Raises:
        SweepAborted: the log tells of a trial that has not started, so it lacks lines.
    """
    trials = _Trials()
    for event in events:
        if event["kind"] == "trial_started":
            trial_id = event["trial_id"]
            trials[trial_id] = {
                "trial_id": trial_id,
                "number": event["number"],
                "params": parse_params(event),
                "is_asked": event.get("is_asked", False),
                "reports": trials[trial_id]["reports"] if trial_id in trials else {},
            }
        elif event["kind"] == "finals_started":
            for run in event["runs"]:
                known = {name: trials[run["of"]][name] for name in ("number", "params")}
                known |= {"trial_id": run["trial_id"], "final_of": run["of"], "seed": run["seed"]}
                trials.setdefault(run["trial_id"], {**known, "reports": {}})
        elif event["kind"] == "report":
            report = parse_report(event)
            trials[report.trial_id]["reports"].setdefault(report.step, report)
        elif event["kind"] == "trial_ended":
            trials[event["trial_id"]] |= {"status": event["status"], "reason": event["reason"]}
    for trial in trials.values():
        trial["reports"] = [report for _, report in sorted(trial["reports"].items())]
    records = [TrialRecord(**trial) for trial in trials.values()]
    return sorted(records, key=lambda r: (r.number, r.final_of is not None, r.seed or 0))


class _Trials(dict[str, dict[str, Any]]):
    """What is known of each trial so far, by its id."""

    def __missing__(self, trial_id: str) -> NoReturn:
        raise SweepAborted(
            f"events.jsonl tells of {trial_id}, and no line before says that it has started",
            f"restore the run's events.jsonl from a copy, or remove all lines of {trial_id}",
        )


def find_reported(paths: RunPaths, trial_id: str) -> TrialRecord:
    """The record of a trial, or of a run of the finals, that has a report.

    Raises:
        SweepAborted: there is none of that name, or it has none.
    """
    records = replay_all(read_events(paths.events))
    record = next((record for record in records if record.trial_id == trial_id), None)
    if record is None:
        known = ", ".join(record.trial_id for record in records if record.reports)
        fix = f"name one that has reported: {known}" if known else "let the sweep go on first"
        raise SweepAborted(f"there is no trial {trial_id!r} in {paths.folder}", fix)
    if not record.reports:
        ended = f" ({record.status}: {record.reason})" if record.status else ""
        error = f"the trial {trial_id} has reported nothing{ended}"
        raise SweepAborted(error, "name one that has reported")
    return record
