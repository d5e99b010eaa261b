"""What ends a sweep after its checks is one error with a remedy that can be pasted."""

import errno
import shlex
from pathlib import Path
from typing import Any, NoReturn

import pytest

from sweeps import run, sweep
from trainables.errors import REPEAT, SweepAborted


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

    monkeypatch.setattr(sweep, "run_stages", run_stages)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    flags = ["samsum", "--tiny", "--engine", "solo", "--runs-dir", str(tmp_path)]
    with pytest.raises(SweepAborted, match="the disk is full") as told:
        run.main(flags)
    remedy, _, command = told.value.fix.partition(": ")
    assert remedy == "free space, then repeat the command with --resume"
    assert command.startswith("python -m sweeps.run samsum ")
    (folder,) = tmp_path.iterdir()
    resumed = run.read_command(shlex.split(command)[3:])
    assert resumed.resume and resumed.config.name == folder.name
    with pytest.raises(SweepAborted, match="the disk is full") as told:
        run.run_sweep("samsum", tiny=True, engine="solo", runs_dir=tmp_path, name="again")
    call = f"run_sweep('samsum', tiny=True, name='again', runs_dir={str(tmp_path)!r}, resume=True)"
    assert told.value.fix == f"free space, then repeat the command with --resume: {call}"


def test_a_ray_that_cannot_be_joined_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")  # put back in the end
    monkeypatch.setenv("RAY_ADDRESS", "http://10.0.0.1:8265")
    with pytest.raises(SweepAborted, match="Ray cannot be connected to: ") as told:
        sweep._connect()
    assert "RAY_ADDRESS" in told.value.fix
