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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parents[2]
RAY = (str(Path(sys.executable).parent / "ray"),)
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}


def clean_environment(home: Path, **values: str) -> dict[str, str]:
    """An environment without any of Ray's variables but those of values."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    kept |= {"HOME": str(home), "PYTHONPATH": str(PROJECT)}
    kept.pop("CUDA_VISIBLE_DEVICES", None)
    return kept | _QUIET | values


@contextlib.contextmanager
def run_heads(
    *homes: Path, host: str = "127.0.0.1", num_cpus: int = 2, **values: str
) -> Iterator[list[str]]:
    """Addresses of clusters of one node, which users have started in these homes of theirs, with
    these variables of the environment."""
    with contextlib.ExitStack() as running:
        addresses = [f"{host}:{find_port()}" for _ in homes]
        heads = []
        for home, address in zip(homes, addresses, strict=True):
            words = ["--head", f"--port={address.rpartition(':')[2]}"]
            words += [f"--node-ip-address={host}", "--include-dashboard=false", "--num-gpus=0"]
            words += [f"--num-cpus={num_cpus}"]
            folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short, as Ray's sockets need it
            running.callback(shutil.rmtree, folder, ignore_errors=True)
            head = start_ray(home, values, *words, f"--temp-dir={folder}")
            heads.append(running.enter_context(head))
        for head in heads:
            wait_until_started(head)
        yield addresses


@contextlib.contextmanager
def run_node(
    home: Path, address: str, *words: str, within: Sequence[str] = (), **values: str
) -> Iterator[None]:
    """One more node of a cluster, whose working folder is home; `within` is a command that runs
    another in some confinement."""
    given = (f"--address={address}", "--node-ip-address=127.0.0.1", "--num-cpus=2", *words)
    with start_ray(home, values, *given, ray=(*within, *RAY)) as node:
        wait_until_started(node)
        yield


@contextlib.contextmanager
def start_ray(
    home: Path, values: Mapping[str, str], *words: str, ray: Sequence[str] = RAY
) -> Iterator[psutil.Popen]:
    """A process of `ray start` and what it starts, while the context lasts."""
    node = psutil.Popen(
        [*ray, "start", "--block", "--object-store-memory=80000000", *words],
        cwd=home,
        env=clean_environment(home, **values),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield node
    finally:
        for process in (*node.children(recursive=True), node):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()


def wait_until_started(node: psutil.Popen) -> None:
    """Reads what `ray start` prints, until its Ray runs."""
    told = ""
    while "Ray runtime started" not in told:
        line = node.stdout.readline()
        assert line, told
        told += line


def start_driver(code: str, home: Path, **environment: str) -> "subprocess.Popen[str]":
    """A process that runs Python code in this checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=clean_environment(home, **environment),
        stdin=subprocess.PIPE,
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


def find_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
