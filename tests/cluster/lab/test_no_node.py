"""A machine that reaches a cluster without being one of its nodes is told so."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.heads import clean_environment, run_heads
from tests.cluster.test_connect import JOIN

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace is made by root"),
    pytest.mark.skipif(not shutil.which("ip"), reason="needs iproute2"),
]
NAME, HERE, THERE = "qlora-lab", "10.77.0.254", "10.77.0.1"


def test_machine_that_is_no_node_is_told_so(tmp_path: Path) -> None:
    with make_machine(), run_heads(tmp_path, host=HERE) as (address,):
        elsewhere = ("ip", "netns", "exec", NAME, "unshare", "-m")
        hide = 'mount -t tmpfs none /dev/shm; mount -t tmpfs none /tmp; exec "$@"'
        ended = subprocess.run(
            [*elsewhere, "bash", "-c", hide, "_", sys.executable, "-c", JOIN.format(before="")],
            env=clean_environment(Path("/root"), RAY_ADDRESS=address),
            capture_output=True,
            text=True,
            check=False,
        )
    error, fix = ended.stdout.splitlines()
    assert error == f"error: this machine is no node of the Ray cluster at {address}"
    assert "ray job submit" in fix


@contextlib.contextmanager
def make_machine() -> Iterator[None]:
    """A network namespace, with a cable to this machine."""
    ip("netns", "add", NAME)
    try:
        ip("link", "add", "qlora0", "type", "veth", "peer", "name", "qlora1", "netns", NAME)
        ip("addr", "add", f"{HERE}/24", "dev", "qlora0")
        ip("link", "set", "qlora0", "up")
        for words in (f"addr add {THERE}/24 dev qlora1", "link set qlora1 up", "link set lo up"):
            ip("-n", NAME, *words.split())
        yield
    finally:
        ip("netns", "del", NAME)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
