"""Trackio: a run a trial, in a local database that its dashboard shows.

Trackio's public functions print, ask the Hub who the user is, and tell of no failure. So its
storage is written to, which its own importers use; the package's version is bounded for that.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeps.records.trial_record import TrialRecord
from sweeps.tracking.run_values import SUMMARY, TrackedRun, TrackedSweep, list_changed_runs


class TrackioTracker:
    """A Tracker that writes to the folder TRACKIO_DIR, else to RUN/trackio.

    Runs are grouped by the sweep's name in the project that W&B has too.
    """

    name = "trackio"

    def __init__(self, sweep: TrackedSweep) -> None:
        self._storage = _load_storage(sweep.paths.trackio)
        self._sweep = sweep
        self._written: dict[str, str] = {}

    def replay(self, events: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]) -> None:
        """Writes what has changed; rows that are there already are not written twice."""
        for run in list_changed_runs(self._sweep, events, trials, self._written):
            self._write(run)

    def close(self, *, is_disk_trusted: bool) -> None:
        """Nothing is open: each replay ends with what it has written in the database."""

    def _write(self, run: TrackedRun) -> None:
        facts = dict(run.values)
        if run.job_type != SUMMARY:
            facts = self._sweep.values | facts | {"job_type": run.job_type}
            facts |= {"status": run.status, "reason": run.reason}
        shown = {
            key: value if isinstance(value, str | int | float) else str(value)
            for key, value in facts.items()
            if value is not None
        }
        points = run.points
        if not points and run.ended_ms is not None:  # a run without a row is not shown
            points = [(0, run.ended_ms, {})]
        run_id = self._sweep.make_run_id(run.name)
        self._storage.bulk_log(
            project=self._sweep.config.wandb_project,
            run=run.name,
            metrics_list=[numbers for _, _, numbers in points],
            steps=[step for step, _, _ in points],
            timestamps=[_format_time(time_ms) for _, time_ms, _ in points],
            config=shown | {"_Group": self._sweep.name, "_Created": _format_time(run.began_ms)},
            log_ids=[f"{run_id}-{step}-{time_ms}" for step, time_ms, _ in points],
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
