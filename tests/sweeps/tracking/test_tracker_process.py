"""Trackers of a running sweep have a process of their own, which neither outlives nor harms it."""

import logging
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from sweeps.records.paths import RunPaths
from sweeps.tracking.tracker_process import run_trackers, start_trackers
from tests.sweeps.tracking.test_trackers import FollowedSweep, tensorboard_curves
from tests.sweeps.tracking.test_wandb_tracker import (
    CONFIG,
    METRIC,
    complete_names,
    make_config,
    make_tracked,
    wait_until,
)
from trainables.errors import SweepAborted

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    assert not find_processes(tmp_path)


def find_processes(folder: Path) -> list[psutil.Process]:
    """Those of trackers, and of W&B under them."""
    found = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]
    module = "sweeps.tracking.tracker_process"
    return [p for p in found if module in p.info["cmdline"] and str(folder) in str(p.info)]


@contextmanager
def track(folder: Path, names: str) -> Iterator[None]:
    config = replace(CONFIG, track=names)
    sweep = make_tracked(folder, config, "offline" if "wandb" in names else "disabled")
    with start_trackers(sweep.paths, config.trackers) as process, run_trackers(process, sweep):
        yield


class Refusal:
    """Cannot be read; the traceback has a secret."""

    def __reduce__(self) -> tuple[type[int], tuple[str]]:
        return int, ("hf_notAsecret123",)


def test_what_its_libraries_write_to_standard_error_shows_no_secret(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with start_trackers(RunPaths(tmp_path / "run"), ()) as process:
        assert process is not None and process.stdin is not None
        process.stdin.write(pickle.dumps(Refusal()))
        process.stdin.close()
        assert process.wait(60.0) == 1
    said = capfd.readouterr().err
    assert "invalid literal for int() with base 10: 'REDACTED'" in said


def test_ctrl_c_while_it_is_loaded_is_left_to_the_sweep(tmp_path: Path) -> None:
    begin = f"""
import os, signal
from trainables.process import start_module
signal.signal(signal.SIGINT, lambda *_: None)
process = start_module("sweeps.tracking.tracker_process", {str(tmp_path)!r}, "none")
os.killpg(0, signal.SIGINT)  # as a terminal does
process.stdin.close()
print(process.wait())
"""
    words = [sys.executable, "-c", begin]
    done = subprocess.run(words, capture_output=True, text=True, start_new_session=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_libraries_are_loaded_before_there_is_a_sweep_and_go_with_whoever_began_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = FollowedSweep(tmp_path / "run").folder
    with start_trackers(RunPaths(folder), ("tensorboard", "not-installed")):
        (process,) = find_processes(folder)
        wait_until(lambda: any("google/_upb" in one.path for one in process.memory_maps()))
    assert not find_processes(folder)
    assert not caplog.records


def test_trackers_follow_the_log_at_low_priority_whatever_signal_a_whole_job_is_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = FollowedSweep(tmp_path / "run")
    sweep.start(make_config(0))
    with track(sweep.folder, "tensorboard"):
        sweep.report(make_config(0), 10)
        wait_until(lambda: bool(tensorboard_curves(sweep.folder, METRIC.name).get("t0000")))
        (process,) = find_processes(sweep.folder)
        assert process.nice() >= 10
        for number in (signal.SIGTERM, signal.SIGUSR1):
            process.send_signal(number)
        sweep.report(make_config(0), 20)
    assert tensorboard_curves(sweep.folder, METRIC.name) == {"t0000": [(10, 30.0), (20, 40.0)]}
    assert not caplog.records


def test_files_are_not_trusted_after_an_error_that_a_full_disk_may_have_caused(
    tmp_path: Path,
) -> None:
    for name, error in (("full", SweepAborted("full", "free")), ("left", KeyboardInterrupt())):
        sweep = FollowedSweep(tmp_path / name)
        with pytest.raises(type(error)), track(sweep.folder, "wandb"):
            sweep.complete(0)
            raise error
    assert complete_names(tmp_path / "left") == ["t0000"]
    assert not (tmp_path / "full" / "wandb" / "complete.jsonl").exists()


def test_process_goes_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    folder = FollowedSweep(tmp_path / "run").folder
    code = "import sys, time; from pathlib import Path\n"
    code += "from tests.sweeps.tracking.test_tracker_process import track\n"
    code += "with track(Path(sys.argv[1]), 'tensorboard'): time.sleep(600)"
    killed = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    wait_until(lambda: bool(find_processes(folder)))
    killed.kill()
    killed.wait()
    wait_until(lambda: not find_processes(folder))


def test_process_that_dies_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = FollowedSweep(tmp_path / "run").folder
    with track(folder, "tensorboard"):
        find_processes(folder)[0].kill()
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert f"python -m sweeps.sync {folder}" in warning
