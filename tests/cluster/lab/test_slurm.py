"""The launch file of Slurm in a real Slurm: a sweep on two nodes goes on whenever its job does."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.lab.slurm import ask, find_missing, start_slurm, wait_until
from tests.sweeps import small_sweep

PROJECT = Path(__file__).resolve().parents[3]
MISSING = find_missing()
pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(MISSING), reason=f"needs slurm-wlm and munge: no {MISSING}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd has to be started by root"),
]
NUM_TRIALS = 4
# At a rate of 1e-2, Adam's first steps make 1e-4 of a sum that rounds otherwise.
RATES = ("--learning-rates", "1e-4", "1e-3")
FLAGS = (*small_sweep.FLAGS, "--num-trials", str(NUM_TRIALS), *RATES)
LIMIT_S = 500.0


@pytest.fixture
def slurm() -> Iterator[dict[str, str]]:
    with start_slurm() as environment:
        yield environment | {"WANDB_MODE": "offline", "PYTHONPATH": str(PROJECT)}


def test_sweep_survives_a_signal_and_a_requeue(tmp_path: Path, slurm: dict[str, str]) -> None:
    runs_dir = tmp_path / "runs"
    runs_dir.mkdir()
    rows = small_sweep.write_few_rows(runs_dir)
    folder = runs_dir / "queued"
    command = [sys.executable, "-m", "cluster.launch", "slurm", "--nodes", "2"]
    command += ["--gpus-per-node", "0", "--set", "cpus-per-task=2", "samsum", *FLAGS]
    ended = subprocess.run(
        [*command, "--data", str(rows), "--name", folder.name, "--runs-dir", str(runs_dir)],
        cwd=tmp_path,
        env=slurm,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    job = ended.stdout.split()[-1]
    log = tmp_path / f"queued-{job}.log"

    def count_reports() -> int:
        state = ask(slurm, "squeue", "-h", "-o", "%t", "-j", job)
        assert state, log.read_text()
        return small_sweep.count(small_sweep.events_of(folder), "report")

    wait_until(lambda: count_reports() >= 1, LIMIT_S)
    assert len(ask(slurm, "scontrol", "show", "hostnames", "n[1-2]").split()) == 2
    ask(slurm, "scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: _count_starts(slurm, job) == 1, LIMIT_S)
    seen = count_reports()
    wait_until(lambda: count_reports() > seen, LIMIT_S)
    ask(slurm, "scontrol", "requeue", job)
    wait_until(lambda: _count_starts(slurm, job) == 2, LIMIT_S)
    wait_until(lambda: not ask(slurm, "squeue", "-h", "-j", job), LIMIT_S)

    histories = small_sweep.check_whole(folder, folder.name, NUM_TRIALS)
    events = small_sweep.events_of(folder)
    assert [e["reason"] for e in events if e["kind"] == "sweep_interrupted"][:1] == ["Ctrl-C"]
    code, output = small_sweep.run(runs_dir, "undisturbed", *FLAGS)
    assert code == 0, output
    undisturbed = small_sweep.check_whole(runs_dir / "undisturbed", "undisturbed", NUM_TRIALS)
    # What is proposed after the first trials depends on which of them had ended by then.
    both = zip(histories, undisturbed, strict=True)
    ids = [one.trial_id for one, other in both if one.params == other.params]
    assert len(ids) >= 2
    small_sweep.check_same_curves(histories, undisturbed, ids)


def _count_starts(slurm: dict[str, str], job: str) -> int:
    """How often Slurm has started the job again."""
    facts = dict(
        word.partition("=")[::2] for word in ask(slurm, "scontrol", "show", "job", job).split()
    )
    return int(facts.get("Restarts", 0))
