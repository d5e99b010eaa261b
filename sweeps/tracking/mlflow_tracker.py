"""MLflow: a parent run of the sweep, and nested in it a run a trial and a run of the finals."""

import hashlib
import os
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import Metric as MlflowMetric
from mlflow.entities import Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from sweeps.config import SweepConfig
from sweeps.publish.best_folder import list_exported
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.tracking import run_values
from trainables.config import Metric

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
"""Of a param or tag; MLflow takes 6,000 and 8,000."""

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

    Args:
        metric: whose best value each run shows.
        name: that the sweep began with.
        sweep_id: unique among sweeps.
    """

    name = "mlflow"

    def __init__(
        self, config: SweepConfig, paths: RunPaths, metric: Metric, name: str, sweep_id: str
    ) -> None:
        self._config = config
        self._paths = paths
        self._metric = metric
        self._sweep_name = name
        self._sweep_id = sweep_id
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._runs: dict[str, _Run] = {}
        """By RUN_TAG."""

    def replay(self, events: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]) -> None:
        """Writes what the runs lack."""
        try:
            client = self._client or self._connect()
            times = run_values.list_times(events)
            self._replay_sweep(client, events)
            for trial in trials:
                self._replay_trial(client, trial, times)
        except Exception:
            self._client = None  # what is there has to be asked for again
            raise

    def close(self, *, is_disk_trusted: bool) -> None:
        """Ends the runs that nobody goes on with now; a resume opens them again."""
        if self._client is None:
            return
        for run in self._runs.values():
            if run.status == "running":
                self._set_status(self._client, run, "interrupted")

    def _connect(self) -> MlflowClient:
        """Opens the experiment, and finds in it what earlier replays wrote."""
        client = open_client(self._paths)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self._config.wandb_project
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            self._experiment_id = experiment.experiment_id
        else:
            folder = self._paths.mlruns / "artifacts"
            self._experiment_id = client.create_experiment(
                name, None if find_uri() else folder.as_uri()
            )
        self._runs = {}
        is_mine, page = f"tags.{SWEEP_TAG} = '{self._sweep_id}'", None
        while page is None or page.token:
            token = page and page.token
            page = client.search_runs([self._experiment_id], is_mine, page_token=token)
            for run in page:
                tags = run.data.tags
                self._runs[tags[RUN_TAG]] = _Run(
                    run.info.run_id,
                    status=tags.get(STATUS_TAG, ""),
                    adapter=tags.get(ADAPTER_TAG, ""),
                    params=run.data.params.keys(),
                )
        self._client = client
        return client

    def _replay_sweep(self, client: MlflowClient, events: Sequence[dict[str, Any]]) -> None:
        """The parent run, which gets the scores on test and the winner's adapter in the end."""
        run = self._runs.get(PARENT)
        if run is None:
            began_ms = run_values.read_time_ms(events[0])
            run = self._create_run(client, PARENT, "sweep", began_ms)
        self._log_params(client, run, run_values.list_sweep_values(self._config))
        end = run_values.find_end(events)
        if end is None:
            return self._set_status(client, run, "running")
        if run.status != "completed":
            time_ms = run_values.read_time_ms(end)
            numbers, words = run_values.split_numbers(end["values"])
            self._log_metrics(client, run, [(0, time_ms, numbers)])
            self._set_status(client, run, "completed", words, time_ms)
        adapter = end["values"]["adapter"]
        if run.adapter != adapter and self._paths.best.is_dir():
            for path in list_exported(self._paths.best):
                client.log_artifact(run.run_id, str(path), self._paths.best.name)
            client.set_tag(run.run_id, ADAPTER_TAG, adapter)
            run.adapter = adapter

    def _replay_trial(
        self, client: MlflowClient, trial: TrialRecord, times: dict[tuple[str, str, int], int]
    ) -> None:
        name, status = trial.trial_id, trial.status or "running"
        run = self._runs.get(name)
        if run is None:
            job_type = "trial" if trial.final_of is None else "final"
            began_ms = times.get(("trial_started", name, 0))
            run = self._create_run(client, name, job_type, began_ms)
        if run.status == status != "running":
            return
        self._log_params(client, run, run_values.list_trial_values(trial))
        curve = run_values.list_curve(trial, self._metric)[run.num_reports :]
        points = [(step, times["report", name, step], values) for step, values in curve]
        self._log_metrics(client, run, points)
        run.num_reports = len(trial.reports)
        facts = {"reason": trial.reason}
        if trial.last is not None:
            facts |= {"pack": trial.last.pack, "device": trial.last.device}
        self._set_status(client, run, status, facts, times.get(("trial_ended", name, 0)))

    def _create_run(
        self, client: MlflowClient, name: str, job_type: str, began_ms: int | None
    ) -> _Run:
        tags = {SWEEP_TAG: self._sweep_id, RUN_TAG: name, "job_type": job_type}
        tags |= {"recipe": self._config.recipe}
        if name != PARENT:
            tags[MLFLOW_PARENT_RUN_ID] = self._runs[PARENT].run_id
        shown_name = self._sweep_name if name == PARENT else name
        created = client.create_run(self._experiment_id, began_ms, tags, shown_name)
        run = self._runs[name] = _Run(created.info.run_id)
        return run

    def _log_params(self, client: MlflowClient, run: _Run, params: dict[str, Any]) -> None:
        """Those that are not there: a process may have died after it had made the run."""
        cleaned = {_clean(key): str(value)[:MAX_CHARS] for key, value in params.items()}
        shown = [Param(key, value) for key, value in cleaned.items() if key not in run.params]
        for begin in range(0, len(shown), MAX_PARAMS):
            client.log_batch(run.run_id, params=shown[begin : begin + MAX_PARAMS])
        run.params = cleaned.keys()

    def _log_metrics(
        self, client: MlflowClient, run: _Run, points: Sequence[tuple[int, int, dict[str, float]]]
    ) -> None:
        """Args: points: step, time in Unix milliseconds, and values by name."""
        metrics = [
            MlflowMetric(_clean(name), float(value), time_ms, step)
            for step, time_ms, values in points
            for name, value in values.items()
        ]
        for begin in range(0, len(metrics), MAX_METRICS):
            client.log_batch(run.run_id, metrics=metrics[begin : begin + MAX_METRICS])

    def _set_status(
        self,
        client: MlflowClient,
        run: _Run,
        status: str,
        facts: dict[str, Any] | None = None,
        ended_ms: int | None = None,
    ) -> None:
        """Args: facts: further tags."""
        if run.status == status:
            return
        if status == "running":
            client.update_run(run.run_id, _STATES[status])
        else:
            client.set_terminated(run.run_id, _STATES[status], ended_ms)
        tags = {**(facts or {}), STATUS_TAG: status}
        shown = [RunTag(_clean(key), str(value)[:MAX_CHARS]) for key, value in tags.items()]
        client.log_batch(run.run_id, tags=shown)
        run.status = status


def find_uri() -> str:
    """What MLFLOW_TRACKING_URI says; "" where RUN/mlruns is written."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip()


def open_client(paths: RunPaths) -> MlflowClient:
    """The client of the user's server or database, or of the run's own."""
    uri = find_uri()
    if not uri:
        paths.mlruns.mkdir(exist_ok=True)
        uri = f"sqlite:///{quote(str(paths.mlruns / 'mlflow.db'))}"
    return MlflowClient(uri)


def _clean(name: str) -> str:
    """A name that MLflow takes. It is a path there, of few letters; one that has to change ends in
    a hash, so that two names stay two."""
    shown = re.sub(r"[^\w/. -]", "_", name)
    shown = "/".join(re.sub(r"^\.*$", "_", part) for part in shown.split("/"))
    if shown == name and len(name) <= MAX_KEY:
        return name
    return f"{shown[: MAX_KEY - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
