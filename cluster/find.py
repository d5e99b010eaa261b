"""The Ray cluster that is there already, found without loading Ray."""

import os
import socket
import tempfile
from pathlib import Path

_TIMEOUT_S = 2.0
_MAX_SOCKET_BYTES = 107  # unix(7): sun_path holds 108 with its closing zero


def running_address() -> str | None:
    """The address that `ray start` wrote on this machine, if a server still answers there."""
    file = temporary_folder() / "ray" / "ray_current_cluster"
    try:
        address = file.read_text().strip()
    except (OSError, ValueError):  # none, or another user's
        return None
    return address if answers(address) else None


def address_to_join() -> str | None:
    """The cluster that a sweep joins: RAY_ADDRESS, or one that runs here; None starts a new one."""
    address = os.environ.get("RAY_ADDRESS") or running_address()
    return None if address == "local" else address


def temporary_folder() -> Path:
    """Where Ray keeps its sessions' files and sockets."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


def has_short_sockets(folder: Path) -> bool:
    """Whether the sockets that Ray opens below folder have names as short as Linux allows."""
    session = "ray/session_2026-01-01_00-00-00_000000_4194304"
    return len(os.fsencode(folder / session / "sockets" / "plasma_store")) <= _MAX_SOCKET_BYTES


def answers(address: str) -> bool:
    """Whether a server accepts connections at HOST:PORT, with or without ray:// before it."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S):
            return True
    except (OSError, ValueError, OverflowError):
        return False
