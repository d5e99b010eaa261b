"""What every tracker shows of a sweep, and of each of its runs, under the names that we use."""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sweeps.config import SweepConfig
from sweeps.records.events import make_params_fields, make_report_fields
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.tracking.wandb_mode import Mode
from trainables.config import Metric

SUMMARY = "summary"
"""Name of the run with the scores on test."""

_PLACE = ("pack", "slot", "device")
_HIDDEN = ("trial_id", "step", "checkpoint", "cohort", "entered", *_PLACE)


@dataclass(frozen=True, kw_only=True)
class TrackedSweep:
    """A sweep as its trackers know it."""

    config: SweepConfig
    wandb_mode: Mode
    paths: RunPaths
    metric: Metric
    """Whose best value each run shows."""
    name: str
    """That the sweep began with."""
    sweep_id: str
    """Unique among sweeps."""

    @property
    def values(self) -> dict[str, Any]:
        """What all trials share; values of a group are prefixed with its name."""
        values = asdict(self.config.settings)
        del values["rows_dir"], values["storage"]  # places of the owner's
        fields = ("recipe", "engine", "task", "data")
        values |= {name: getattr(self.config, name) for name in fields}
        for group in ("task_options", "space"):
            of_group = asdict(getattr(self.config, group))
            values |= {f"{group}.{name}": value for name, value in of_group.items()}
        return values

    def make_run_id(self, name: str) -> str:
        """Names a run the same at every resume, and as no run of another sweep, in letters that
        W&B and file systems allow."""
        clean_name = re.sub(r"[^A-Za-z0-9_-]", "-", self.name)[:64]
        return f"{clean_name}-{name}-{hashlib.sha256(self.sweep_id.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """A trial, a run of the finals, or the summary. Times are in Unix milliseconds."""

    name: str
    job_type: str
    """trial, final or summary."""
    version: str
    """Differs whenever there is more to show."""
    values: Mapping[str, Any]
    """Hyperparameters, or the summary's words."""
    points: Sequence[tuple[int, int, dict[str, float]]]
    """Step, time and numbers of each report, or the summary's scores."""
    began_ms: int
    ended_ms: int | None = None
    status: str = "running"
    reason: str = ""
    place: Mapping[str, Any] = field(default_factory=dict)
    """The pack, slot and device of the last report."""
    files: Sequence[Path] = ()
    """Files of the winner's folder that its event names, which the summary brings; what else lies
    there may hold rows of the data."""
    confusion: Mapping[str, Any] | None = None
    """Labels and counts of the winner on test, which the summary brings."""


def list_changed_runs(
    sweep: TrackedSweep,
    events: Sequence[dict[str, Any]],
    trials: Sequence[TrialRecord],
    written: dict[str, str],
) -> Iterator[TrackedRun]:
    """The runs that are not as they were written last.

    Args:
        written: what changes of each run that was written, by name, as text; each run is added once
            the next one is asked for.
    """
    times = _list_times(events)
    for trial in trials:
        version = f"{trial.status}, {len(trial.reports)} reports"
        if written.get(trial.trial_id) != version:
            yield _describe_trial(trial, version, times, sweep.metric)
            written[trial.trial_id] = version
    end = find_end(events)
    if end is not None and written.get(SUMMARY) != end["time"]:
        numbers, words = _split_numbers(end["values"])
        time_ms = read_time_ms(end)
        yield TrackedRun(
            name=SUMMARY,
            job_type=SUMMARY,
            version=end["time"],
            values=words,
            points=[(0, time_ms, numbers)],
            began_ms=time_ms,
            ended_ms=time_ms,
            status="completed",
            files=_list_files(end, sweep.paths.best),
            confusion=end["confusion"],
        )
        written[SUMMARY] = end["time"]


def _describe_trial(
    trial: TrialRecord, version: str, times: dict[tuple[str, str, int], int], metric: Metric
) -> TrackedRun:
    name = trial.trial_id
    curve = list_curve(trial, metric)
    points = [(step, times["report", name, step], numbers) for step, numbers in curve]
    ended_ms = times["trial_ended", name, 0] if trial.status is not None else None
    began_ms = points[0][1] if points else ended_ms or 0  # of the finals, whose start is not logged
    return TrackedRun(
        name=name,
        job_type="final" if trial.final_of else "trial",
        version=version,
        values=_list_values(trial),
        points=points,
        began_ms=times.get(("trial_started", name, 0), began_ms),
        ended_ms=ended_ms,
        status=trial.status or "running",
        reason=trial.reason,
        place={n: getattr(trial.last, n) for n in _PLACE} if trial.last else {},
    )


def _list_values(trial: TrialRecord) -> dict[str, Any]:
    """The hyperparameters of a trial and, of a run of the finals, whose it is."""
    values = {"number": trial.number} | make_params_fields(trial.params)
    values["target_modules"] = ",".join(trial.params.target_modules)  # no tracker plots lists
    ratio = trial.params.lora_alpha / trial.params.lora_rank
    values["alpha_over_rank"] = round(ratio, 12)  # as in the space: 0.1 * 6 / 6 is another than 0.1
    if trial.final_of is not None:
        values |= {"final_of": trial.final_of, "seed": trial.seed}
    return values


def list_curve(trial: TrialRecord, metric: Metric) -> list[tuple[int, dict[str, float]]]:
    """The numbers of each report of a trial by step, with the best value of the metric up to it."""
    curve, best = [], None
    for report in trial.reports:
        value = report.metrics[metric.name]
        if math.isfinite(value):
            best = value if best is None else metric.choose_best((best, value))
        values = make_report_fields(report)
        values |= {**values.pop("metrics"), f"best_{metric.name}": best}
        numbers, _ = _split_numbers({k: v for k, v in values.items() if k not in _HIDDEN})
        curve.append((report.step, numbers))
    return curve


def find_end(events: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The "summary" event of a sweep that has ended and was not resumed since: its "values" are
    scores on test by name, and words. The log, which is strict JSON, holds numbers that are not
    finite as strings; here they are numbers again."""
    for event in reversed(events):
        if event["kind"] in ("sweep_started", "sweep_resumed"):
            return None
        if event["kind"] == "summary":
            values = event["values"].items()
            numbers = {n: float(v) for n, v in values if v in ("nan", "inf", "-inf")}
            return {**event, "values": event["values"] | numbers}
    return None


def _list_files(event: Mapping[str, Any], best: Path) -> list[Path]:
    paths = [best / Path(name).name for name in event.get("files", ())]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def read_time_ms(event: dict[str, Any]) -> int:
    """When an event was logged."""
    return round(datetime.fromisoformat(event["time"]).timestamp() * 1000)


def _split_numbers(values: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """The numbers among values, and all else, by name."""
    numbers = {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return numbers, {name: value for name, value in values.items() if name not in numbers}


def _list_times(events: Sequence[dict[str, Any]]) -> dict[tuple[str, str, int], int]:
    """When each event of a trial was logged first (its end: last), by kind, trial and step (0
    without a step)."""
    times: dict[tuple[str, str, int], int] = {}
    for event in events:
        if "trial_id" in event:
            key = (event["kind"], event["trial_id"], event.get("step", 0))
            if event["kind"] == "trial_ended" or key not in times:
                times[key] = read_time_ms(event)
    return times
