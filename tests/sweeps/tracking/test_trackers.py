"""Trackers beside W&B, with their real libraries: what they show is read back through these."""

import os
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.records.paths import RunPaths
from sweeps.tracking import follow_log, trackers
from sweeps.tracking.follow_log import Trackers
from sweeps.tracking.trackers import check_trackers, make_trackers
from tests.sweeps.tracking.test_wandb_tracker import CONFIG, METRIC, LoggedSweep, make_config
from trainables.errors import SweepAborted

pytestmark = pytest.mark.slow

NAMES = ("mlflow",)


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(follow_log, "POLL_INTERVAL_S", 0.1)
    monkeypatch.chdir(tmp_path)


class TrackedSweep(LoggedSweep):
    """A sweep that writes its log, and the trackers that follow it."""

    def __init__(self, folder: Path, *names: str) -> None:
        super().__init__(folder, "disabled")
        config = replace(CONFIG, track=",".join(names or NAMES))
        self.paths = RunPaths(folder)
        shown = make_trackers(config, "disabled", self.paths, METRIC, "my sweep", "id-1")
        self.tracker = Trackers(self.paths, shown)
        self._log.append("sweep_started", name="my sweep")

    def end_sweep(self, winner: str) -> None:
        """The summary, and a folder best/ with a file that is exported and one that is not."""
        self.paths.best.mkdir(exist_ok=True)
        for name in ("adapter_config.json", "test_predictions.jsonl"):
            (self.paths.best / name).write_text("{}")
        values = {"test/rougeLsum": 31.5, "winner": winner, "adapter": winner, "doubts": "some"}
        self._log.append("summary", values=values, confusion=None)


def run_search(sweep: TrackedSweep) -> None:
    """Two trials, of which one fails, and a run of the finals."""
    sweep.complete(0)
    sweep.start(make_config(1))
    sweep.report(make_config(1), 10, score=float("nan"))
    sweep.end(make_config(1), "failed", "loss is nan")
    sweep.start_final(make_config(0), "f0000s1", seed=7)
    sweep.report(replace(make_config(0), trial_id="f0000s1"), 10, 20, 40)
    sweep.end(replace(make_config(0), trial_id="f0000s1"), "completed")


@pytest.fixture(scope="session")
def empty_mlflow_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database without a run: to make one takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow_client(folder).search_experiments()
    return folder / "mlruns" / "mlflow.db"


def mlflow_client(folder: Path) -> Any:
    return trackers._load("mlflow").open_client(RunPaths(folder))


def mlflow_runs(folder: Path) -> dict[str, Any]:
    """By name; asserts that no name is there twice."""
    client = mlflow_client(folder)
    runs = client.search_runs([client.get_experiment_by_name("proj").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert len(by_name) == len(runs) > 0
    return by_name


def mlflow_curve(folder: Path, run: Any, metric: str) -> list[tuple[int, float]]:
    points = mlflow_client(folder).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def test_mlflow_has_a_parent_run_and_in_it_a_run_a_trial_and_final(
    tmp_path: Path, empty_mlflow_db: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a?b%20c" / "my run"
    (folder / "mlruns").mkdir(parents=True)
    shutil.copy(empty_mlflow_db, folder / "mlruns")
    sweep = TrackedSweep(folder, "mlflow")
    sweep.tracker.start()
    run_search(sweep)
    sweep.end_sweep("f0000s1")
    sweep.tracker.finish()
    runs = mlflow_runs(folder)
    assert sorted(runs) == ["f0000s1", "my sweep", "t0000", "t0001"]
    parent, trial, failed, final = (runs[n] for n in ("my sweep", "t0000", "t0001", "f0000s1"))
    for run in (trial, failed, final):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (trial.data.params["lora_rank"], trial.data.params["learning_rate"]) == ("8", "0.0002")
    assert trial.data.metrics["best_rougeLsum"] == 40.0
    assert mlflow_curve(folder, trial, "rougeLsum") == [(10, 30.0), (20, 40.0)]
    assert (trial.info.status, trial.data.tags["status"]) == ("FINISHED", "completed")
    assert (failed.info.status, failed.data.tags["reason"]) == ("FAILED", "loss is nan")
    assert "best_rougeLsum" not in failed.data.metrics
    assert (final.data.tags["job_type"], final.data.params["seed"]) == ("final", "7")
    assert final.data.params["final_of"] == "t0000"
    assert parent.data.params["batch_size"] == str(CONFIG.batch_size)
    assert (parent.info.status, parent.data.metrics["test/rougeLsum"]) == ("FINISHED", 31.5)
    assert (parent.data.tags["winner"], parent.data.tags["doubts"]) == ("f0000s1", "some")
    copied = [p.name for p in folder.rglob("mlruns/artifacts/*/artifacts/best/*")]
    assert copied == ["adapter_config.json"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", NAMES)
def test_tracker_that_is_not_installed_is_told_with_its_remedy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, track=f"wandb,{name}")
    check_trackers(config, RunPaths(tmp_path))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SweepAborted, match=f"--track {name} needs") as caught:
        check_trackers(config, RunPaths(tmp_path))
    assert f"pip install '.[{name}]'" in caught.value.fix


def test_folder_named_as_a_library_is_not_that_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for module in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(SweepAborted, match="--track mlflow needs"):
        check_trackers(replace(CONFIG, track="mlflow"), RunPaths(tmp_path))


def test_mlflow_server_that_does_not_answer_is_told_before_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://me:secret@127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SweepAborted, match="MLflow cannot be reached at http") as caught:
        check_trackers(replace(CONFIG, track="mlflow"), RunPaths(tmp_path))
    assert "secret" not in caught.value.error and "MLFLOW_TRACKING_URI" in caught.value.fix
    assert not (tmp_path / "mlruns").exists()
