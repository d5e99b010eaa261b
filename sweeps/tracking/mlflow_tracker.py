"""MLflow: a parent run of the sweep, and nested in it a run a trial and a run of the finals."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric as MlflowMetric
from mlflow.entities import Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.tracking.run_values import (
    SUMMARY,
    TrackedRun,
    TrackedSweep,
    find_end,
    list_changed_runs,
    read_time_ms,
)

SWEEP_TAG, RUN_TAG = "sweep_id", "run"
"""Tags by which a replay finds the runs of earlier ones, so that there are no duplicates."""
PARENT = "sweep"
"""What RUN_TAG says of the parent run; of the others it is the trial's id."""
STATUS_TAG, ADAPTER_TAG = "status", "adapter_logged"
"""Tags that are written last, when all else is."""
MAX_METRICS, MAX_PARAMS = 1000, 100
"""What MLflow takes in one request."""
MAX_KEY = 250
"""Letters of a name; some stores of MLflow take no more."""
MAX_CHARS = 5000
"""Letters of a param or tag; MLflow takes 6,000 and 8,000."""

_STATES = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


@dataclass
class _Run:
    run_id: str
    status: str = ""
    """What STATUS_TAG says."""
    num_reports: int = 0
    """Reports that this process has logged; MLflow keeps one of two that are the same."""
    adapter: str = ""
    """What ADAPTER_TAG says."""
    params: Set[str] = frozenset()
    """Names of those that are there."""


class MlflowTracker:
    """A Tracker that writes to the server or database of MLFLOW_TRACKING_URI, else RUN/mlruns.

    The experiment is MLFLOW_EXPERIMENT_NAME, else the W&B project.
    """

    name = "mlflow"

    def __init__(self, sweep: TrackedSweep) -> None:
        self._sweep = sweep
        self._client = open_client(sweep.paths)
        self._experiment_id = ""
        """Empty until what is there has been asked for."""
        self._runs: dict[str, _Run] = {}
        """By RUN_TAG."""
        self._written: dict[str, str] = {}

    def replay(self, events: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]) -> None:
        """Writes what the runs lack."""
        try:
            if not self._experiment_id:
                self._find_runs()
            parent = self._open_run(PARENT, "sweep", read_time_ms(events[0]))
            self._log_params(parent, self._sweep.values)
            if find_end(events) is None:
                self._set_status(parent, "running")
            for run in list_changed_runs(self._sweep, events, trials, self._written):
                if run.job_type == SUMMARY:
                    self._end_sweep(parent, run)
                else:
                    self._write(run)
        except Exception:
            self._experiment_id = ""  # what is there has to be asked for again
            raise

    def close(self, *, is_disk_trusted: bool) -> None:
        """Ends the runs that nobody goes on with now; a resume opens them again."""
        if not self._experiment_id:
            return
        self._written.clear()
        for run in self._runs.values():
            if run.status == "running":
                self._set_status(run, "interrupted")

    def _find_runs(self) -> None:
        """Opens the experiment, and finds in it what earlier replays wrote."""
        client = self._client
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self._sweep.config.wandb_project
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            experiment_id = experiment.experiment_id
        else:
            folder = self._sweep.paths.mlruns / "artifacts"
            experiment_id = client.create_experiment(name, None if find_uri() else folder.as_uri())
        self._runs, self._written = {}, {}
        is_mine, page = f"tags.{SWEEP_TAG} = '{self._sweep.sweep_id}'", None
        while page is None or page.token:
            token = page and page.token
            page = client.search_runs([experiment_id], is_mine, page_token=token)
            for run in page:
                tags = run.data.tags
                self._runs[tags[RUN_TAG]] = _Run(
                    run.info.run_id,
                    status=tags.get(STATUS_TAG, ""),
                    adapter=tags.get(ADAPTER_TAG, ""),
                    params=run.data.params.keys(),
                )
        self._experiment_id = experiment_id

    def _end_sweep(self, parent: _Run, summary: TrackedRun) -> None:
        """Gives the parent run the scores on test and the winner's adapter."""
        if parent.status != "completed":
            self._log_metrics(parent, summary.points)
            self._set_status(parent, "completed", summary.values, summary.ended_ms)
        adapter = summary.values["adapter"]
        if parent.adapter != adapter and summary.files:
            for path in summary.files:
                self._client.log_artifact(parent.run_id, str(path), path.parent.name)
            self._client.set_tag(parent.run_id, ADAPTER_TAG, adapter)
            parent.adapter = adapter

    def _write(self, tracked: TrackedRun) -> None:
        run = self._open_run(tracked.name, tracked.job_type, tracked.began_ms)
        if run.status == tracked.status != "running":
            return
        self._log_params(run, tracked.values)
        self._log_metrics(run, tracked.points[run.num_reports :])
        run.num_reports = len(tracked.points)
        facts = {"reason": tracked.reason, **tracked.place}
        self._set_status(run, tracked.status, facts, tracked.ended_ms)

    def _open_run(self, name: str, job_type: str, began_ms: int) -> _Run:
        """The run of that RUN_TAG, which is made if it is not there."""
        if name in self._runs:
            return self._runs[name]
        tags = {SWEEP_TAG: self._sweep.sweep_id, RUN_TAG: name, "job_type": job_type}
        tags |= {"recipe": self._sweep.config.recipe}
        if name != PARENT:
            tags[MLFLOW_PARENT_RUN_ID] = self._runs[PARENT].run_id
        shown_name = self._sweep.name if name == PARENT else name
        created = self._client.create_run(self._experiment_id, began_ms or None, tags, shown_name)
        run = self._runs[name] = _Run(created.info.run_id)
        return run

    def _log_params(self, run: _Run, params: Mapping[str, Any]) -> None:
        """Those that are not there: a process may have died after it had made the run."""
        cleaned = {_clean_name(key): str(value)[:MAX_CHARS] for key, value in params.items()}
        shown = [Param(key, value) for key, value in cleaned.items() if key not in run.params]
        for begin in range(0, len(shown), MAX_PARAMS):
            self._client.log_batch(run.run_id, params=shown[begin : begin + MAX_PARAMS])
        run.params = cleaned.keys()

    def _log_metrics(self, run: _Run, points: Sequence[tuple[int, int, dict[str, float]]]) -> None:
        """Args: points: step, time in Unix milliseconds, and values by name."""
        metrics = [
            MlflowMetric(_clean_name(name), float(value), time_ms, step)
            for step, time_ms, values in points
            for name, value in values.items()
        ]
        for begin in range(0, len(metrics), MAX_METRICS):
            self._client.log_batch(run.run_id, metrics=metrics[begin : begin + MAX_METRICS])

    def _set_status(
        self,
        run: _Run,
        status: str,
        facts: Mapping[str, Any] | None = None,
        ended_ms: int | None = None,
    ) -> None:
        """Args: facts: further tags."""
        if run.status == status:
            return
        if status == "running":
            self._client.update_run(run.run_id, _STATES[status])
        else:
            self._client.set_terminated(run.run_id, _STATES[status], ended_ms)
        tags = {**(facts or {}), STATUS_TAG: status}
        shown = [RunTag(_clean_name(key), str(value)[:MAX_CHARS]) for key, value in tags.items()]
        self._client.log_batch(run.run_id, tags=shown)
        run.status = status


def find_uri() -> str:
    """What MLFLOW_TRACKING_URI says; "" where RUN/mlruns is written."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip()


def open_client(paths: RunPaths) -> MlflowClient:
    """The client of the user's server or database, or of the run's own."""
    if not find_uri():
        paths.mlruns.mkdir(exist_ok=True)
    return MlflowClient(find_uri() or paths.mlflow_url)


def _clean_name(name: str) -> str:
    """A name that MLflow takes. It is a path there, of few letters; one that has to change ends in
    a hash, so that two names stay two."""
    shown = re.sub(r"[^\w/. -]", "_", name)
    shown = "/".join(re.sub(r"^\.*$", "_", part) for part in shown.split("/"))
    if shown == name and len(name) <= MAX_KEY:
        return name
    return f"{shown[: MAX_KEY - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
