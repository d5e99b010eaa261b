"""Real sweeps that take seconds: started, killed, resumed and read as a user would."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from sweeps.finals.finalists import find_last_finals
from sweeps.records.events import read_events
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord, replay, replay_all, replay_finals
from sweeps.tracking.wandb_tracker import COMPLETE_FILE
from tests.sweeps.commands import RAY_TMPDIR
from trainables import tiny
from trainables.files import read_json_lines
from trainables.folder_locks import find_lock

PROJECT = Path(__file__).resolve().parents[2]
WITH_FINALS = (
    "--tiny",
    "--max-steps",
    "9",
    "--eval-rows",
    "8",
    "--eval-batch-size",
    "8",
    "--max-new-tokens",
    "12",
    "--compute-dtype",
    "float32",
    "--batch-size",
    "4",
    "--micro-batch-size",
    "4",
    "--target-modules",
    "attention,up_proj",
    "all",
)
FLAGS = (*WITH_FINALS, "--no-finals", "--no-estimate")
STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
ROWS_NAME = "few-rows"
"""In runs_dir."""
NUM_ROWS = {"train": 192, "validation": 48, "test": 48}
LIMIT_S = 500.0
LOSS_TOLERANCE = 1e-4
"""Relative, between two runs of a trial in float32."""
ROUGE_TOLERANCE = 1.0
"""A sum that rounds otherwise may turn one token of one answer."""


@dataclass(frozen=True)
class Finished:
    """A sweep that ended by itself."""

    runs_dir: Path
    name: str
    folder: Path
    num_trials: int
    code: int
    output: str


def start(runs_dir: Path, name: str, *flags: str) -> subprocess.Popen[str]:
    """`python -m sweeps.run samsum ...` of few rows, in a session of its own."""
    command = [sys.executable, "-m", "sweeps.run", "samsum", "--runs-dir", str(runs_dir)]
    data = () if "--resume" in flags else ("--data", str(write_few_rows(runs_dir)))
    return subprocess.Popen(
        [*command, "--name", name, *data, *flags],
        cwd=PROJECT,
        env=os.environ | {"WANDB_MODE": "offline", "RAY_TMPDIR": RAY_TMPDIR},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def write_few_rows(runs_dir: Path) -> Path:
    """The first of the bundled rows: to tokenize all, and to score all of test, takes longer than
    to train."""
    folder = runs_dir / ROWS_NAME
    folder.mkdir(exist_ok=True)
    for split, num_rows in NUM_ROWS.items():
        lines = (tiny.SAMSUM_DIR / f"{split}.jsonl").read_text("utf-8").splitlines(keepends=True)
        (folder / f"{split}.jsonl").write_text("".join(lines[:num_rows]), "utf-8")
    return folder


def run(runs_dir: Path, name: str, *flags: str) -> tuple[int, str]:
    """The exit code and output of a sweep that ends by itself."""
    process = start(runs_dir, name, *flags)
    output, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, output


def resume(runs_dir: Path, name: str, *flags: str) -> tuple[int, str]:
    """Goes on with a sweep."""
    return run(runs_dir, name, "--tiny", "--resume", *flags)


def wait_for(
    folder: Path, is_time: Callable[[list[dict[str, Any]]], bool], process: subprocess.Popen[str]
) -> list[dict[str, Any]]:
    """The sweep's events, once they hold what the test waits for."""
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:
        events = events_of(folder)
        if is_time(events):
            return events
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    raise AssertionError(f"the sweep did not come so far: {events_of(folder)}")


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the driver alone, as an out-of-memory killer would."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def trial_processes(driver: int) -> list[psutil.Process]:
    """The processes in which Ray trains trials of this driver's own cluster."""
    return _find_descendants(driver, "ImplicitFunc")


def running_trials(driver: int, folder: Path) -> dict[str, psutil.Process]:
    """The process that trains each trial: it holds the trial's folder; others of Ray's stand by."""
    paths = RunPaths(folder)
    names = {history.trial_id for history in replay_all(events_of(folder))}
    locks = {str(find_lock(paths.get_trial_folder(name))): name for name in names}
    found = {}
    for process in trial_processes(driver):
        with contextlib.suppress(psutil.NoSuchProcess):
            opened = [file.path for file in process.open_files()]
            found |= {locks[path]: process for path in opened if path in locks}
    return found


def pack_processes(driver: int) -> list[psutil.Process]:
    """The processes of the packs of this driver's own cluster."""
    return _find_descendants(driver, "PackActor")


def _find_descendants(driver: int, word: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(driver).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if word in " ".join(child.cmdline()):
                found.append(child)
    return found


def events_of(folder: Path) -> list[dict[str, Any]]:
    """The events so far."""
    path = folder / "events.jsonl"
    return read_events(path) if path.exists() else []


def count(events: Sequence[dict[str, Any]], kind: str) -> int:
    """Number of events of a kind."""
    return sum(event["kind"] == kind for event in events)


def check_whole(folder: Path, name: str, num_trials: int) -> list[TrialRecord]:
    """Asserts that log, table, study and W&B tell the same story of every trial that was asked.

    The study knows nothing of the finals' runs; all else does.

    Returns:
        The histories of the search's trials by number.
    """
    events = events_of(folder)
    histories = replay(events)
    assert [history.number for history in histories] == list(range(num_trials))
    ends = Counter(e["trial_id"] for e in events if e["kind"] == "trial_ended")
    assert ends == {history.trial_id: 1 for history in replay_all(events)}
    told = Counter((e["trial_id"], e["step"]) for e in events if e["kind"] == "report")
    assert told and set(told.values()) == {1}

    with (folder / "trials.csv").open() as file:
        table = {row["trial_id"]: row for row in csv.DictReader(file)}
    assert list(table) == [history.trial_id for history in histories]

    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/optuna.db")
    assert len(study.trials) == num_trials
    for history, trial in zip(histories, study.trials, strict=True):
        assert history.status is not None
        assert trial.state == STATES[history.status]
        values = {report.step: report.metrics["rougeLsum"] for report in history.reports}
        assert trial.intermediate_values == values
        row = table[history.trial_id]
        assert row["status"] == history.status
        assert int(row["steps"]) == max(values, default=0)
        assert row["value"] == (str(values[max(values)]) if values else "")
        point = trial.params | trial.user_attrs.get("outside_space", {})
        assert point["learning_rate"] == history.params.learning_rate

    runs = list((folder / "wandb").glob("offline-run-*"))
    num_summaries = sum("-summary-" in run.name for run in runs)
    has_best = any(history.status == "completed" for history in replay_all(events))
    assert num_summaries == has_best and len(runs) == len(replay_all(events)) + num_summaries
    complete = read_json_lines(folder / "wandb" / COMPLETE_FILE)
    assert {run.name for run in runs} <= {line["folder"] for line in complete}
    check_finals(folder, events)
    return histories


def check_finals(folder: Path, events: Sequence[dict[str, Any]]) -> None:
    """Asserts that all runs of the finals have ended, and that their table has each once."""
    met = find_last_finals(events)
    assert (met is not None) == (folder / "finals.csv").exists()
    if met is None:
        return
    counted = {run.trial_id for run in met.runs if run.of in met.finalists}
    with (folder / "finals.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = {row["trial_id"]: row for row in rows}
    assert len(table) == len(rows)
    assert table.keys() == counted
    for history in replay_finals(events):
        assert history.status is not None
        if history.trial_id in table and history.status == "completed":
            assert table[history.trial_id]["steps"] == str(history.reports[-1].step)
            assert table[history.trial_id]["seed"] == str(history.seed)


def check_same_curves(
    one: Sequence[TrialRecord], other: Sequence[TrialRecord], trial_ids: Sequence[str]
) -> None:
    """Asserts that trials have the same losses and scores at every step that both have made.

    A trial's rows stand elsewhere in the passes of a pack with other neighbours, so sums round
    otherwise.
    """
    compared = [
        (trial_id, step)
        for trial_id in trial_ids
        for step in curves(one)[trial_id].keys() & curves(other)[trial_id].keys()
    ]
    assert compared
    for trial_id, step in compared:
        *losses, rouge = curves(one)[trial_id][step]
        *other_losses, other_rouge = curves(other)[trial_id][step]
        assert losses == pytest.approx(other_losses, rel=LOSS_TOLERANCE), (trial_id, step)
        assert abs(rouge - other_rouge) <= ROUGE_TOLERANCE, (trial_id, step)


def curves(histories: Sequence[TrialRecord]) -> dict[str, dict[int, tuple[float, ...]]]:
    """Training loss, evaluation loss and score of every report, by trial and step."""
    return {
        h.trial_id: {
            r.step: (r.train_loss, r.metrics["eval_loss"], r.metrics["rougeLsum"])
            for r in h.reports
        }
        for h in histories
    }
