"""Trackio: a run a trial, in a local database that its dashboard shows.

Trackio's public functions print, ask the Hub who the user is, and tell of no failure. So its
storage is written to, which its own importers use; the package's version is bounded for that.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeps.config import SweepConfig
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.tracking import run_values
from sweeps.tracking.wandb_tracker import make_run_id
from trainables.config import Metric


class TrackioTracker:
    """A Tracker that writes to the folder TRACKIO_DIR, else to RUN/trackio.

    Runs are grouped by the sweep's name in the project that W&B has too.

    Args:
        metric: whose best value each run shows.
        name: that the sweep began with.
        sweep_id: unique among sweeps.
    """

    name = "trackio"

    def __init__(
        self, config: SweepConfig, paths: RunPaths, metric: Metric, name: str, sweep_id: str
    ) -> None:
        self._storage = _load_storage(paths.trackio)
        self._config = config
        self._metric = metric
        self._sweep_name = name
        self._sweep_id = sweep_id
        self._written: dict[str, tuple[object, ...]] = {}
        """By run, what was written last of what changes."""

    def replay(self, events: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]) -> None:
        """Writes what has changed; rows that are there already are not written twice."""
        times = run_values.list_times(events)
        for trial in trials:
            state = (len(trial.reports), trial.status)
            if self._written.get(trial.trial_id) != state:
                self._write_trial(trial, times)
                self._written[trial.trial_id] = state
        end = run_values.find_end(events)
        if end is not None and self._written.get("summary") != (end["time"],):
            time_ms = run_values.read_time_ms(end)
            numbers, words = run_values.split_numbers(end["values"])
            self._write("summary", words, [(0, time_ms, numbers)], time_ms)
            self._written["summary"] = (end["time"],)

    def close(self, *, is_disk_trusted: bool) -> None:
        """Nothing is open: each replay ends with what it has written in the database."""

    def _write_trial(self, trial: TrialRecord, times: dict[tuple[str, str, int], int]) -> None:
        name = trial.trial_id
        facts = run_values.list_sweep_values(self._config) | run_values.list_trial_values(trial)
        facts |= {"job_type": "final" if trial.final_of else "trial", "reason": trial.reason}
        facts["status"] = trial.status or "running"
        rows = [
            (step, times["report", name, step], numbers)
            for step, numbers in run_values.list_curve(trial, self._metric)
        ]
        began_ms = times.get(("trial_started", name, 0), rows[0][1] if rows else 0)
        if not rows and trial.status is not None:  # a run without a row is not shown
            rows = [(0, times["trial_ended", name, 0], {})]
        self._write(name, facts, rows, began_ms)

    def _write(
        self,
        name: str,
        facts: dict[str, Any],
        rows: Sequence[tuple[int, int, dict[str, float]]],
        began_ms: int,
    ) -> None:
        """Args: rows: step, time in Unix milliseconds, and values by name."""
        run_id = make_run_id(self._sweep_name, self._sweep_id, name)
        shown = {
            key: value if isinstance(value, str | int | float) else str(value)
            for key, value in facts.items()
            if value is not None
        }
        self._storage.bulk_log(
            project=self._config.wandb_project,
            run=name,
            metrics_list=[numbers for _, _, numbers in rows],
            steps=[step for step, _, _ in rows],
            timestamps=[_format_time(time_ms) for _, time_ms, _ in rows],
            config=shown | {"_Group": self._sweep_name, "_Created": _format_time(began_ms)},
            log_ids=[f"{run_id}-{step}-{time_ms}" for step, time_ms, _ in rows],
            run_id=run_id,
        )


def _load_storage(folder: Path) -> Any:
    """Trackio's storage. It reads the variable once, when the process loads it."""
    is_users = bool(os.environ.get("TRACKIO_DIR"))
    if not is_users:
        os.environ["TRACKIO_DIR"] = str(folder)
    try:
        import trackio
        from trackio.sqlite_storage import SQLiteStorage
    finally:
        if not is_users:
            del os.environ["TRACKIO_DIR"]
    if not is_users and folder != trackio.TRACKIO_DIR:
        raise RuntimeError(f"this process has Trackio write to {trackio.TRACKIO_DIR} already")
    return SQLiteStorage


def _format_time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()
