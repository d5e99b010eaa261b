"""W&B tracking with real wandb: its offline files are read back; servers are loopback ports."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wandb

from sweeps.records.trial_record import TrialRecord
from sweeps.tracking import wandb_runs, wandb_session
from sweeps.tracking.wandb_runs import WandbTracker, resolve_mode
from tests.sweeps.servers.wandb_files import offline_runs, read_run
from tests.sweeps.servers.wandb_server import WandbServer
from trainables.config import Hyperparameters, Metric, TrainingSettings, TrialConfig, TrialReport
from trainables.errors import SweepAborted

METRIC = Metric(name="rougeLsum")
SHARED = {"recipe": "samsum", "task": "samsum", "model": "Qwen/Qwen3-0.6B", "batch_size": 8}
SETTINGS = TrainingSettings(rows_dir=Path("/rows"), model="m", max_steps=40, rungs=(10, 20, 40))


@pytest.fixture(autouse=True)
def fresh_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without a login, and a wandb service of its own for every test."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    (tmp_path / "home").mkdir()
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


def make_history(config: TrialConfig, steps: tuple[int, ...], **end: Any) -> TrialRecord:
    reports = [make_report(config, step) for step in steps]
    number = int(config.trial_id[1:])
    return TrialRecord(
        trial_id=config.trial_id, number=number, params=config.params, reports=reports, **end
    )


def make_tracker(folder: Path, mode: wandb_runs.Mode = "offline", **kwargs: Any) -> WandbTracker:
    return WandbTracker(mode, folder, "my sweep", "id-1", "proj", None, METRIC, SHARED, **kwargs)


def test_offline_run_holds_config_every_report_and_the_end(tmp_path: Path) -> None:
    config = make_config(0)
    tracker = make_tracker(tmp_path / "run")
    tracker.trial_started(config, 0)
    for step, score in ((10, 30.0), (20, 35.0), (40, 31.0)):
        tracker.reported(config, make_report(config, step, score))
    tracker.trial_ended(config, "completed", "")
    tracker.sweep_ended()
    run = offline_runs(tmp_path / "run")["t0000"]
    assert (run.record.run_group, run.record.job_type) == ("my sweep", "trial")
    assert run.record.run_id.startswith("my-sweep-t0000-") and list(run.record.tags) == ["samsum"]
    assert run.config["lora_rank"] == 8 and run.config["learning_rate"] == 2e-4
    assert run.config["model"] == "Qwen/Qwen3-0.6B" and run.config["batch_size"] == 8
    assert run.steps == [10, 20, 40]
    assert [row["rougeLsum"] for row in run.rows] == [30.0, 35.0, 31.0]
    for name in ("train_loss", "learning_rate", "tokens_per_s", "peak_gib", "epoch", "eval_loss"):
        assert name in run.rows[0]
    assert (run.summary["best_rougeLsum"], run.summary["status"]) == (35.0, "completed")
    assert run.exit_code == 0


def test_run_of_the_finals_says_whose_it_is_and_with_which_seed(tmp_path: Path) -> None:
    config = replace(make_config(0), trial_id="f0000s1")
    run_of_finals = replace(
        make_history(make_config(0), ()), trial_id="f0000s1", final_of="t0000", seed=7
    )
    tracker = make_tracker(tmp_path / "run")
    tracker.finals_started([run_of_finals])
    tracker.trial_started(config, 0)
    tracker.reported(config, make_report(config, 10))
    tracker.trial_ended(config, "completed", "")
    tracker.sweep_ended()
    run = offline_runs(tmp_path / "run")["f0000s1"]
    assert (run.record.run_group, run.record.job_type) == ("my sweep", "final")
    assert list(run.record.tags) == ["samsum", "final"]
    assert (run.config["final_of"], run.config["seed"], run.config["number"]) == ("t0000", 7, 0)
    assert run.config["lora_rank"] == 8 and run.steps == [10]


def test_failed_trial_shows_its_reason_and_a_nonzero_exit_code(tmp_path: Path) -> None:
    config = make_config(0)
    tracker = make_tracker(tmp_path / "run")
    tracker.trial_started(config, 0)
    tracker.reported(config, make_report(config, 10, float("nan")))
    tracker.trial_ended(config, "failed", "loss is nan at step 10")
    tracker.sweep_ended()
    run = offline_runs(tmp_path / "run")["t0000"]
    assert (run.summary["status"], run.summary["reason"]) == ("failed", "loss is nan at step 10")
    assert run.exit_code == 1 and "best_rougeLsum" not in run.summary


def test_open_runs_do_not_mix(tmp_path: Path) -> None:
    configs = [make_config(number) for number in range(3)]
    tracker = make_tracker(tmp_path / "run")
    for number, config in enumerate(configs):
        tracker.trial_started(config, number)
    for step in (10, 20, 40):
        for number, config in enumerate(configs):
            tracker.reported(config, make_report(config, step, 100.0 * number + step))
    for config in configs:
        tracker.trial_ended(config, "stopped", "ASHA")
    tracker.sweep_ended()
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
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["wandb"]
    assert capfd.readouterr() == ("", "")


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    config = make_config(0)
    tracker = make_tracker(tmp_path / "run", "disabled")
    tracker.trial_started(config, 0)
    tracker.reported(config, make_report(config, 10))
    tracker.trial_ended(config, "completed", "")
    tracker.sweep_ended()
    assert not (tmp_path / "run").exists()


KILLED_DRIVER = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests/sweeps/tracking")
from test_wandb_runs import make_config, make_report, make_tracker
tracker = make_tracker(Path(sys.argv[1]))
for number in range(3):
    tracker.trial_started(make_config(number), number)
    tracker.reported(make_config(number), make_report(make_config(number), 10))
tracker.trial_ended(make_config(0), "completed", "")
tracker._worker.submit(lambda: print("written", flush=True)).result()
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
def test_resume_after_kill_leaves_one_whole_folder_a_trial(tmp_path: Path) -> None:
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

    ended, goes_on, killed_at_end = (make_config(number) for number in range(3))
    histories = [
        make_history(ended, (10,), status="completed"),
        make_history(goes_on, (10,)),
        make_history(killed_at_end, (10, 20), status="stopped", reason="ASHA"),
    ]
    tracker = make_tracker(folder, histories=histories)
    tracker.trial_started(goes_on, 1)
    tracker.reported(goes_on, make_report(goes_on, 20))
    tracker.trial_ended(goes_on, "completed", "")
    tracker.sweep_ended()
    runs = offline_runs(folder)
    assert {name: run.steps for name, run in runs.items()} == {
        "t0000": [10],
        "t0001": [10, 20],
        "t0002": [10, 20],
    }
    assert runs["t0002"].summary["status"] == "stopped"


def test_whole_folders_are_left_alone_at_resume_and_missing_ones_are_written(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    histories = [make_history(make_config(n), (10, 20), status="completed") for n in range(3)]
    make_tracker(folder, histories=histories[:2]).sweep_ended()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("wandb/offline-run-*/*.wandb")}
    make_tracker(folder, histories=histories).sweep_ended()
    assert sorted(offline_runs(folder)) == ["t0000", "t0001", "t0002"]
    assert len(before) == 2 and before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize("torn", ["middle", "end", "header", "all"])
def test_file_that_a_full_disk_has_torn_is_written_again_at_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, torn: str
) -> None:
    """wandb's process ends well all the same."""
    folder = tmp_path / "run"
    stop = wandb_session.stop

    def stop_and_tear() -> bool:
        has_ended_well = stop()
        (file,) = folder.glob("wandb/offline-run-*-t0001-*/*.wandb")
        content = file.read_bytes()
        cut = {"middle": len(content) // 2, "end": len(content) - 3, "header": 5, "all": 0}[torn]
        file.write_bytes(content[:cut] + (content[cut + 5 :] if torn == "middle" else b""))
        if torn == "all":
            file.unlink()
        return has_ended_well

    monkeypatch.setattr(wandb_session, "stop", stop_and_tear)
    histories = [make_history(make_config(n), (10, 20), status="completed") for n in range(3)]
    make_tracker(folder, histories=histories).sweep_ended()
    whole = {path.parent.name for path in folder.glob("wandb/offline-run-*/whole")}
    assert len(whole) == 2 and not any("t0001" in name for name in whole)
    assert "is damaged" in caplog.text
    monkeypatch.setattr(wandb_session, "stop", stop)
    make_tracker(folder, histories=histories).sweep_ended()
    runs = offline_runs(folder)
    assert sorted(runs) == ["t0000", "t0001", "t0002"]
    assert all(run.steps == [10, 20] for run in runs.values())
    assert len(list(folder.glob("wandb/offline-run-*/whole"))) == 3


def test_long_file_is_intact_over_its_blocks(tmp_path: Path) -> None:
    config = make_config(0)
    tracker = make_tracker(tmp_path / "run")
    tracker.trial_started(config, 0)
    for step in range(10, 3000, 10):
        tracker.reported(config, make_report(config, step))
    tracker.trial_ended(config, "completed", "")
    tracker.sweep_ended()
    (file,) = (tmp_path / "run").glob("wandb/offline-run-*/*.wandb")
    assert file.stat().st_size > 2 * 32 * 1024
    assert (file.parent / "whole").exists()


def test_trial_open_at_the_end_of_the_sweep_is_written_again_at_resume(tmp_path: Path) -> None:
    config = make_config(0)
    tracker = make_tracker(tmp_path / "run")
    tracker.trial_started(config, 0)
    tracker.reported(config, make_report(config, 10))
    tracker.sweep_ended()
    assert not list((tmp_path / "run").glob("wandb/offline-run-*/whole"))
    tracker = make_tracker(tmp_path / "run", histories=[make_history(config, (10,))])
    tracker.trial_started(config, 0)
    tracker.trial_ended(config, "failed", "gone")
    tracker.sweep_ended()
    run = offline_runs(tmp_path / "run")["t0000"]
    assert run.steps == [10] and run.summary["reason"] == "gone"


def test_trial_that_starts_again_after_its_end_keeps_one_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(0)
    tracker = make_tracker(tmp_path / "run")
    for step, status in ((10, "failed"), (20, "completed")):
        tracker.trial_started(config, 0)
        tracker.reported(config, make_report(config, step))
        tracker.trial_ended(config, status, "")  # type: ignore[arg-type]
        time.sleep(1.1)  # wandb's folder names differ by the second
    tracker.sweep_ended()
    run = offline_runs(tmp_path / "run")["t0000"]
    assert run.steps == [10, 20] and run.exit_code == 0
    assert [r for r in caplog.records if r.name == "sweeps.tracking.wandb_runs"] == []


def test_run_ids_are_the_same_at_resume_and_differ_between_sweeps(tmp_path: Path) -> None:
    ids = [wandb_runs._run_id_format("günlük/özet #1", sweep_id) for sweep_id in ("a", "a", "b")]
    assert ids[0] == ids[1] != ids[2]
    assert all(char.isalnum() or char in "-_{}" for char in ids[0]) and ids[0].isascii()


def test_unreachable_server_costs_one_warning_and_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT_S", 2.0)
    configs = [make_config(number) for number in range(3)]
    began_s = time.monotonic()
    with caplog.at_level(logging.WARNING):
        tracker = make_tracker(tmp_path / "run", "online")
        for number, config in enumerate(configs):
            tracker.trial_started(config, number)
            for step in (10, 20):
                tracker.reported(config, make_report(config, step))
            tracker.trial_ended(config, "completed", "")
        told_s = time.monotonic() - began_s
        tracker.sweep_ended()
    assert told_s < 1.0 and time.monotonic() - began_s < 10.0
    (warning,) = [r for r in caplog.records if r.name == "sweeps.tracking.wandb_runs"]
    assert "offline from now on" in warning.getMessage() and "wandb sync" in warning.getMessage()
    assert {name: run.steps for name, run in offline_runs(tmp_path / "run").items()} == {
        config.trial_id: [10, 20] for config in configs
    }
    assert not any("a" * 40 in r.getMessage() for r in caplog.records)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> WandbServer:
    server = WandbServer()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(wandb_session, "INIT_TIMEOUT_S", 3.0)
    monkeypatch.setattr(wandb_session, "FINISH_TIMEOUT_S", 3.0)
    return server


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "sweeps.tracking.wandb_runs"]


def test_online_run_reaches_the_server(
    tmp_path: Path, server: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(0)
    tracker = make_tracker(tmp_path / "run", "online")
    tracker.trial_started(config, 0)
    for step in (10, 20):
        tracker.reported(config, make_report(config, step))
    tracker.trial_ended(config, "completed", "")
    tracker.sweep_ended()
    ((run_id, rows),) = server.rows.items()
    assert "t0000" in run_id and [row["_step"] for row in rows] == [10, 20]
    assert warnings_of(caplog) == [] and not offline_runs(tmp_path / "run")
    assert len(list((tmp_path / "run").glob("wandb/run-*/whole"))) == 1
    server.rows.clear()
    histories = [make_history(config, (10, 20), status="completed")]
    make_tracker(tmp_path / "run", "online", histories=histories).sweep_ended()
    assert not server.rows


def test_resumed_online_run_does_not_log_again_what_the_server_has(
    tmp_path: Path, server: WandbServer
) -> None:
    config = make_config(0)
    run_id = wandb_runs._run_id_format("my sweep", "id-1").format("t0000")
    server.known_steps[run_id] = 20
    tracker = make_tracker(tmp_path / "run", "online", histories=[make_history(config, (10, 20))])
    tracker.trial_started(config, 0)
    tracker.reported(config, make_report(config, 40))
    tracker.trial_ended(config, "completed", "")
    tracker.sweep_ended()
    assert [row["_step"] for row in server.rows[run_id]] == [40]
    (folder,) = (tmp_path / "run").glob("wandb/run-*")
    assert read_run(folder).steps == [40]


@pytest.mark.parametrize("way", ["gone", "refused"])
def test_server_lost_mid_run_costs_one_warning_and_no_row(
    way: str, tmp_path: Path, server: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    configs = [make_config(number) for number in range(3)]
    tracker = make_tracker(tmp_path / "run", "online")
    for config in configs[:2]:
        tracker.trial_started(config, int(config.trial_id[1:]))
        tracker.reported(config, make_report(config, 10))
    tracker._worker.submit(lambda: None).result()
    if way == "gone":
        server.stop()
    else:
        server.refusal = 401
    began_s = time.monotonic()
    tracker.trial_ended(configs[0], "stopped", "ASHA")
    tracker.trial_started(configs[2], 2)
    for config in configs[1:]:
        tracker.reported(config, make_report(config, 20))
        tracker.trial_ended(config, "completed", "")
    assert time.monotonic() - began_s < 1.0
    tracker.sweep_ended()
    assert time.monotonic() - began_s < 20.0
    (warning,) = warnings_of(caplog)
    assert "offline from now on" in warning
    runs = {name: run.steps for name, run in offline_runs(tmp_path / "run").items()}
    assert runs == {"t0000": [10], "t0001": [10, 20], "t0002": [20]}


def test_unwritable_folder_switches_tracking_off_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(0)
    tracker = make_tracker(tmp_path / "run")
    tracker.trial_started(config, 0)
    tracker.reported(config, make_report(config, 10))
    tracker._worker.submit(lambda: None).result()
    (folder,) = (tmp_path / "run").glob("wandb/offline-run-*")
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    (tmp_path / "run" / "wandb").rename(tmp_path / "run" / "moved")
    (tmp_path / "run" / "wandb").write_text("not a folder")
    tracker.trial_ended(config, "completed", "")
    tracker.sweep_ended()
    messages = [r.getMessage() for r in caplog.records if r.name == "sweeps.tracking.wandb_runs"]
    assert len(messages) == 1 and "disabled from now on" in messages[0]


def test_auto_is_online_exactly_when_wandb_finds_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_mode("auto", is_tiny=False) == "offline"
    (tmp_path / "home" / "netrc").write_text(f"machine api.wandb.ai login user password {'b' * 40}")
    assert resolve_mode("auto", is_tiny=False) == "online"
    assert resolve_mode("auto", is_tiny=True) == "offline"
    (tmp_path / "home" / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert resolve_mode("auto", is_tiny=False) == "online"
    assert resolve_mode("online", is_tiny=True) == "online"
    assert resolve_mode("offline", is_tiny=False) == "offline"


def test_online_without_a_login_aborts_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SweepAborted) as caught:
        resolve_mode("online", is_tiny=False)
    assert "wandb login" in caught.value.fix and "--wandb offline" in caught.value.fix
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(SweepAborted, match="login is invalid"):
        resolve_mode("auto", is_tiny=False)


def test_wandb_mode_decides_auto_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert resolve_mode("auto", is_tiny=False) == "offline"
    assert resolve_mode("online", is_tiny=False) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode("auto", is_tiny=True) == "disabled"
    monkeypatch.setenv("WANDB_MODE", "oops")
    with pytest.raises(SweepAborted, match="'oops'"):
        resolve_mode("auto", is_tiny=False)


def test_importing_the_tracker_loads_no_wandb() -> None:
    program = "import sys, sweeps.tracking.wandb_runs; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_minimum_is_best_for_a_metric_that_should_fall() -> None:
    config = make_config(0)
    reports = [make_report(config, step) for step in (10, 20)]
    metric = Metric(name="eval_loss", mode="min")
    lower = replace(reports[1], metrics={"eval_loss": 1.0})
    assert wandb_runs._best([reports[0], lower, reports[0]], metric) == {"best_eval_loss": 1.0}
