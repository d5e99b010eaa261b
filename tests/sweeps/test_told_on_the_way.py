"""What ends a sweep after its checks is one error with a remedy that can be pasted."""

import shlex
from pathlib import Path
from typing import Any, NoReturn

import pytest

from sweeps import run, sweep
from trainables.errors import SweepAborted


def test_what_a_resume_mends_comes_with_the_whole_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> NoReturn:
        raise SweepAborted("the disk is full", "free space, then repeat the command with --resume")

    monkeypatch.setattr(sweep, "run_sweep", full)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    flags = ["samsum", "--tiny", "--engine", "solo", "--runs-dir", str(tmp_path)]
    with pytest.raises(SweepAborted) as told:
        run.main(flags)
    command = told.value.fix.partition(": ")[2]
    assert command.startswith("python -m sweeps.run samsum ")
    (folder,) = tmp_path.iterdir()
    resumed = run.read_command(shlex.split(command)[3:])
    assert resumed.resume and resumed.config.name == folder.name


def test_a_ray_that_cannot_be_joined_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")  # put back in the end
    monkeypatch.setenv("RAY_ADDRESS", "http://10.0.0.1:8265")
    with pytest.raises(SweepAborted, match="Ray cannot be connected to: ") as told:
        sweep._connect()
    assert "RAY_ADDRESS" in told.value.fix
