"""W&B tracking with real wandb: its offline files are read back; servers are loopback ports."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import wandb

from sweeps.config import SweepConfig
from sweeps.recipes import samsum
from sweeps.records.events import EventLog, make_params_fields, make_report_fields
from sweeps.records.paths import RunPaths
from sweeps.tracking import follow_log, wandb_session
from sweeps.tracking.follow_log import Trackers
from sweeps.tracking.run_values import TrackedSweep
from sweeps.tracking.wandb_mode import Mode, resolve_mode
from sweeps.tracking.wandb_sweep import SWEEP_FILE
from sweeps.tracking.wandb_tracker import (
    COMPLETE_FILE,
    WandbTracker,
)
from tests.sweeps.servers.wandb_files import offline_runs, read_run
from tests.sweeps.servers.wandb_server import WandbServer
from trainables.config import Hyperparameters, Metric, TrainingSettings, TrialConfig, TrialReport
from trainables.errors import SweepAborted

pytestmark = pytest.mark.slow

METRIC = Metric(name="rougeLsum")
CONFIG = replace(samsum(False), wandb_project="proj")
SETTINGS = TrainingSettings(rows_dir=Path("/rows"), model="m", max_steps=40, rungs=(10, 20, 40))


@pytest.fixture(autouse=True)
def fresh_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without a login, and a wandb service of its own for every test."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(follow_log, "POLL_INTERVAL_S", 0.1)
    yield
    wandb.teardown()


def make_config(number: int) -> TrialConfig:
    params = Hyperparameters(lora_rank=8 * (number + 1), lora_alpha=16.0, learning_rate=2e-4)
    trial_id = f"t{number:04d}"
    return TrialConfig(trial_id=trial_id, params=params, settings=SETTINGS, folder=Path("/x"))


def make_report(config: TrialConfig, step: int, score: float | None = None) -> TrialReport:
    return TrialReport(
        trial_id=config.trial_id,
        step=step,
        metrics={"rougeLsum": 20.0 + step if score is None else score, "eval_loss": 1.5},
        train_loss=2.0,
        learning_rate=1e-4,
        epoch=0.5,
        tokens=100 * step,
        tokens_per_s=50.0,
        seconds=20.0,
        peak_gib=1.5,
        checkpoint=Path(f"/x/{step}"),
    )


def make_tracked(
    folder: Path, config: SweepConfig, mode: Mode = "disabled", metric: Metric = METRIC
) -> TrackedSweep:
    return TrackedSweep(
        config=config,
        wandb_mode=mode,
        paths=RunPaths(folder),
        metric=metric,
        name="my sweep",
        sweep_id="id-1",
    )


class LoggedSweep:
    """A sweep that writes its log, and the tracker that follows it."""

    def __init__(
        self,
        folder: Path,
        mode: Mode = "offline",
        metric: Metric = METRIC,
        stop: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.folder = folder
        paths = RunPaths(folder)
        self._log = EventLog(paths.events)
        self.wandb = WandbTracker(make_tracked(folder, CONFIG, mode, metric), stop)
        self.tracker = Trackers(paths, [self.wandb])

    def start(self, config: TrialConfig) -> None:
        number = int(config.trial_id[1:5])
        params = make_params_fields(config.params)
        self._log.append("trial_started", trial_id=config.trial_id, number=number, params=params)

    def report(self, config: TrialConfig, *steps: int, score: float | None = None) -> None:
        for step in steps:
            self._log.append("report", **make_report_fields(make_report(config, step, score)))

    def end(self, config: TrialConfig, status: str, reason: str = "") -> None:
        self._log.append("trial_ended", trial_id=config.trial_id, status=status, reason=reason)

    def start_final(self, of: TrialConfig, trial_id: str, seed: int) -> None:
        runs = [{"trial_id": trial_id, "of": of.trial_id, "seed": seed}]
        self._log.append("finals_started", finalists=[of.trial_id], baseline=None, runs=runs)

    def complete(self, *numbers: int) -> None:
        for config in map(make_config, numbers):
            self.start(config)
            self.report(config, 10, 20)
            self.end(config, "completed")


def complete_names(folder: Path) -> list[str]:
    lines = (folder / "wandb" / COMPLETE_FILE).read_text().splitlines()
    return [json.loads(line)["name"] for line in lines]


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60.0
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_offline_run_holds_config_every_report_and_the_end(tmp_path: Path) -> None:
    config = make_config(0)
    params = replace(config.params, target_modules=("q_proj", "v_proj"))
    config = replace(config, params=params)
    sweep = LoggedSweep(tmp_path / "run")
    sweep.tracker.start()
    sweep.start(config)
    for step, score in ((10, 30.0), (20, 35.0), (40, 31.0)):
        sweep.report(config, step, score=score)
    sweep.end(config, "completed")
    sweep.tracker.finish()
    run = offline_runs(tmp_path / "run")["t0000"]
    assert (run.record.run_group, run.record.job_type) == ("my sweep", "trial")
    assert run.record.run_id.startswith("my-sweep-t0000-") and list(run.record.tags) == ["samsum"]
    assert run.config["lora_rank"] == 8 and run.config["learning_rate"] == 2e-4
    assert run.config["target_modules"] == "q_proj,v_proj"
    assert (
        run.config["model"] == "Qwen/Qwen3-0.6B" and run.config["batch_size"] == CONFIG.batch_size
    )
    assert run.steps == [10, 20, 40]
    assert [row["rougeLsum"] for row in run.rows] == [30.0, 35.0, 31.0]
    for name in ("train_loss", "learning_rate", "tokens_per_s", "peak_gib", "epoch", "eval_loss"):
        assert name in run.rows[0]
    assert (run.summary["best_rougeLsum"], run.summary["status"]) == (35.0, "completed")
    assert run.exit_code == 0


def test_run_of_the_finals_says_whose_it_is_and_with_which_seed(tmp_path: Path) -> None:
    config = make_config(0)
    final = replace(config, trial_id="f0000s1")
    sweep = LoggedSweep(tmp_path / "run")
    sweep.complete(0)
    sweep.start_final(config, final.trial_id, seed=7)
    sweep.report(final, 10)
    sweep.end(final, "completed")
    sweep.tracker.finish()
    run = offline_runs(tmp_path / "run")["f0000s1"]
    assert (run.record.run_group, run.record.job_type) == ("my sweep", "final")
    assert list(run.record.tags) == ["samsum", "final"]
    assert (run.config["final_of"], run.config["seed"], run.config["number"]) == ("t0000", 7, 0)
    assert run.config["lora_rank"] == 8 and run.steps == [10]


def test_failed_trial_shows_its_reason_and_a_nonzero_exit_code(tmp_path: Path) -> None:
    config = make_config(0)
    sweep = LoggedSweep(tmp_path / "run")
    sweep.start(config)
    sweep.report(config, 10, score=float("nan"))
    sweep.end(config, "failed", "loss is nan at step 10")
    sweep.tracker.finish()
    run = offline_runs(tmp_path / "run")["t0000"]
    assert (run.summary["status"], run.summary["reason"]) == ("failed", "loss is nan at step 10")
    assert run.exit_code == 1 and "best_rougeLsum" not in run.summary


def test_open_runs_do_not_mix(tmp_path: Path) -> None:
    configs = [make_config(number) for number in range(3)]
    sweep = LoggedSweep(tmp_path / "run")
    sweep.tracker.start()
    for config in configs:
        sweep.start(config)
    for step in (10, 20, 40):
        for number, config in enumerate(configs):
            sweep.report(config, step, score=100.0 * number + step)
        time.sleep(1.2 * follow_log.POLL_INTERVAL_S)
    for config in configs:
        sweep.end(config, "stopped", "ASHA")
    sweep.tracker.finish()
    runs = offline_runs(tmp_path / "run")
    assert sorted(runs) == ["t0000", "t0001", "t0002"]
    for number, config in enumerate(configs):
        run = runs[config.trial_id]
        assert run.config["lora_rank"] == config.params.lora_rank
        assert [row["rougeLsum"] for row in run.rows] == [100.0 * number + s for s in (10, 20, 40)]


def test_nothing_is_written_outside_the_run_folder_nor_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    test_failed_trial_shows_its_reason_and_a_nonzero_exit_code(tmp_path)
    wandb.teardown()
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["run"]
    assert list((tmp_path / "home").rglob("*")) == []
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"events.jsonl", "wandb"}
    assert capfd.readouterr() == ("", "")


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    sweep = LoggedSweep(tmp_path / "run", "disabled")
    sweep.tracker.start()
    sweep.complete(0)
    sweep.tracker.finish()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["events.jsonl"]


KILLED_DRIVER = """
import sys, time
from pathlib import Path
from tests.sweeps.tracking.test_wandb_tracker import LoggedSweep, make_config
sweep = LoggedSweep(Path(sys.argv[1]))
sweep.tracker.start()
for number in range(3):
    sweep.start(make_config(number))
    sweep.report(make_config(number), 10)
sweep.end(make_config(0), "completed")
while len(sweep.wandb._open) != 2 or "t0000" not in sweep.wandb._unrecorded:
    time.sleep(0.1)
print("written", flush=True)
time.sleep(100)
"""


WANDB_USER = """
import os, sys, wandb
run = wandb.init(mode="offline", dir=sys.argv[1], settings=wandb.Settings(silent=True))
print(os.environ["WANDB_SERVICE"], flush=True)
sys.stdin.read()
run.finish()
"""


@pytest.fixture(params=["alone", "child of a process that uses wandb"])
def parent(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """wandb offers its process to children by an environment variable."""
    if request.param == "alone":
        yield
        return
    with subprocess.Popen(
        [sys.executable, "-c", WANDB_USER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as user:
        assert user.stdout is not None
        monkeypatch.setenv("WANDB_SERVICE", user.stdout.readline().strip())
        assert os.environ["WANDB_SERVICE"]
        yield
        user.communicate("")


@pytest.mark.usefixtures("parent")
def test_resume_after_kill_leaves_one_complete_folder_a_trial(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    driver = subprocess.Popen(
        [sys.executable, "-c", KILLED_DRIVER, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert driver.stdout is not None and driver.stdout.readline() == "written\n"
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert len(list(folder.glob("wandb/offline-run-*"))) == 3

    sweep = LoggedSweep(folder)
    sweep.tracker.start()
    sweep.report(make_config(1), 20)
    sweep.end(make_config(1), "completed")
    sweep.report(make_config(2), 20)
    sweep.end(make_config(2), "stopped", "ASHA")
    sweep.tracker.finish()
    runs = offline_runs(folder)
    assert {name: run.steps for name, run in runs.items()} == {
        "t0000": [10],
        "t0001": [10, 20],
        "t0002": [10, 20],
    }
    assert runs["t0002"].summary["status"] == "stopped"
    assert sorted(complete_names(folder)) == ["t0000", "t0001", "t0002"]


def test_complete_runs_are_left_alone_at_resume_and_missing_ones_are_written(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    sweep = LoggedSweep(folder)
    sweep.complete(0, 1)
    sweep.tracker.finish()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("wandb/offline-run-*/*.wandb")}
    sweep = LoggedSweep(folder)
    sweep.complete(2)
    sweep.tracker.finish()
    assert sorted(offline_runs(folder)) == ["t0000", "t0001", "t0002"]
    assert len(before) == 2 and before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("damage", ["shortened", "emptied", "removed"])
def test_file_that_is_not_as_it_was_written_is_written_again_at_resume(
    tmp_path: Path, damage: str
) -> None:
    """A power cut may take the end of a file, or all that it held."""
    folder = tmp_path / "run"
    sweep = LoggedSweep(folder)
    sweep.complete(0, 1, 2)
    sweep.tracker.finish()
    (file,) = folder.glob("wandb/offline-run-*-t0001-*/*.wandb")
    os.truncate(file, 0 if damage == "emptied" else file.stat().st_size - 3)
    if damage == "removed":
        shutil.rmtree(file.parent)
    LoggedSweep(folder).tracker.finish()
    runs = offline_runs(folder)
    assert sorted(runs) == ["t0000", "t0001", "t0002"]
    assert all(run.steps == [10, 20] and run.exit_code == 0 for run in runs.values())
    assert complete_names(folder) == ["t0000", "t0001", "t0002", "t0001"]


def test_no_file_of_a_sweep_that_a_full_disk_ended_counts_as_complete(tmp_path: Path) -> None:
    """wandb does not tell that it could not write, and its process ends well all the same."""
    folder = tmp_path / "run"
    sweep = LoggedSweep(folder)
    sweep.complete(0)
    sweep.tracker.finish(is_disk_trusted=False)
    assert not (folder / "wandb" / COMPLETE_FILE).exists()
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    file.write_bytes(content[:100] + bytes(100) + content[200:])
    LoggedSweep(folder).tracker.finish()
    assert offline_runs(folder)["t0000"].steps == [10, 20]
    assert complete_names(folder) == ["t0000"]


def test_damaged_record_of_complete_runs_only_costs_writing_them_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    sweep = LoggedSweep(folder)
    sweep.complete(0)
    sweep.tracker.finish()
    (folder / "wandb" / COMPLETE_FILE).write_text('{"name": "t0000"}\nnot JSON\n')
    LoggedSweep(folder).tracker.finish()
    assert offline_runs(folder)["t0000"].steps == [10, 20]
    assert complete_names(folder) == ["t0000"]


def test_trial_open_at_the_end_of_the_sweep_is_written_again_at_resume(tmp_path: Path) -> None:
    config = make_config(0)
    sweep = LoggedSweep(tmp_path / "run")
    sweep.start(config)
    sweep.report(config, 10)
    sweep.tracker.finish()
    assert not (tmp_path / "run" / "wandb" / COMPLETE_FILE).exists()
    sweep = LoggedSweep(tmp_path / "run")
    sweep.end(config, "failed", "gone")
    sweep.tracker.finish()
    run = offline_runs(tmp_path / "run")["t0000"]
    assert run.steps == [10] and run.summary["reason"] == "gone"


def test_trial_that_starts_again_after_its_end_keeps_one_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(0)
    sweep = LoggedSweep(tmp_path / "run")
    for step, status in ((10, "failed"), (20, "completed")):
        sweep.start(config)
        sweep.report(config, step)
        sweep.end(config, status)
        sweep.tracker.finish()
        if status == "failed":
            time.sleep(1.1)  # wandb's folder names differ by the second
    run = offline_runs(tmp_path / "run")["t0000"]
    assert run.steps == [10, 20] and run.exit_code == 0
    assert warnings_of(caplog) == []


def test_run_ids_are_the_same_at_resume_and_differ_between_sweeps() -> None:
    named = replace(make_tracked(Path("/runs"), CONFIG), name="günlük/özet #1")
    ids = [replace(named, sweep_id=sweep_id).make_run_id("t0000") for sweep_id in ("a", "a", "b")]
    assert ids[0] == ids[1] != ids[2]
    assert all(char.isalnum() or char in "-_" for char in ids[0]) and ids[0].isascii()


def test_unreachable_server_costs_one_warning_and_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT_S", 2.0)
    with caplog.at_level(logging.WARNING):
        sweep = LoggedSweep(tmp_path / "run", "online")
        sweep.tracker.start()
        sweep.complete(0, 1, 2)
        sweep.tracker.finish()
    (warning,) = warnings_of(caplog)
    assert "offline from now on" in warning and "sweeps.sync" in warning
    runs = offline_runs(tmp_path / "run")
    assert {name: run.steps for name, run in runs.items()} == {
        f"t000{n}": [10, 20] for n in range(3)
    }
    assert not any("a" * 40 in r.getMessage() for r in caplog.records)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WandbServer:
    """A server with the sweep of the run, which is one that goes on, and a login there."""
    server = WandbServer()
    place = {"id": "s0", "server": server.url, "project": "proj", "entity": None}
    (tmp_path / "run" / "wandb").mkdir(parents=True)
    (tmp_path / "run" / "wandb" / SWEEP_FILE).write_text(json.dumps(place))
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT_S", 3.0)
    monkeypatch.setattr(wandb_session, "FINISH_TIMEOUT_S", 3.0)
    return server


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "sweeps.tracking.wandb_tracker"]


def test_online_run_reaches_the_server_once(
    tmp_path: Path, server: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = LoggedSweep(tmp_path / "run", "online")
    sweep.tracker.start()
    sweep.complete(0)
    sweep.tracker.finish()
    ((run_id, rows),) = server.rows.items()
    assert "t0000" in run_id and [row["_step"] for row in rows] == [10, 20]
    assert warnings_of(caplog) == [] and not offline_runs(tmp_path / "run")
    server.rows.clear()
    LoggedSweep(tmp_path / "run", "online").tracker.finish()
    LoggedSweep(tmp_path / "run", "offline").tracker.finish()
    assert not server.rows and not offline_runs(tmp_path / "run")


def test_runs_that_were_written_offline_are_sent_once_there_is_a_server(
    tmp_path: Path, server: WandbServer
) -> None:
    sweep = LoggedSweep(tmp_path / "run", "offline")
    sweep.complete(0, 1)
    sweep.tracker.finish()
    assert len(offline_runs(tmp_path / "run")) == 2 and not server.rows
    LoggedSweep(tmp_path / "run", "online").tracker.finish()
    assert sorted([row["_step"] for row in rows] for rows in server.rows.values()) == [
        [10, 20],
        [10, 20],
    ]
    assert not offline_runs(tmp_path / "run")


def test_resumed_online_run_does_not_log_again_what_the_server_has(
    tmp_path: Path, server: WandbServer
) -> None:
    config = make_config(0)
    run_id = make_tracked(tmp_path, CONFIG).make_run_id("t0000")
    server.known_steps[run_id] = 20
    sweep = LoggedSweep(tmp_path / "run", "online")
    sweep.start(config)
    sweep.report(config, 10, 20, 40)
    sweep.end(config, "completed")
    sweep.tracker.finish()
    assert [row["_step"] for row in server.rows[run_id]] == [40]
    (folder,) = (tmp_path / "run").glob("wandb/run-*")
    assert read_run(folder).steps == [40]


@pytest.mark.parametrize("way", ["gone", "refused"])
def test_server_lost_mid_run_costs_one_warning_and_no_row(
    way: str,
    tmp_path: Path,
    server: WandbServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = [make_config(number) for number in range(3)]
    sweep = LoggedSweep(tmp_path / "run", "online")
    sweep.tracker.start()
    for config in configs[:2]:
        sweep.start(config)
        sweep.report(config, 10)
    wait_until(lambda: len(sweep.wandb._open) == 2)
    if way == "gone":
        server.stop()
    else:
        server.refusal = 401
    for name in ("INIT_TIMEOUT_S", "FINISH_TIMEOUT_S"):  # nothing comes, however long it waits
        monkeypatch.setattr(wandb_session, name, 0.5)
    began_s = time.monotonic()
    sweep.end(configs[0], "stopped", "ASHA")
    sweep.start(configs[2])
    for config in configs[1:]:
        sweep.report(config, 20)
        sweep.end(config, "completed")
    sweep.tracker.finish()
    assert time.monotonic() - began_s < 30.0  # timeouts, of which there are several
    (warning,) = warnings_of(caplog)
    assert "offline from now on" in warning
    runs = {name: run.steps for name, run in offline_runs(tmp_path / "run").items()}
    assert runs == {"t0000": [10], "t0001": [10, 20], "t0002": [20]}


def test_unwritable_folder_switches_tracking_off_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(0)
    sweep = LoggedSweep(tmp_path / "run")
    sweep.tracker.start()
    sweep.start(config)
    sweep.report(config, 10)
    wait_until(lambda: bool(sweep.wandb._open))
    (tmp_path / "run" / "wandb").rename(tmp_path / "run" / "moved")
    (tmp_path / "run" / "wandb").write_text("not a folder")
    sweep.end(config, "completed")
    sweep.start(make_config(1))
    sweep.tracker.finish()
    (message,) = warnings_of(caplog)
    assert "disabled from now on" in message


def test_record_of_complete_runs_that_cannot_be_read_ends_tracking_not_the_sweep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run" / "wandb" / "complete.jsonl").mkdir(parents=True)
    sweep = LoggedSweep(tmp_path / "run")
    sweep.complete(0)
    sweep.tracker.finish()
    (message,) = warnings_of(caplog)
    assert "disabled from now on" in message and "directory" in message


def test_auto_is_online_exactly_when_wandb_finds_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    assert resolve_mode("auto", is_tiny=False) == "offline"
    (tmp_path / "home" / "netrc").write_text(f"machine 127.0.0.1:9 login user password {'b' * 40}")
    assert resolve_mode("auto", is_tiny=False) == "online"
    assert resolve_mode("auto", is_tiny=True) == "offline"
    (tmp_path / "home" / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert resolve_mode("auto", is_tiny=False) == "online"
    assert resolve_mode("online", is_tiny=True) == "online"
    assert resolve_mode("offline", is_tiny=False) == "offline"


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_key_that_the_server_refuses_is_told_at_the_start(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    assert resolve_mode("auto", is_tiny=False) == "online"
    server.refusal = status
    for request in ("auto", "online"):
        if status == 500:  # it may recover
            assert resolve_mode(request, is_tiny=False) == "online"
            continue
        with pytest.raises(SweepAborted, match="does not know its key") as refused:
            resolve_mode(request, is_tiny=False)
        assert "relogin" in refused.value.fix and "a" * 40 not in str(refused.value)
    assert resolve_mode("auto", is_tiny=True) == "offline"
    server.refusal = None
    monkeypatch.setattr(server, "_answer_Viewer", lambda _: {"viewer": None})
    with pytest.raises(SweepAborted, match="does not know its key"):
        resolve_mode("auto", is_tiny=False)


def test_online_without_a_login_aborts_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SweepAborted) as caught:
        resolve_mode("online", is_tiny=False)
    assert "wandb login" in caught.value.fix and "--wandb offline" in caught.value.fix
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(SweepAborted, match="login is invalid"):
        resolve_mode("auto", is_tiny=False)


def test_wandb_mode_decides_auto_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert resolve_mode("auto", is_tiny=False) == "offline"
    assert resolve_mode("online", is_tiny=False) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode("auto", is_tiny=True) == "disabled"
    monkeypatch.setenv("WANDB_MODE", "oops")
    with pytest.raises(SweepAborted, match="'oops'"):
        resolve_mode("auto", is_tiny=False)


def test_importing_the_tracker_loads_no_wandb() -> None:
    program = "import sys, sweeps.tracking.wandb_tracker; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
