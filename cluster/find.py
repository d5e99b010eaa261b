"""The Ray cluster that is there already, found without loading Ray."""

import os
import re
import socket
import stat
import tempfile
from pathlib import Path

_TIMEOUT_S = 2.0
_MAX_SOCKET_BYTES = 107  # unix(7): sun_path holds 108 with its closing zero
_SETTINGS = b"\4"  # RFC 9113, 6.5: the type of the first frame that either side sends
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
_DEFAULTS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a task without a GPU sees CUDA's list as it is
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a thread that outlives the sweep's starts another Ray
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else workers under `uv run` get another environment
}


class ClusterError(Exception):
    """A Ray cluster cannot be joined.

    Args:
        error: what is wrong.
        fix: what the user can do about it.
    """

    def __init__(self, error: str, fix: str) -> None:
        super().__init__(error, fix)
        self.error = error
        self.fix = fix


def set_ray_defaults() -> None:
    """Sets what Ray reads from the environment while it is imported; a user's values stay."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def check_address() -> None:
    """Whether what RAY_ADDRESS names can be a cluster; a local one needs a place for its sockets.

    "auto" and "local" are Ray's own words.

    Raises:
        ClusterError: it is no address of one, nobody listens there, or "auto" finds none.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    folder = find_local_ray_folder()
    if address in ("", "local") and not has_short_sockets(folder):
        raise ClusterError(
            f"the temporary folder {folder} has too long a name for Ray's sockets",
            "name a shorter one: RAY_TMPDIR=/tmp",
        )
    # not Path.exists, which raises below a folder that this user may not enter
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if address in ("", "local") and not (there.is_dir() and os.access(there, os.W_OK)):
        raise ClusterError(
            f"Ray's temporary folder {folder} cannot be made: {there} is no folder that this user "
            "may write into",
            "name another: RAY_TMPDIR=/tmp",
        )
    if address in ("", "local", "auto"):
        find_address_to_join()
        return
    if address.startswith("ray://"):
        raise ClusterError(
            f"RAY_ADDRESS={address} is one of Ray Client, which cannot run a sweep",
            "run the command on a node of the cluster with RAY_ADDRESS=auto, or have it run "
            "there: ray job submit --working-dir . -- python -m sweeps.run ...",
        )
    if not re.fullmatch(r"[^/]+:\d+", address):
        raise ClusterError(
            f"RAY_ADDRESS={address} is no address of a Ray cluster",
            "name its HOST:PORT, or unset RAY_ADDRESS to run on this machine",
        )
    if not is_answering(address):
        raise ClusterError(
            f"the Ray cluster at RAY_ADDRESS={address} does not answer",
            "check the address, or unset RAY_ADDRESS to run on this machine",
        )


def find_address_to_join() -> str | None:
    """The cluster that a sweep joins: RAY_ADDRESS, or one that runs here; None starts a new one.

    Raises:
        ClusterError: RAY_ADDRESS is "auto", and none of this user runs here. Ray itself would take
            any head among this machine's processes, also another user's.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if address not in ("", "auto"):
        return None if address == "local" else address
    running = find_running_address()
    if address == "auto" and running is None:
        raise ClusterError(
            "RAY_ADDRESS=auto, and `ray start` has left no cluster of this user's on this machine",
            "name it: RAY_ADDRESS=HOST:PORT; RAY_ADDRESS=local runs on this machine alone",
        )
    return running


def find_running_address() -> str | None:
    """The address that `ray start` wrote on this machine, if a server still answers there.

    Whoever can write that file decides where this user's sweeps and tokens go, so that one of
    another user, or one that others may write, is not followed.
    """
    try:
        with (find_temporary_folder() / "ray" / "ray_current_cluster").open() as file:
            about = os.fstat(file.fileno())
            if about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
            address = file.read().strip()
    except (OSError, ValueError):  # none, or another user's
        return None
    return address if is_answering(address) else None


def find_temporary_folder() -> Path:
    """Where Ray keeps its sessions' files and sockets."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


def find_local_ray_folder() -> Path:
    """Where a Ray that is started here keeps its sessions: in a folder of this user alone, unless
    RAY_TMPDIR names another. Ray lets every user write into what it makes below."""
    if named := os.environ.get("RAY_TMPDIR"):
        return Path(named)
    return Path(tempfile.gettempdir()) / f"ray-{os.getuid()}"


def has_short_sockets(folder: Path) -> bool:
    """Whether the sockets that Ray opens below folder have names as short as Linux allows."""
    session = "ray/session_2026-01-01_00-00-00_000000_4194304"
    return len(os.fsencode(folder / session / "sockets" / "plasma_store")) <= _MAX_SOCKET_BYTES


def is_answering(address: str) -> bool:
    """Whether a server at HOST:PORT speaks HTTP/2, as Ray's head does over gRPC.

    Another program may have the port of a cluster that has ended, and Ray waits for it a minute.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S) as server:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return True
            server.sendall(_HTTP2_HELLO)
            return server.recv(9)[3:4] == _SETTINGS
    except (OSError, ValueError, OverflowError):
        return False
