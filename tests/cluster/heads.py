"""Heads and nodes of real Ray clusters on this machine, each with its own temporary folder, and
drivers that join them as processes of their own: Ray reads its tokens while it is imported."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from cluster.find import answers

PROJECT = Path(__file__).resolve().parents[2]
START_S = 60.0
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}


def clean_environment(home: Path, **values: str) -> dict[str, str]:
    """An environment without any of Ray's variables but those of values."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    kept |= {"HOME": str(home), "PYTHONPATH": str(PROJECT), "CUDA_VISIBLE_DEVICES": ""}
    return kept | _QUIET | values


@contextlib.contextmanager
def run_heads(*homes: Path) -> Iterator[list[str]]:
    """Addresses of clusters of one node, which users with these homes have started."""
    with contextlib.ExitStack() as running:
        addresses = [f"127.0.0.1:{_find_port()}" for _ in homes]
        for home, address in zip(homes, addresses, strict=True):
            words = ["--head", f"--port={address.rpartition(':')[2]}"]
            words += ["--node-ip-address=127.0.0.1", "--include-dashboard=false"]
            folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short, as Ray's sockets need it
            running.callback(shutil.rmtree, folder, ignore_errors=True)
            running.enter_context(run_node(home, *words, f"--temp-dir={folder}"))
        deadline_s = time.monotonic() + START_S
        while not all(map(answers, addresses)):
            assert time.monotonic() < deadline_s, "a head does not answer"
            time.sleep(0.1)
        yield addresses


@contextlib.contextmanager
def run_node(home: Path, *words: str) -> Iterator[None]:
    """What `ray start` with these words starts."""
    command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=2"]
    node = psutil.Popen(
        [*command, "--object-store-memory=80000000", *words],
        env=clean_environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        for process in (*node.children(recursive=True), node):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()


def start_driver(code: str, home: Path, **environment: str) -> "subprocess.Popen[str]":
    """A process that runs Python code in this checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=clean_environment(home, **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def run_http2_server(
    greeting: bytes = b"\0\0\0\4\0\0\0\0\0", host: str = "127.0.0.1"
) -> Iterator[str]:
    """Address of a server that greets whoever connects: with HTTP/2's settings, as gRPC does."""

    def greet(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                client.sendall(greeting)
                client.close()

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        threading.Thread(target=greet, args=(server,), daemon=True).start()
        shown = f"[{host}]" if ":" in host else host
        yield f"{shown}:{server.getsockname()[1]}"


def _find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
