"""What the event log tells of each trial: one record a trial, from which all tables are made."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sweeps.records.events import Status, params_from_event, report_from_event
from trainables.config import Hyperparameters, TrialReport


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
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


def replay(events: Iterable[dict[str, Any]]) -> list[TrialRecord]:
    """The trials of the search that the events tell of, by number.

    A step that is told twice counts as told first: that is what the search decided on. A trial
    that starts again after its end is running again.
    """
    return [history for history in replay_all(events) if history.final_of is None]


def replay_finals(events: Iterable[dict[str, Any]]) -> list[TrialRecord]:
    """The runs of the finals that the events tell of, by number of their trial and seed."""
    return [history for history in replay_all(events) if history.final_of is not None]


def replay_all(events: Iterable[dict[str, Any]]) -> list[TrialRecord]:
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
        TrialRecord(**trial, reports=[report for _, report in sorted(reports[trial_id].items())])
        for trial_id, trial in trials.items()
    ]
    return sorted(histories, key=lambda one: (one.number, one.final_of is not None, one.seed or 0))
