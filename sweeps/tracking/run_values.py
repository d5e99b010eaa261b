"""What trackers show of a sweep, a trial, a report and the end, under the names that we use."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sweeps.config import SweepConfig
from sweeps.records.events import params_fields, report_fields
from sweeps.records.trial_record import TrialRecord
from trainables.config import Metric, TrialReport

_HIDDEN = ("trial_id", "step", "checkpoint", "cohort", "pack", "slot", "entered", "device")


def list_sweep_values(config: SweepConfig) -> dict[str, Any]:
    """What all trials of the sweep share; those of a group are prefixed with its name."""
    values = asdict(config.settings)
    del values["rows_dir"]  # a folder of this machine
    values |= {name: getattr(config, name) for name in ("recipe", "engine", "task", "data")}
    for group in ("task_options", "space"):
        values |= {f"{group}.{k}": v for k, v in asdict(getattr(config, group)).items()}
    return values


def list_trial_values(trial: TrialRecord) -> dict[str, Any]:
    """The hyperparameters of a trial and, of a run of the finals, whose it is."""
    values = {"number": trial.number} | params_fields(trial.params)
    values["target_modules"] = ",".join(trial.params.target_modules)  # no tracker plots lists
    ratio = trial.params.lora_alpha / trial.params.lora_rank
    values["alpha_over_rank"] = round(ratio, 12)  # as in the space: 0.1 * 6 / 6 is another than 0.1
    if trial.final_of is not None:
        values |= {"final_of": trial.final_of, "seed": trial.seed}
    return values


def list_report_values(report: TrialReport) -> dict[str, Any]:
    """Scores, losses and speed of a report, without what names it and its place."""
    values = report_fields(report)
    values |= values.pop("metrics")
    return {name: value for name, value in values.items() if name not in _HIDDEN}


def list_numbers(report: TrialReport, best: float | None, metric: Metric) -> dict[str, float]:
    """The numbers of a report as a tracker of curves takes them.

    Args:
        best: value of the metric up to here.
    """
    values = list_report_values(report) | {f"best_{metric.name}": best}
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def list_curve(trial: TrialRecord, metric: Metric) -> list[tuple[int, dict[str, float]]]:
    """The numbers of each report of a trial by step, with the best value up to it."""
    choose = max if metric.mode == "max" else min
    curve, best = [], None
    for report in trial.reports:
        value = report.metrics[metric.name]
        if math.isfinite(value):
            best = value if best is None else choose(best, value)
        curve.append((report.step, list_numbers(report, best, metric)))
    return curve


def find_end(events: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The "summary" event of a sweep that has ended and was not resumed since: its "values" are
    scores on test by name, and words."""
    for event in reversed(events):
        if event["kind"] in ("sweep_started", "sweep_resumed"):
            return None
        if event["kind"] == "summary":
            return {**event, "values": restore_numbers(event["values"])}
    return None


def restore_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of an event as they were: the log, which is strict JSON, holds numbers that are not
    finite as strings."""
    return {n: float(v) if v in ("nan", "inf", "-inf") else v for n, v in values.items()}


def split_numbers(values: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """The numbers among values, and all else, by name."""
    numbers = {name: v for name, v in values.items() if isinstance(v, int | float)}
    return numbers, {name: v for name, v in values.items() if name not in numbers}


def list_times(events: Iterable[dict[str, Any]]) -> dict[tuple[str, str, int], int]:
    """When each event of a trial was logged first (its end: last), in Unix milliseconds, by kind,
    trial and step (0 without a step)."""
    times: dict[tuple[str, str, int], int] = {}
    for event in events:
        if "trial_id" in event:
            key = (event["kind"], event["trial_id"], event.get("step", 0))
            if event["kind"] == "trial_ended" or key not in times:
                times[key] = read_time_ms(event)
    return times


def read_time_ms(event: dict[str, Any]) -> int:
    """When an event was logged, in Unix milliseconds."""
    return round(datetime.fromisoformat(event["time"]).timestamp() * 1000)
