"""One mistake of a user, and whether the command that it is made with answers as promised."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.cli import EXIT_USER_ERROR
from tests.benchmarks.mistakes.damage import Damage
from tests.sweeps.commands import PROJECT, tree, world

SLOW_S = 15.0
"""An answer that takes as long is none."""
HANG_S = 60.0
"""Until a process is killed."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One mistake."""

    kind: str
    title: str
    """What is wrong, in a few words."""
    command: str
    """What follows `python -m` in a shell whose working folder is the mistake's own, or the name of
    an installed script."""
    named: str
    """What the error has to name."""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    prepare: Damage | None = None
    """Makes what else lies in the folder before the command starts."""
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: str = ""
    """A line of sh that mounts what is needed, in a mount namespace of its own."""
    typed: bytes = b""
    """What comes on standard input."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a mistake's process ended."""

    mistake: Mistake
    code: int
    seconds: float
    cpu_s: float
    stdout: str
    stderr: str
    changed: tuple[str, ...]
    """Files and folders that were written, changed or removed."""

    @property
    def last_lines(self) -> tuple[str, str]:
        lines = ["", "", *self.stderr.splitlines()]
        return lines[-2], lines[-1]

    @property
    def faults(self) -> list[str]:
        """Where the answer is not as promised."""
        named, (error, fix) = self.mistake.named, self.last_lines
        output = self.stdout + self.stderr
        is_told = error.startswith("error: ") and fix.startswith("fix: ")
        checks = {
            f"exit code {self.code}": self.code == EXIT_USER_ERROR,
            "does not end with error and fix": is_told,
            "a traceback": "Traceback (most recent call last)" not in output,
            f"does not name {named}": _name_field(named) in _name_field(error),
            f"changed {', '.join(self.changed[:5])}": not self.changed,
            f"took {self.seconds:.1f} s": self.seconds < SLOW_S,
        }
        return [fault for fault, holds in checks.items() if not holds]

    def to_json(self) -> dict[str, object]:
        error, fix = self.last_lines
        return {
            "kind": self.mistake.kind,
            "mistake": self.mistake.title,
            "command": self.mistake.command,
            "faults": self.faults,
            "code": self.code,
            "seconds": round(self.seconds, 1),
            "cpu_s": round(self.cpu_s, 1),
            "error": error,
            "fix": fix,
        }


def run_mistake(mistake: Mistake) -> Answer:
    """Runs a mistake's command in a fresh folder, with a home and a folder for temporary files."""
    with tempfile.TemporaryDirectory(
        prefix="m-",
        dir="/tmp",
        ignore_cleanup_errors=True,  # one that hangs may leave processes
    ) as made:
        top = Path(made).resolve()
        here, home, temporary = top / "work", top / "home", top / "tmp"
        for folder in (here, home, temporary):
            folder.mkdir()
        for name, content in mistake.files.items():
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, bytes) else content.encode()
            (here / name).write_bytes(text)
        if mistake.prepare is not None:
            mistake.prepare(here)
        before = _list_content(here, temporary)
        env = world(home) | {"TMPDIR": str(temporary)} | dict(mistake.environment)
        argv = _read_command(mistake)
        began = time.monotonic()
        process = subprocess.Popen(
            argv,
            cwd=here,
            env=env,
            stdin=subprocess.PIPE,
            stdout=(top / "stdout").open("wb"),
            stderr=(top / "stderr").open("wb"),
            start_new_session=True,
        )
        _send_input(process, mistake.typed)
        cpu_s = _await_end(process)
        seconds = time.monotonic() - began
        after = _list_content(here, temporary)
        changed = [name for name in before | after if before.get(name, 0) != after.get(name, 0)]
        return Answer(
            mistake=mistake,
            code=process.returncode,
            seconds=seconds,
            cpu_s=cpu_s,
            stdout=_read_output(top / "stdout", top),
            stderr=_read_output(top / "stderr", top),
            changed=tuple(sorted(changed)),
        )


def _read_command(mistake: Mistake) -> list[str]:
    program, *words = shlex.split(mistake.command)
    scripts = Path(sys.executable).parent
    python = [sys.executable, "-m", program]
    argv = [*([str(scripts / program)] if "." not in program else python), *words]
    if not mistake.mounts:
        return argv
    return ["unshare", "--mount", "sh", "-c", f'{mistake.mounts} && exec "$@"', "sh", *argv]


def _send_input(process: "subprocess.Popen[bytes]", typed: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(typed)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it had read enough


def _await_end(process: "subprocess.Popen[bytes]") -> float:
    """Seconds of CPU time until the process ended, killed with its children if it hangs."""
    timer = threading.Timer(HANG_S, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    _, status, usage = os.wait4(process.pid, 0)
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _list_content(*folders: Path) -> dict[str, object]:
    """All that lies in them, but locks, and torch's cache among temporary files."""
    content_of: dict[str, object] = {}
    for folder in folders:
        content_of |= {f"{folder.name}/{name}": content for name, content in tree(folder).items()}
    ours = (f"tmp/qlora-sweeps-{os.getuid()}", "tmp/torchinductor_", "work/runs/base/.lock")
    return {name: content for name, content in content_of.items() if not name.startswith(ours)}


def _read_output(path: Path, folder: Path) -> str:
    """What was printed, without the places of this machine."""
    text = path.read_text("utf-8", errors="replace")
    for place, name in ((folder / "work", "HERE"), (folder, "TOP"), (PROJECT, "PROJECT")):
        text = text.replace(str(place), name)
    return text


def _name_field(text: str) -> str:
    """A flag as the field that it sets is called."""
    return text.lstrip("-").replace("-", "_")
