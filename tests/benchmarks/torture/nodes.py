"""A Ray cluster on this machine, whose nodes come and go and may lose their network.

Each node has an address, a temporary folder and, so that it is one GPU's place for a pack, an
nvidia-smi of its own that tells of a GPU; torch trains on the CPU.
"""

import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cluster.find import is_answering
from tests.cluster.heads import clean_environment
from tests.sweeps import small_sweep

HEAD = 1
"""Its number; it has no GPU, and the driver runs beside it."""
LONGEST_ABSENCE_S = 20.0
"""A lost node is back after so long at most; so late come all but one of a cluster's first."""
START_TIMEOUT_S = 120.0
NVIDIA_SMI = "#!/bin/sh\necho GPU-$$, stand-in, 16384, 8.0\n"
WORDS = ("--block", "--num-cpus=2", "--object-store-memory=80000000", "--disable-usage-stats")
WORKER_PORTS = ("--min-worker-port=0", "--max-worker-port=0")
"""Any free ones: nodes of one machine would race for the same."""


@dataclass(kw_only=True)
class Nodes:
    """The cluster, whose lost nodes come back."""

    scratch: Path
    num_nodes: int
    """With the head."""
    has_cables: bool
    """Whether each has a network of its own."""
    absences: random.Random
    running: dict[int, psutil.Popen] = field(default_factory=dict)
    """`ray start` by the node's number."""
    networks: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    """Processes that do nothing but hold one."""
    num_started: int = 0
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    port: int = field(default_factory=lambda: _find_port())
    has_ended: threading.Event = field(default_factory=threading.Event)
    keeper: threading.Thread | None = None
    """Brings nodes back until has_ended."""

    def start(self) -> None:
        """Starts the head and one more node, so that there is a GPU; others come by and by."""
        if self.has_cables and not self.networks:
            self._lay_cables()
        self._start_node(HEAD)
        _wait_until(lambda: is_answering(self.address))
        self._start_node(HEAD + 1)
        output = self.scratch / f"n{self.num_started}" / "output"
        _wait_until(lambda: "Ray runtime started" in output.read_text())
        self.keeper = threading.Thread(target=self._bring_back, daemon=True)
        self.has_ended.clear()
        self.keeper.start()

    def stop(self) -> None:
        self._stop_keeper()
        for node in self.running.values():
            _signal_all(node, signal.SIGKILL)
        for network in self.networks.values():
            network.kill()

    @property
    def address(self) -> str:
        return f"{self._make_ip(HEAD)}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        variables = {"RAY_TMPDIR": str(self.scratch), "OMP_NUM_THREADS": "1"}
        return variables | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def list_workers(self) -> dict[int, psutil.Popen]:
        """All that run but the head."""
        nodes = self.running.items()
        return {number: node for number, node in nodes if number != HEAD and node.poll() is None}

    def kill(self, number: int) -> None:
        """SIGKILL to all of a node's processes, as if its power failed."""
        _signal_all(self.running[number], signal.SIGKILL)

    def kill_raylet(self, number: int) -> None:
        """SIGKILL to a node's raylet alone."""
        for process in self.running[number].children():
            if process.name() == "raylet":
                process.kill()

    def leave(self, number: int) -> None:
        """SIGTERM to all of a node's processes, as a machine shuts down."""
        _signal_all(self.running[number], signal.SIGTERM)

    def lose_head(self) -> None:
        """Kills the head. The other nodes stay, with all that they do, until they notice."""
        self._stop_keeper()
        self.kill(HEAD)
        self.running.clear()

    def cut(self, number: int, cut_s: float) -> None:
        """Pulls a node's cable for so long."""
        _run_ip("link", "set", f"node{number}", "down")
        time.sleep(cut_s)
        _run_ip("link", "set", f"node{number}", "up")

    def enter(self, number: int) -> list[str]:
        """Words before a command that runs on a node."""
        if not self.has_cables:
            return []
        return ["nsenter", f"--net=/proc/{self.networks[number].pid}/ns/net"]

    def _stop_keeper(self) -> None:
        self.has_ended.set()
        if self.keeper is not None:
            self.keeper.join()

    def _bring_back(self) -> None:
        back_s: dict[int, float] = {}
        while not self.has_ended.wait(0.5):
            for number in range(HEAD + 1, self.num_nodes + 1):
                if number not in self.list_workers():
                    absence_s = self.absences.uniform(0.0, LONGEST_ABSENCE_S)
                    if time.monotonic() >= back_s.setdefault(number, time.monotonic() + absence_s):
                        del back_s[number]
                        self._start_node(number)

    def _start_node(self, number: int) -> None:
        self.num_started += 1
        folder = self.scratch / f"n{self.num_started}"
        smi = folder / "bin" / "nvidia-smi"
        smi.parent.mkdir(parents=True)
        smi.write_text(NVIDIA_SMI)
        smi.chmod(0o755)
        words = [*WORDS, *WORKER_PORTS, f"--node-ip-address={self._make_ip(number)}"]
        words += [f"--temp-dir={folder}", f"--num-gpus={int(number != HEAD)}"]
        if number == HEAD:
            words += ["--head", f"--port={self.port}", "--include-dashboard=false"]
        else:
            words += [f"--address={self.address}"]
        path = f"{smi.parent}:{os.environ['PATH']}"
        with (folder / "output").open("wb") as output:
            self.running[number] = psutil.Popen(
                [*self.enter(number), str(Path(sys.executable).parent / "ray"), "start", *words],
                cwd=folder,
                env=clean_environment(Path.home(), **self.environment, PATH=path),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _make_ip(self, number: int) -> str:
        return f"10.77.0.{number}" if self.has_cables else f"127.77.0.{number}"

    def _lay_cables(self) -> None:
        """A network for each node, from which a cable leads to a bridge here."""
        for words in (
            "link set lo up",
            "link add bridge0 type bridge",
            "addr add 10.77.0.254/24 dev bridge0",
            "link set bridge0 up",
        ):
            _run_ip(*words.split())
        here = os.readlink("/proc/self/ns/net")
        for number in range(1, self.num_nodes + 1):
            holder = subprocess.Popen(["unshare", "--net", "sleep", "1d"])
            while os.readlink(f"/proc/{holder.pid}/ns/net") == here:
                time.sleep(0.01)
            self.networks[number] = holder
            cable = f"node{number} type veth peer name eth0 netns {holder.pid}"
            _run_ip("link", "add", *cable.split())
            _run_ip("link", "set", f"node{number}", "master", "bridge0", "up")
            for words in (
                "link set lo up",
                f"addr add {self._make_ip(number)}/24 dev eth0",
                "link set eth0 up",
                "route add default dev eth0",
            ):
                _run_ip(*words.split(), inside=self.enter(number))


def _wait_until(has_come: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not has_come():
        assert time.monotonic() < deadline_s, "a node of Ray has not started"
        time.sleep(0.2)


def _signal_all(node: psutil.Popen, number: signal.Signals) -> None:
    """To `ray start` and all below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in (node, *node.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def _run_ip(*words: str, inside: list[str] | None = None) -> None:
    subprocess.run([*(inside or []), "ip", *words], check=True, cwd=small_sweep.PROJECT)


def _find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
