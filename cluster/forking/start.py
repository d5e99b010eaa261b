"""Starts the process that workers are forked from, beside everything else that takes its time."""

import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cluster.find import temporary_folder
from cluster.project import python_path

_CLIENT = Path(__file__).with_name("client.py")
_BACKLOG = 128


@contextmanager
def forking(module: str, env: Mapping[str, str]) -> Iterator[str | None]:
    """A process that imports a module; yields the py_executable of a Ray runtime environment.

    Workers of this machine that are started with it are forked once the module is there. They live
    without the process; if it is gone, a worker starts as any other. None where the system refuses
    such a process or its socket. For Linux.

    Args:
        module: what it loads must leave the process with one thread and no GPU touched, and must
            not load Ray: a fork could not connect.
        env: environment that the module is imported with; workers have their own.
    """
    with ExitStack() as stack:
        try:
            folder = tempfile.TemporaryDirectory(prefix="forking-", dir=temporary_folder())
            path = Path(stack.enter_context(folder)) / "socket"
            server = _start(path, module, env)
        except OSError:
            server = None
        if server is None:
            yield None
            return
        stack.callback(server.communicate)
        stack.callback(server.kill)
        yield shlex.join([sys.executable, "-S", "-E", os.fspath(_CLIENT), os.fspath(path)])


def _start(path: Path, module: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The process; who asks it before it has imported waits.

    Raises:
        OSError: the socket or the process cannot be made.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen(_BACKLOG)
        number = listener.fileno()
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cluster.forking.server", str(number), module],
            env={**os.environ, "PYTHONPATH": python_path(), **env},
            pass_fds=[number],
            stdin=subprocess.PIPE,  # closes when this process ends, however it does
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is this process's
        )
