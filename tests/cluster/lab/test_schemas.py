"""Launch files as SkyPilot reads them, and their pods against the schemas of Kubernetes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
PYTHON = PROJECT / ".venv" / "lab" / "bin" / "python"
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not PYTHON.exists(), reason="make test-lab installs what this needs"),
]
SKY = """
import sys, sky, yaml
task = sky.Task.from_yaml_config(yaml.safe_load(sys.stdin))
assert task.num_nodes == 2
"""
PODS = """
import sys, yaml, kubernetes_validate
config_map, job = yaml.safe_load_all(sys.stdin)
kubernetes_validate.validate(config_map, "1.33", strict=True)
cluster = job["spec"]["rayClusterSpec"]
for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **group["template"]}
    kubernetes_validate.validate(pod, "1.33", strict=True)
"""


def render(*words: str) -> str:
    command = [sys.executable, "-m", "cluster.launch", *words, "samsum", "--dry-run"]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout


def find_error(code: str, text: str, home: Path) -> str:
    """What a program of the laboratory's environment says when it has read a file; "" is well."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    ended = subprocess.run(
        [PYTHON, "-c", code],
        input=text,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.stderr if ended.returncode else ""


@pytest.mark.parametrize("setting", ["volume=runs", "bucket=s3://runs"])
def test_skypilot_reads_the_file(setting: str, tmp_path: Path) -> None:
    text = render(
        "sky", "--nodes", "2", "--set", "gpu=H100", "--set", "image=a/b", "--set", setting
    )
    if setting.startswith("bucket"):  # SkyPilot asks the cloud whether it is there
        text = text.replace("source: ", "name: ").replace("s3://", "")
    assert not find_error(SKY, text, tmp_path)
    assert "num_node" in find_error(SKY, text.replace("num_nodes", "num_node"), tmp_path)


def test_kubernetes_knows_every_key_of_the_pods(tmp_path: Path) -> None:
    text = render("kuberay", "--nodes", "2", "--set", "image=a/b", "--set", "volume=runs")
    assert not find_error(PODS, text, tmp_path)
    assert "imag" in find_error(PODS, text.replace("image:", "imag:"), tmp_path)
