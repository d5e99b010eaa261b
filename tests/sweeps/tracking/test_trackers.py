"""Trackers beside W&B, with their real libraries: what they show is read back through these."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tensorboard import program as tensorboard_program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sweeps.records.paths import RunPaths
from sweeps.tracking import follow_log, tensorboard_tracker, trackers, trackio_tracker
from sweeps.tracking.follow_log import Trackers
from sweeps.tracking.trackers import check_trackers, make_trackers
from tests.sweeps.tracking.test_wandb_tracker import (
    CONFIG,
    LoggedSweep,
    make_config,
    make_tracked,
    wait_until,
)
from trainables.errors import SweepAborted

pytestmark = pytest.mark.slow

NAMES = ("mlflow", "trackio", "tensorboard")
Curves = dict[str, list[tuple[int, float]]]
"""Steps and values by trial."""


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads its folder when it is loaded
    monkeypatch.setattr(follow_log, "POLL_INTERVAL_S", 0.1)
    monkeypatch.chdir(tmp_path)


class FollowedSweep(LoggedSweep):
    """A sweep that writes its log, and the trackers that follow it."""

    def __init__(self, folder: Path, *names: str) -> None:
        super().__init__(folder, "disabled")
        config = replace(CONFIG, track=",".join(names or NAMES))
        self.paths = RunPaths(folder)
        shown = make_trackers(make_tracked(folder, config))
        self.tracker = Trackers(self.paths, shown)
        self._log.append("sweep_started", name="my sweep")

    def end_sweep(self, winner: str) -> None:
        """The summary, and a folder best/ with a file that is exported and one that is not."""
        self.paths.best.mkdir(exist_ok=True)
        for name in ("adapter_config.json", "test_predictions.jsonl"):
            (self.paths.best / name).write_text("{}")
        files = ["adapter_config.json"]
        values = {"test/rougeLsum": 31.5, "winner": winner, "adapter": winner, "doubts": "some"}
        self._log.append("summary", values=values, confusion=None, files=files)


def run_search(sweep: FollowedSweep) -> None:
    """Two trials, of which one fails, and a run of the finals."""
    sweep.complete(0)
    sweep.start(make_config(1))
    sweep.report(make_config(1), 10, score=float("nan"))
    sweep.end(make_config(1), "failed", "loss is nan")
    sweep.start_final(make_config(0), "f0000s1", seed=7)
    sweep.report(replace(make_config(0), trial_id="f0000s1"), 10, 20, 40)
    sweep.end(replace(make_config(0), trial_id="f0000s1"), "completed")


@pytest.fixture(scope="session")
def mlflow_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database without a run: to make one takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow_client(folder).search_experiments()
    return folder / "mlruns" / "mlflow.db"


@pytest.fixture
def folder(tmp_path: Path, mlflow_db: Path) -> Path:
    """A run folder, of a name that needs care in URLs."""
    folder = tmp_path / "a?b%20c" / "my run"
    (folder / "mlruns").mkdir(parents=True)
    shutil.copy(mlflow_db, folder / "mlruns")
    return folder


def mlflow_client(folder: Path) -> Any:
    return trackers._load_tracker("mlflow").open_client(RunPaths(folder))


def mlflow_runs(folder: Path) -> dict[str, Any]:
    """By name; asserts that no name is there twice."""
    client = mlflow_client(folder)
    ids = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
    runs = client.search_runs(ids)
    by_name = {run.info.run_name: run for run in runs}
    assert len(by_name) == len(runs) > 0
    return by_name


def mlflow_curves(folder: Path, metric: str) -> Curves:
    client = mlflow_client(folder)
    return {
        name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, metric)]
        for name, run in mlflow_runs(folder).items()
        if "mlflow.parentRunId" in run.data.tags
    }


def trackio_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """The config of each run, by name; asserts that no name is there twice."""
    runs = load_trackio(folder)[0]
    by_name = {run.name: run.config for run in runs}
    assert len(by_name) == len(runs) > 0
    return by_name


def trackio_curves(folder: Path, metric: str) -> Curves:
    runs, storage = load_trackio(folder)
    logs = {r.name: storage.get_logs(r.project, r.name, run_id=r.id) for r in runs}
    return {
        name: [(row["step"], row[metric]) for row in rows if metric in row]
        for name, rows in logs.items()
        if name != "summary"
    }


def load_trackio(folder: Path) -> tuple[Any, Any]:
    storage = trackio_tracker._load_storage(folder / "trackio")
    (project,) = storage.get_projects()
    return import_module("trackio").Api().runs(project), storage


def tensorboard_curves(folder: Path, metric: str) -> Curves:
    curves = {}
    for path in sorted(folder.glob("tensorboard/[tf]*")):
        log = EventAccumulator(str(path)).Reload()
        is_there = metric in log.Tags()["scalars"]
        curves[path.name] = [(p.step, p.value) for p in log.Scalars(metric)] if is_there else []
    return curves


CURVES: dict[str, Callable[[Path, str], Curves]] = {
    "mlflow": mlflow_curves,
    "trackio": trackio_curves,
    "tensorboard": tensorboard_curves,
}


def test_mlflow_has_a_parent_run_and_in_it_a_run_a_trial_and_final(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = FollowedSweep(folder, "mlflow")
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


def test_mlflow_gets_the_params_that_a_process_which_died_had_not_written(folder: Path) -> None:
    sweep = FollowedSweep(folder, "mlflow")
    sweep.start(make_config(0))
    sweep.tracker.finish()
    client, run_id = mlflow_client(folder), mlflow_runs(folder)["t0000"].info.run_id
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as database:
        database.execute("DELETE FROM params WHERE key != 'lora_rank'")
    sweep = FollowedSweep(folder, "mlflow")
    sweep.tracker.finish()
    params = client.get_run(run_id).data.params
    assert (params["lora_rank"], params["learning_rate"]) == ("8", "0.0002")
    assert mlflow_runs(folder)["my sweep"].data.params["batch_size"] == str(CONFIG.batch_size)


def test_any_name_is_one_that_mlflow_takes_and_stays_another_than_all_others() -> None:
    validate = import_module("mlflow.utils.validation")._validate_metric_name
    names = ["test/f1_a", "", ".", "..", "/a", "a/", "a//b", "a/../b", "a/./b", "ä:é", "a:", "a;"]
    names += ["x" * 251, "x" * 252]
    cleaned = [trackers._load_tracker("mlflow")._clean_name(name) for name in names]
    for name in cleaned:
        validate(name)
        assert 0 < len(name) <= 250
    assert cleaned[0] == names[0] and len(set(cleaned)) == len(names)


def test_trackio_has_a_run_a_trial_and_final_and_the_summary(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = FollowedSweep(folder, "trackio")
    sweep.tracker.start()
    run_search(sweep)
    sweep.end_sweep("f0000s1")
    sweep.tracker.finish()
    runs = trackio_runs(folder)
    assert sorted(runs) == ["f0000s1", "summary", "t0000", "t0001"]
    trial, failed, final = (runs[name] for name in ("t0000", "t0001", "f0000s1"))
    assert (trial["lora_rank"], trial["_Group"], trial["status"]) == (8, "my sweep", "completed")
    assert trial["batch_size"] == CONFIG.batch_size
    assert (failed["status"], failed["reason"]) == ("failed", "loss is nan")
    assert (final["job_type"], final["final_of"], final["seed"]) == ("final", "t0000", 7)
    assert runs["summary"]["winner"] == "f0000s1"
    assert trackio_curves(folder, "best_rougeLsum")["t0000"] == [(10, 30.0), (20, 40.0)]
    assert {p.name for p in folder.iterdir()} == {"best", "events.jsonl", "mlruns", "trackio"}
    assert capfd.readouterr() == ("", "")


def test_tensorboard_compares_trials_in_its_hparams_tab(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = FollowedSweep(folder, "tensorboard")
    sweep.tracker.start()
    run_search(sweep)
    sweep.end_sweep("f0000s1")
    sweep.tracker.finish()
    assert capfd.readouterr() == ("", "")
    server = tensorboard_program.TensorBoard()
    server.configure(logdir=str(folder / "tensorboard"), port=0, host="127.0.0.1")
    url = f"{server.launch()}data/plugin/hparams"
    known = ask(f"{url}/experiment", {"experimentName": ""})
    columns = {info["name"]: info["type"] for info in known["hparamInfos"]}
    assert columns["learning_rate"] == "DATA_TYPE_FLOAT64"
    assert columns["use_rslora"] == "DATA_TYPE_BOOL" and "number" not in columns
    tags = [{"metric": info["name"]} for info in known["metricInfos"]]
    assert [tag["metric"]["tag"] for tag in tags] == ["rougeLsum", "best_rougeLsum"]
    asked = {"colParams": tags, "startIndex": 0, "sliceSize": 9, "experimentName": ""}
    asked["allowedStatuses"] = [f"STATUS_{s}" for s in ("SUCCESS", "FAILURE", "RUNNING")]
    groups = {g["name"]: g for g in ask(f"{url}/session_groups", asked)["sessionGroups"]}
    assert sorted(groups) == ["finals of t0000", "t0000", "t0001"]
    assert groups["t0000"]["hparams"]["lora_rank"] == 8
    shown = {m["name"]["tag"]: m["value"] for m in groups["t0000"]["metricValues"]}
    assert shown == {"rougeLsum": 40.0, "best_rougeLsum": 40.0}
    assert groups["t0001"]["sessions"][0]["status"] == "STATUS_FAILURE"
    log = EventAccumulator(str(folder / "tensorboard" / "summary")).Reload()
    assert [point.value for point in log.Scalars("test/rougeLsum")] == [31.5]


def ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as response:
        return dict(json.load(response))


KILLED_DRIVER = """
import sys, time
from pathlib import Path
from tests.sweeps.tracking.test_trackers import CURVES, FollowedSweep, make_config
sweep = FollowedSweep(Path(sys.argv[1]))
sweep.tracker.start()
sweep.complete(0)
sweep.start(make_config(1))
sweep.report(make_config(1), 10)
while any(follower._num_bytes == 0 for follower in sweep.tracker._followers):
    time.sleep(0.1)
sweep.report(make_config(1), 20)
time.sleep(1.0)
print("written", flush=True)
time.sleep(100)
"""


def test_resume_after_a_kill_goes_on_without_duplicates(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_DRIVER, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as driver:
        assert driver.stdout is not None and driver.stdout.readline() == "written\n"
        driver.send_signal(signal.SIGKILL)
    torn, damaged = (
        folder / "tensorboard" / name / tensorboard_tracker.FILE for name in ("t0000", "t0001")
    )
    os.truncate(torn, torn.stat().st_size - 5)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:300] + bytes(50) + content[350:])
    ids = {name: run.info.run_id for name, run in mlflow_runs(folder).items()}
    assert sorted(ids) == ["my sweep", "t0000", "t0001"]
    for _ in range(2):
        sweep = FollowedSweep(folder)
        sweep.tracker.start()
        sweep.report(make_config(1), 40)
        sweep.end(make_config(1), "stopped", "ASHA")
        sweep.tracker.finish()
    whole = {"t0000": [(10, 30.0), (20, 40.0)], "t0001": [(10, 30.0), (20, 40.0), (40, 60.0)]}
    for name, read in CURVES.items():
        assert read(folder, "rougeLsum") == whole, name
    assert {name: run.info.run_id for name, run in mlflow_runs(folder).items()} == ids
    assert trackio_runs(folder)["t0001"]["status"] == "stopped"


def test_trial_that_runs_when_the_sweep_is_interrupted_is_running_again_at_resume(
    folder: Path,
) -> None:
    sweep = FollowedSweep(folder, "mlflow")
    sweep.start(make_config(0))
    sweep.report(make_config(0), 10)
    sweep.tracker.finish()
    states = {name: run.info.status for name, run in mlflow_runs(folder).items()}
    assert states == {"my sweep": "KILLED", "t0000": "KILLED"}
    sweep = FollowedSweep(folder, "mlflow")
    sweep.tracker.start()
    wait_until(lambda: mlflow_runs(folder)["t0000"].info.status == "RUNNING")
    sweep.report(make_config(0), 20)
    sweep.end(make_config(0), "stopped", "ASHA")
    sweep.tracker.finish()
    run = mlflow_runs(folder)["t0000"]
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "stopped")
    assert mlflow_curves(folder, "rougeLsum") == {"t0000": [(10, 30.0), (20, 40.0)]}


def test_trial_that_starts_again_after_its_end_goes_on_in_the_same_run(folder: Path) -> None:
    sweep = FollowedSweep(folder)
    for step, status in ((10, "failed"), (20, "completed")):
        sweep.start(make_config(0))
        sweep.report(make_config(0), step)
        sweep.end(make_config(0), status, "its node was lost" if status == "failed" else "")
        sweep.tracker.finish()
    for name, read in CURVES.items():
        assert read(folder, "rougeLsum") == {"t0000": [(10, 30.0), (20, 40.0)]}, name
    run = mlflow_runs(folder)["t0000"]
    assert (run.info.status, run.data.tags["reason"]) == ("FINISHED", "")
    assert trackio_runs(folder)["t0000"]["status"] == "completed"


def test_second_sweep_of_a_process_does_not_write_into_the_first_ones_trackio(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        sweep = FollowedSweep(tmp_path / name, "trackio")
        sweep.complete(*range(1 if name == "one" else 2))
        sweep.tracker.finish()
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert f"sweeps.sync {tmp_path}/two --track trackio" in warning
    assert list(trackio_runs(tmp_path / "one")) == ["t0000"]


@pytest.mark.parametrize("name", NAMES)
def test_store_that_becomes_unwritable_costs_a_warning_and_nothing_else(
    name: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = "tensorboard" if name != "tensorboard" else "mlflow"
    sweep = FollowedSweep(folder, name, other)
    sweep.tracker.start()
    sweep.start(make_config(0))
    sweep.report(make_config(0), 10)
    wait_until(lambda: all(f._num_bytes for f in sweep.tracker._followers))
    store = {"mlflow": folder / "mlruns", "trackio": folder / "trackio"}
    store["tensorboard"] = folder / "tensorboard"
    store[name].rename(folder / "moved")
    store[name].write_text("a file where the folder was")
    sweep.report(make_config(0), 20)
    sweep.end(make_config(0), "completed")
    sweep.tracker.finish()
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith(f"{name} cannot be written") and "sweeps.sync" in warning
    assert sweep.tracker.failed == [name]
    assert CURVES[other](folder, "rougeLsum") == {"t0000": [(10, 30.0), (20, 40.0)]}


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


def test_mlflow_server_that_is_lost_costs_one_warning_which_shows_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://me:secret@127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    sweep = FollowedSweep(tmp_path, "mlflow", "tensorboard")
    sweep.tracker.start()
    sweep.complete(0)
    began_s = time.monotonic()
    sweep.tracker.finish()
    assert time.monotonic() - began_s < 30.0
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith("mlflow cannot be written") and "secret" not in warning
    assert tensorboard_curves(tmp_path, "rougeLsum") == {"t0000": [(10, 30.0), (20, 40.0)]}
    assert not (tmp_path / "mlruns").exists()


def test_variables_that_keep_mlflow_quiet_are_its_own() -> None:
    """With a server it prints two lines a run, unless told not to, and no test has a server."""
    names = {name for name in trackers.QUIET if name.startswith("MLFLOW_")}
    assert "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT" in names
    assert names <= vars(import_module("mlflow.environment_variables")).keys()
