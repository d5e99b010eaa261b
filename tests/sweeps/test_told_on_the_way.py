"""What ends a sweep after its checks is one error with a remedy that can be pasted."""

import contextlib
import errno
import os
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

from sweeps import run, run_sweep, sweep
from sweeps.checks.run_args import read_command
from sweeps.cli import Result
from sweeps.control import stages
from sweeps.publish.report import follow
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
from trainables.errors import REPEAT, SweepAborted

pytestmark = pytest.mark.usefixtures("few_rows", "no_report")
Ended = TypeVar("Ended", bound=BaseException)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that writes report.html takes seconds, and has nothing to do with errors."""
    monkeypatch.setattr(follow, "keep_report", lambda paths: contextlib.nullcontext())


def find_end(
    kind: type[Ended],
    run_stages: Callable[..., NoReturn],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Ended:
    """What a sweep called a ends with, whose stages are these."""
    monkeypatch.setattr(stages, "run_stages", run_stages)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(kind) as ended:
        run.main(["samsum", "--tiny", "--name", "a", "--runs-dir", str(folder)])
    return ended.value


@pytest.mark.parametrize(
    "full",
    [
        SweepAborted("the disk is full", f"free space, {REPEAT}"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_what_a_resume_mends_comes_with_the_whole_command(
    full: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_stages(*_: Any, **__: Any) -> NoReturn:
        raise full

    monkeypatch.setattr(stages, "run_stages", run_stages)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    flags = ["samsum", "--tiny", "--engine", "solo", "--runs-dir", str(tmp_path)]
    with pytest.raises(SweepAborted, match="the disk is full") as told:
        run.main(flags)
    remedy, _, command = told.value.fix.partition(": ")
    assert remedy == "free space, then repeat the command with --resume"
    assert command.startswith("python -m sweeps.run samsum ")
    (folder,) = tmp_path.iterdir()
    resumed = read_command(shlex.split(command)[3:])
    assert resumed.resume and resumed.config.name == folder.name
    with pytest.raises(SweepAborted, match="the disk is full") as told:
        run_sweep("samsum", tiny=True, engine="solo", runs_dir=tmp_path, name="again")
    call = f"run_sweep('samsum', tiny=True, name='again', runs_dir={str(tmp_path)!r}, resume=True)"
    assert told.value.fix == f"free space, then repeat the command with --resume: {call}"


@pytest.mark.parametrize(
    "missed", [SweepAborted("there is no sweep", "make one"), FileNotFoundError(2, "No such file")]
)
def test_run_that_is_deleted_meanwhile_is_told(
    missed: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_stages(_: Any, __: Any, paths: RunPaths, **___: Any) -> NoReturn:
        shutil.rmtree(paths.folder)
        raise missed

    told = find_end(SweepAborted, run_stages, tmp_path, monkeypatch)
    assert told.error == f"the run {tmp_path / 'a'} was deleted while its sweep ran"
    remedy = "put it back, then repeat the command with --resume: python -m sweeps.run samsum"
    assert told.fix.startswith(remedy)


def test_run_on_a_disk_that_is_lost_is_not_told_as_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = OSError(errno.ESTALE, "Stale file handle", str(tmp_path))
    look = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path.name == "sweep.json":
            raise stale
        return look(path)

    def run_stages(*_: Any, **__: Any) -> NoReturn:
        monkeypatch.setattr(Path, "lstat", lstat)
        raise stale

    told = find_end(SweepAborted, run_stages, tmp_path, monkeypatch)
    assert told.error == f"the disk of {tmp_path} does not answer"
    assert told.fix.startswith("mount it again, then repeat the command with --resume: ")


def test_a_ray_that_cannot_be_joined_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")  # put back in the end
    monkeypatch.setenv("RAY_ADDRESS", "http://10.0.0.1:8265")
    with pytest.raises(SweepAborted, match=r"cluster at http://\S+ cannot be joined") as told:
        stages._connect_cluster()
    assert "RAY_ADDRESS" in told.value.fix


def test_whatever_exits_is_told_as_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_stages(_: Any, __: Any, paths: RunPaths, **___: Any) -> NoReturn:
        EventLog(paths.events).append("sweep_started")
        raise SystemExit(1)

    find_end(SystemExit, run_stages, tmp_path, monkeypatch)
    last = read_events(RunPaths(tmp_path / "a").events)[-1]
    assert (last["kind"], last["reason"]) == ("sweep_interrupted", "exit 1")


def test_result_for_programs_is_read_for_them_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "run_from_args", lambda *_: (1, tmp_path))
    assert run.main(["samsum"]) == Result({}, 1)
    with pytest.raises(SweepAborted):  # of a folder without a sweep
        run.main(["samsum", "--json"])


def test_handler_of_signals_that_c_has_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    with sweep._restore_process():
        pass
