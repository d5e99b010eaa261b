"""What Ray starts in place of Python: it has a worker forked, or else becomes Python itself.

Run as `python -S -E client.py SOCKET SCRIPT [ARGS]`, with the standard library alone, in 20 ms.
"""

import json
import os
import resource
import socket
import sys
from pathlib import Path

WAIT_S = 30.0
"""How long the server may still import; Ray waits 60 s for a worker."""
LENGTH_BYTES = 8
OOM_SCORE = Path("/proc/self/oom_score_adj")
"""Ray has workers killed before others where memory runs out."""


def main() -> None:
    """Lives as long as the worker, so that Ray, which knows both, ends either by the other."""
    path, *command = sys.argv[1:]
    try:
        connection = forked(path, command)
    except OSError:  # no server, or not in time
        os.execv(sys.executable, [sys.executable, *command])
    connection.settimeout(None)
    connection.recv(1)  # nothing is sent: it ends with the worker


def forked(path: str, command: list[str]) -> socket.socket:
    """The connection to a fork that runs the command with this process's files and environment, as
    long as the connection is open.

    Raises:
        OSError: there is none, and will be none.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(WAIT_S)
    connection.connect(path)
    worker = {
        "command": command,
        "env": dict(os.environ),
        "folder": os.getcwd(),
        "most_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "oom_score": OOM_SCORE.read_text(),
    }
    text = json.dumps(worker).encode()
    socket.send_fds(connection, [len(text).to_bytes(LENGTH_BYTES, "big")], [0, 1, 2])
    connection.sendall(text)
    if not connection.recv(1):
        raise ConnectionError("the server has ended")
    return connection


if __name__ == "__main__":
    main()
