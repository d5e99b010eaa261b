"""A user's own recipe file, run as a whole sweep that a local W&B server takes in.

While it runs, the Stop button of its second trial is pressed in W&B.
"""

import csv
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from sweeps.publish.best_folder import list_exported
from sweeps.records.trials_csv import STOP_REASON
from tests.sweeps.commands import HANG_S, Ended, start
from tests.sweeps.servers.wandb_server import WandbServer
from tests.sweeps.small_sweep import events_of

pytestmark = pytest.mark.sweep

RECIPE = """
from dataclasses import replace
from sweeps.recipes import samsum

def recipe(is_tiny):
    small = dict(batch_size=2, micro_batch_size=2, eval_rows=2, eval_batch_size=2)
    return replace(samsum(is_tiny), num_trials=2, max_steps=150, num_rungs=1, max_new_tokens=2,
                   name="mine", **small)
"""
FLAGS = ("--tiny", "--wandb", "online", "--no-finals", "--no-estimate")


@dataclass(frozen=True)
class Mine:
    """The sweep, once it has ended."""

    folder: Path
    ended: Ended
    server: WandbServer
    pressed_at: datetime


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mine]:
    folder, server = tmp_path_factory.mktemp("own"), WandbServer()
    (folder / "mine.py").write_text(RECIPE)
    login = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40, "WANDB_MODE": "online"}
    with ThreadPoolExecutor(1) as pool:
        sweep = pool.submit(start, "sweeps.run", "mine.py", *FLAGS, folder=folder, **login)
        server.press_stop(wait_for_run(server, "t0001", sweep))
        pressed_at = datetime.now(UTC)
        ended = sweep.result()
    yield Mine(folder / "runs" / "mine", ended, server, pressed_at)
    server.stop()


def wait_for_run(server: WandbServer, name: str, sweep: Future[Ended]) -> str:
    deadline_s = time.monotonic() + HANG_S
    while time.monotonic() < deadline_s and not sweep.done():
        for run_id, run in list(server.runs.items()):
            if run.facts.get("displayName") == name:
                return run_id
        time.sleep(0.1)
    raise AssertionError(sweep.result(timeout=1.0))


def test_own_recipe_sweeps_the_bundled_model(mine: Mine) -> None:
    assert mine.ended.code == 0, mine.ended.stderr
    assert "Traceback" not in mine.ended.stderr and "warning" not in mine.ended.stderr.lower()
    with (mine.folder / "trials.csv").open() as file:
        first, _ = csv.DictReader(file)
    assert first["status"] == "completed"
    config = json.loads((mine.folder / "sweep.json").read_text())["config"]
    assert (config["recipe"], config["num_trials"]) == ("mine.py", 2)
    assert (mine.folder / "best" / "adapter_model.safetensors").is_file()


def test_stop_button_in_wandb_stops_that_trial_within_15_s(mine: Mine) -> None:
    (end,) = (
        event
        for event in events_of(mine.folder)
        if event["kind"] == "trial_ended" and event["trial_id"] == "t0001"
    )
    assert (end["status"], end["reason"]) == ("stopped", STOP_REASON)
    took = datetime.fromisoformat(end["time"]) - mine.pressed_at
    assert 0.0 <= took.total_seconds() < 15.0
    storage = f"sqlite:///{mine.folder}/optuna.db"
    trials = optuna.load_study(study_name="mine", storage=storage).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.PRUNED]


def test_wandb_has_one_sweep_with_all_runs_the_adapter_and_the_answers(mine: Mine) -> None:
    ((sweep_id, told),) = mine.server.sweeps.items()
    assert told["metric"] == {"name": "rougeLsum", "goal": "maximize"}
    runs = {run.facts["displayName"]: run for run in mine.server.runs.values()}
    job_types = {name: run.facts["jobType"] for name, run in runs.items()}
    assert job_types == {"t0000": "trial", "t0001": "trial", "summary": "summary"}
    assert {run.facts["sweep"] for run in runs.values()} == {sweep_id}
    assert runs["t0001"].summary["status"] == "stopped"
    assert told["parameters"].keys() <= runs["t0000"].config.keys()
    assert told["metric"]["name"] in runs["t0000"].summary
    assert runs["t0000"].config["slot"] is not None and runs["t0000"].config["device"] == "cpu"
    artifact = mine.server.artifacts["model/mine-best"]
    exported = {path.name: path.read_bytes() for path in list_exported(mine.folder / "best")}
    assert artifact.is_committed and artifact.files == exported
    (table,) = (text for name, text in mine.server.files.items() if "/answers_" in name)
    said = (mine.folder / "best" / "test_predictions.jsonl").read_text().splitlines()
    assert len(json.loads(table)["data"]) == min(200, len(said)) > 0
