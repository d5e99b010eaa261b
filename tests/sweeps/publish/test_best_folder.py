"""A run without best/: what became of its trials, and what to do."""

import json
from pathlib import Path

import pytest

from sweeps.config import to_json
from sweeps.records.paths import RunPaths
from sweeps.records.run_lock import lock_run
from tests.sweeps.commands import call
from tests.sweeps.control.controllers import open_controller
from tests.sweeps.invented_sweep import make_config, make_report


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """A run before its first event."""
    paths = RunPaths(tmp_path / "my runs" / "invented")
    paths.folder.mkdir(parents=True)
    record = {"sweep_id": "1", "name": "invented", "digests": {}, "config": to_json(make_config())}
    record["metric"] = {"name": "rougeLsum", "mode": "max"}
    paths.sweep_json.write_text(json.dumps(record))
    return paths


def begin_trials(paths: RunPaths) -> None:
    """One that failed, one that was stopped, and one that has reported."""
    controller = open_controller(paths.folder, make_config())
    for _ in range(3):
        controller.next_trial()
    controller.report(make_report("t0002", 1, 2.0))
    controller.end("t0000", "failed", "out of memory")
    controller.end("t0001", "stopped", "place 2 of 2")


def refuse(paths: RunPaths) -> tuple[str, str]:
    return call("sweeps.export", str(paths.folder), "--to", str(paths.folder / "copy")).refusal()


def test_run_without_a_finished_trial_says_what_became_of_them(paths: RunPaths) -> None:
    error, fix = refuse(paths)
    assert "has no best/ yet: no trial has begun" in error and "--resume" in fix
    begin_trials(paths)
    error, fix = refuse(paths)
    assert "has no best/ yet: 1 failed, 1 stopped, 1 unfinished" in error
    assert "--resume" in fix and "trials.csv says why" in fix


def test_run_that_goes_on_is_to_be_waited_for(paths: RunPaths) -> None:
    begin_trials(paths)
    with lock_run(paths, "sweep"):
        error, fix = refuse(paths)
    assert "has no best/ yet: 1 failed, 1 running, 1 stopped" in error and "--resume" not in fix
    assert f"wait, or python -m sweeps.status '{paths.folder}' --watch" in fix
    with lock_run(paths, "sync"):  # it runs no trials
        assert "--resume" in refuse(paths)[1]
