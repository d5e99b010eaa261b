"""The Ray cluster that is there already, found without loading Ray."""

import os
import socket
import tempfile
from pathlib import Path


def running_address() -> str | None:
    """The address that `ray start` wrote on this machine, if a server still answers there."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    file = Path(folder) / "ray" / "ray_current_cluster"
    if not file.is_file():
        return None
    address = file.read_text().strip()
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return address
    except (OSError, ValueError):
        return None
