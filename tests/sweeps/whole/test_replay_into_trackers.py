"""The log of one finished sweep is replayed into all trackers, by their real libraries."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sweeps.records.trial_record import replay_all
from sweeps.tracking.run_values import list_curve
from tests.sweeps import small_sweep
from tests.sweeps.servers.wandb_files import offline_runs
from tests.sweeps.small_sweep import Finished
from tests.sweeps.tracking.test_trackers import CURVES, Curves, mlflow_runs, trackio_runs
from trainables.config import Metric

TRACKERS = "wandb,mlflow,trackio,tensorboard"


def sync(folder: Path) -> str:
    """Replays it all in a process of its own, as a user would."""
    env = os.environ | {"WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "sweeps.sync", str(folder), "--track", TRACKERS]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def flatten(curves: Curves) -> dict[tuple[str, int], float]:
    return {(name, step): value for name, points in curves.items() for step, value in points}


@pytest.mark.slow
def test_all_trackers_show_the_same_curves_of_every_trial_however_often_it_is_replayed(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads its folder when it is loaded
    folder = tmp_path / "copy"
    left_out = shutil.ignore_patterns("checkpoints", "tune", "wandb")
    shutil.copytree(finished.folder, folder, ignore=left_out)
    metric = Metric(name="rougeLsum")
    trials = replay_all(small_sweep.events_of(folder))
    told = {t.trial_id: [(s, v["rougeLsum"]) for s, v in list_curve(t, metric)] for t in trials}
    assert len(told) == 10 and all(told.values())
    for _ in range(2):
        out = sync(folder)
        assert out.startswith(f"replayed {folder}/events.jsonl into wandb, mlflow, trackio, ten")
        shown = {name: read(folder, "rougeLsum") for name, read in CURVES.items()}
        shown["wandb"] = {
            name: [(row["_step"], row["rougeLsum"]) for row in run.rows]
            for name, run in offline_runs(folder).items()
            if name != "summary"
        }
        for name, curves in shown.items():
            assert flatten(curves) == pytest.approx(flatten(told)), name
    (parent,) = [r for r in mlflow_runs(folder).values() if "recipe" in r.data.params]
    assert parent.info.status == "FINISHED"
    best = next(folder.glob("mlruns/artifacts/*/artifacts/best"))
    copied = {path.name for path in best.iterdir()}
    assert {"adapter_model.safetensors", "README.md"} <= copied
    assert "test_predictions.jsonl" not in copied
    statuses = Counter(run.get("status") for run in trackio_runs(folder).values())
    assert statuses == Counter([*(trial.status for trial in trials), None])
