"""Runs the project's commands as a user does, in a world of their own: home, runs folder, cache."""

import atexit
import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeps import ask, export, run, status, trial
from sweeps.cli import Result, run_command

PROJECT = Path(__file__).resolve().parents[2]
TINY = PROJECT / "trainables" / "tiny"
NO_HUB = "http://127.0.0.1:9"
"""The discard port, where nothing listens."""
HANG_S = 500.0
"""Until a command counts as hanging, also on a slow machine."""

RAY_TMPDIR = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
"""Short, as Ray's sockets need it, and without a cluster of the machine's."""
atexit.register(shutil.rmtree, RAY_TMPDIR, ignore_errors=True)

_MAINS: Mapping[str, Callable[[list[str]], Result | int | None]] = {
    "sweeps.ask": ask.main,
    "sweeps.export": export.main,
    "sweeps.run": run.main,
    "sweeps.status": status.main,
    "sweeps.trial": trial.main,
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    def refusal(self) -> tuple[str, str]:
        """The texts after `error: ` and `fix: `, once nothing else was said."""
        assert self.code == 2, (self.code, self.stderr)
        assert self.stdout == ""
        lines = self.stderr.splitlines()
        assert [line.split(": ")[0] for line in lines] == ["error", "fix"], self.stderr
        error, fix = (line.partition(": ")[2] for line in lines)
        assert error and fix
        return error, fix


def call(command: str, *words: str) -> Ended:
    """The command in this process, by the door that ends every command."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            run_command(lambda: _MAINS[command](list(words)), argv=words)
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return Ended(code, stdout.getvalue(), stderr.getvalue())


def start(
    command: str, *words: str, folder: Path, user: int | None = None, **environment: str
) -> Ended:
    """The command as a process whose working folder and home are folder."""
    done = subprocess.run(
        [sys.executable, "-m", command, *words],
        cwd=folder,
        env=world(folder) | environment,
        user=user,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def read_by_shell(command: str) -> list[str]:
    """The words that bash reads in a command."""
    printed = subprocess.run(
        ["bash", "-c", f"for word in {command}; do printf '%s\\0' \"$word\"; done"],
        stdout=subprocess.PIPE,
        check=True,
    )
    return printed.stdout.decode().split("\0")[:-1]


def world(folder: Path) -> dict[str, str]:
    """An environment with no login, no GPU, no Ray cluster and no Hub."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PROJECT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder),
        "RAY_TMPDIR": RAY_TMPDIR,
        "HF_HOME": str(folder / "hf"),
        "HF_ENDPOINT": NO_HUB,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that lies under folder, with the files' bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def refused(folder: Path, *flags: str) -> tuple[str, str]:
    """The refusal of a tiny sweep, which left folder as it was."""
    before = tree(folder)
    refusal = call("sweeps.run", "samsum", "--tiny", *flags).refusal()
    assert tree(folder) == before
    return refusal
