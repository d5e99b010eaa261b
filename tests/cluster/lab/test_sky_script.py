"""What SkyPilot runs on every node makes one Ray of them, and ends with the sweep's exit code."""

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster import launch

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
COUNT_NODES = "import ray, sys; ray.init(); sys.exit(40 + len(ray.nodes()))"


def test_two_nodes_become_one_ray(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [f"--set={one}" for one in ("gpu=H100", "image=a/b", "volume=runs")]
    launch.main(["sky", "--nodes", "2", *settings, "samsum", "--dry-run"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = yaml.safe_load(capsys.readouterr().out)["run"].replace("6379", port)
    python = tmp_path / "python"  # instead of the sweep
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{COUNT_NODES}'\n")
    python.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.1",
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NUM_GPUS_PER_NODE": "0",
    }
    nodes = [
        subprocess.Popen(["bash", "-c", script], env=environment | {"SKYPILOT_NODE_RANK": rank})
        for rank in ("0", "1")
    ]
    assert [node.wait() for node in nodes] == [42, 0]
