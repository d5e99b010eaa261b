"""A sweep on a cluster that others use: it waits aloud, trains on one core, and outlives the head's
death by a resume."""

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import psutil
import pytest

from sweeps.cli import EXIT_INTERRUPTED
from sweeps.records.events import read_events
from tests.cluster.heads import find_port, start_driver, start_ray, wait_until_started
from tests.sweeps import small_sweep

HOLD = """
import ray, time
ray.init(address="{address}")
other_job = ray.remote(num_cpus=1)(type("Job", (), {{"is_there": lambda self: True}})).remote()
print(ray.get(other_job.is_there.remote()), flush=True)
time.sleep(600)
"""
SWEEP = """
from sweeps.cli import run_command
from sweeps.control import gpu_places, interruption
from sweeps.run import main
gpu_places.FIRST_WAIT_S = 1.0
interruption.CHECK_INTERVAL_S, interruption.TELL_AFTER_S, interruption.END_AFTER_S = 0.2, 1.0, 2.0
run_command(lambda: main({words}))
"""


@pytest.mark.timeout(300)
def test_sweep_of_one_core_waits_trains_and_tells_how_to_go_on(tmp_path: Path) -> None:
    port, folder = find_port(), tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    address, run = f"127.0.0.1:{port}", tmp_path / "mine"
    words = ["--head", f"--port={port}", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}"]
    words += ["--num-cpus=1", "--num-gpus=0", "--include-dashboard=false"]
    rows = str(small_sweep.write_few_rows(tmp_path))
    flags = ["samsum", *small_sweep.FLAGS, "--runs-dir", str(tmp_path), "--name", "mine"]
    flags += ["--data", rows, "--num-trials", "2", "--wandb", "disabled"]
    try:
        with start_ray(tmp_path, {}, *words) as head:
            wait_until_started(head)
            other_job = start_driver(HOLD.format(address=address), tmp_path)
            assert other_job.stdout is not None and other_job.stdout.readline() == "True\n"
            code = SWEEP.format(words=flags)
            driver = start_driver(code, tmp_path, RAY_ADDRESS=address)
            assert driver.stderr is not None
            told = ""
            while "waiting for a CPU core: in use by other jobs" not in told:
                line = driver.stderr.readline()
                assert line, told
                told += line
            other_job.kill()
            small_sweep.wait_for(
                run, lambda events: small_sweep.count(events, "report") > 0, driver
            )
            processes = head.children(recursive=True)
            next(process for process in processes if process.name() == "gcs_server").kill()
            output, told = driver.communicate(timeout=120)
            for process in processes:  # whose parent may have ended with the head
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert driver.returncode == EXIT_INTERRUPTED, (output, told)
    assert f"cluster {address}, 1 node, 1 CPU core, 1 pack" in output
    resume = f"python -m sweeps.run samsum --tiny --name mine --runs-dir {tmp_path} --resume"
    assert f"{port} does not answer" in told and resume in told
    assert output.endswith(f"interrupted; go on with: {resume}\n")
    (node,) = json.loads((run / "sweep.json").read_text())["hardware"]["nodes"]
    events = {event["kind"]: event for event in read_events(run / "events.jsonl")}
    assert node.endswith(f" ({events['pack_started']['node']})")
    assert events["sweep_interrupted"]["reason"] == "Ray's head is gone"
