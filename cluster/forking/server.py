"""The process that workers are forked from: it imports a module, then forks one whenever asked."""

import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
from typing import Any

from cluster.forking.client import LENGTH_BYTES, OOM_SCORE

READ_S = 5.0
"""How long a client may take for its question."""


def main() -> None:
    """Run as `python -P -m cluster.forking.server SOCKET_FD MODULE`, until its stdin closes."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    gc.disable()
    importlib.import_module(sys.argv[2])
    gc.freeze()  # a collection would write to memory that is shared
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that end
    script = _serve(listener)
    runpy.run_path(script, run_name="__main__")


def _serve(listener: socket.socket) -> str:
    """Forks until stdin closes; returns in each fork, with the script that it is to run."""
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            shutil.rmtree(os.path.dirname(listener.getsockname()), ignore_errors=True)
            sys.exit()
        connection, _ = listener.accept()
        files: list[int] = []
        try:
            asked = _read(connection, files)
            is_fork = os.fork() == 0
        except (OSError, ValueError):  # the client is gone, has not said all, or must be Python
            is_fork = False
        if is_fork:
            listener.close()
            return _become(connection, asked, files)
        connection.close()
        for file in files:
            os.close(file)


def _read(connection: socket.socket, files: list[int]) -> dict[str, Any]:
    """What a client asks for; its stdin, stdout and stderr are added to files.

    Raises:
        OSError: the client is gone.
        ValueError: it has not said all.
    """
    connection.settimeout(READ_S)
    head, sent, _, _ = socket.recv_fds(connection, LENGTH_BYTES, 3)
    files += sent
    with connection.makefile("rb") as stream:
        text = stream.read(int.from_bytes(head, "big"))
    connection.settimeout(None)
    asked: dict[str, Any] = json.loads(text)
    return asked


def _become(connection: socket.socket, asked: dict[str, Any], files: list[int]) -> str:
    """Makes this process the one that the client would have become; returns the script to run."""
    os.setsid()  # Ray ends a worker's whole group of processes
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["folder"])
    resource.setrlimit(resource.RLIMIT_NOFILE, asked["most_files"])
    OOM_SCORE.write_text(asked["oom_score"])
    sys.argv = asked["command"]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    with contextlib.suppress(OSError):  # it has gone, and this process is about to
        connection.sendall(b"1")
    return sys.argv[0]


def _end_with(connection: socket.socket) -> None:
    """Ends this process when its client ends, or has not waited and is Python by now."""
    with contextlib.suppress(OSError):  # it may go without having read
        connection.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
