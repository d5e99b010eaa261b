"""What must hold of a sweep whose processes were killed: everything tells the same story of it."""

import csv
import traceback
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import optuna
import pytest
from google.protobuf.message import DecodeError
from optuna.trial import TrialState

from sweeps.records.trial_record import replay_all
from tests.sweeps import small_sweep
from tests.sweeps.servers.wandb_files import offline_runs
from trainables.checkpoint import get_checkpoint_folder

ADAPTER = "adapter_model.safetensors"


def find_faults(folder: Path, name: str, num_trials: int) -> list[str]:
    """Where log, table, study, W&B and best/ disagree, or lack or repeat a trial."""
    checks: list[Callable[[], object]] = [
        partial(small_sweep.check_whole, folder, name, num_trials),
        partial(check_rows, folder, num_trials),
        partial(check_study, folder, name),
        partial(check_none_failed, folder),
        partial(check_wandb, folder),
        partial(check_best, folder),
    ]
    return [fault for check in checks for fault in _run_check(check)]


def check_rows(folder: Path, num_trials: int) -> None:
    """Every trial that was asked for has exactly one row, with a status that is final."""
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial_id"] for row in rows] == [f"t{n:04d}" for n in range(num_trials)]
    assert {row["status"] for row in rows} <= {"completed", "stopped", "failed"}


def check_study(folder: Path, name: str) -> None:
    """No trial of the study waits or runs."""
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/optuna.db")
    left = [t.number for t in study.trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert left == []


def check_none_failed(folder: Path) -> None:
    """A killed process is no fault of its trial."""
    ended = replay_all(small_sweep.events_of(folder))
    assert [(h.trial_id, h.reason) for h in ended if h.status == "failed"] == []


def check_wandb(folder: Path) -> None:
    """W&B's files have each trial's status and reports as the log has them."""
    runs = offline_runs(folder)
    histories = {history.trial_id: history for history in replay_all(small_sweep.events_of(folder))}
    assert runs.keys() == {*histories, "summary"}
    for trial_id, history in histories.items():
        run = runs[trial_id]
        assert run.summary["status"] == history.status, trial_id
        logged = {row["_step"]: row["rougeLsum"] for row in run.rows}
        assert len(logged) == len(run.rows), trial_id
        reported = {report.step: report.metrics["rougeLsum"] for report in history.reports}
        assert logged == pytest.approx(reported), trial_id


def check_best(folder: Path) -> None:
    """Test was looked at once for each winner, and best/ holds the adapter of the last one.

    A winner's scores are logged again, as they were, once more trials have not changed it.
    """
    events = small_sweep.events_of(folder)
    tested = [event for event in events if event["kind"] == "final_scores"]
    scores = {event["trial_id"]: event["scores"] for event in tested}
    assert tested and all(event["scores"] == scores[event["trial_id"]] for event in tested)
    kinds = [event["kind"] for event in events if event["kind"] in ("trial_ended", "final_scores")]
    assert ("final_scores", "final_scores") not in pairwise(kinds)
    (kept,) = (h for h in replay_all(events) if h.trial_id == tested[-1]["trial_id"])
    trained = get_checkpoint_folder(folder / "checkpoints" / kept.trial_id, kept.reports[-1].step)
    assert (folder / "best" / ADAPTER).read_bytes() == (trained / ADAPTER).read_bytes()


def _run_check(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except (AssertionError, KeyError, OSError, ValueError, DecodeError) as fault:
        where = traceback.extract_tb(fault.__traceback__)[-1]
        return [f"{where.name}, {where.line}: {type(fault).__name__} {fault}"]
    return []
