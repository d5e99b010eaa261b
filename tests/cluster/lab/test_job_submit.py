"""`ray job submit` runs a sweep; one that is stopped goes on in another job."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.heads import (
    PROJECT,
    clean_environment,
    find_port,
    start_ray,
    wait_until_started,
)
from tests.cluster.lab.slurm import wait_until
from tests.sweeps import small_sweep

BIN = PROJECT / ".venv" / "jobs" / "bin"
RAY = (str(BIN / "python"), "-m", "ray.scripts.scripts")
PATH = f"{BIN}{os.pathsep}{os.environ['PATH']}"
LIMIT_S = 400.0
pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not BIN.exists(), reason="make test-lab installs ray[default] there"),
]


def test_stopped_job_goes_on_in_another(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    folder.parent.mkdir()
    rows = small_sweep.write_few_rows(folder.parent)
    words = ["samsum", "--runs-dir", str(folder.parent), "--name", folder.name]
    with run_head(tmp_path) as environment:

        def ray_job(*command: str) -> str:
            job = subprocess.run(
                [*RAY, "job", *command],
                cwd=PROJECT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            return f"{job.stdout}\nended with {job.returncode}"

        def submit(*flags: str, before: tuple[str, ...] = ()) -> str:
            command = ["--working-dir", ".", "--", "python", "-m", "sweeps.run", *words, *flags]
            return ray_job("submit", *before, *command)

        told = submit("--tiny", "--runs-dir", "runs")
        assert "lies in Ray's copy of the job's files" in told and "succeeded" not in told
        flags = (*small_sweep.FLAGS, "--num-trials", "4", "--data", str(rows))
        submit(*flags, before=("--no-wait", "--submission-id", "first"))
        wait_until(lambda: small_sweep.count(small_sweep.events_of(folder), "report") > 0, LIMIT_S)
        ray_job("stop", "first")
        log = ray_job("logs", "first")
        assert small_sweep.events_of(folder)[-1]["kind"] == "sweep_interrupted", log
        assert f"--runs-dir {folder.parent} --resume" in log
        told = submit("--tiny", "--resume")
    assert "succeeded" in told, told
    small_sweep.check_whole(folder, folder.name, 4)


@contextlib.contextmanager
def run_head(home: Path) -> Iterator[dict[str, str]]:
    """A cluster that takes jobs; gives the environment in which `ray job` finds it."""
    folder, port = tempfile.mkdtemp(prefix="ray-", dir="/tmp"), find_port()
    words = ["--head", f"--port={find_port()}", f"--dashboard-port={port}", "--num-gpus=0"]
    words += ["--num-cpus=2", f"--temp-dir={folder}"]
    variables = {"PATH": PATH, "WANDB_MODE": "offline", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
    try:
        with start_ray(home, variables, *words, ray=RAY) as head:
            wait_until_started(head)
            yield clean_environment(
                home, RAY_API_SERVER_ADDRESS=f"http://127.0.0.1:{port}", **variables
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
