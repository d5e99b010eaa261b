"""sweeps.ask as users call it: with a process that runs the sweep, and with none."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps import ask
from sweeps.checks.resume import read_saved_config
from sweeps.config import to_json
from sweeps.recipes import samsum
from sweeps.records.paths import RunPaths
from sweeps.records.run_lock import Work, lock_run
from tests.sweeps.commands import Ended, call
from tests.sweeps.control.controllers import events_of, open_steered, records_of
from tests.sweeps.invented_sweep import SPACE, make_config, make_report

CONFIG = make_config(num_trials=4, recipe="samsum", finals=True, num_finalists=1, num_final_seeds=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that no trial of has begun, and that no process works on."""
    folder = tmp_path / "my runs" / "invented"
    folder.mkdir(parents=True)
    config = replace(CONFIG, runs_dir=str(folder.parent))
    record = {"config": to_json(config), "sweep_id": "1", "name": "invented", "digests": {}}
    record["metric"] = {"name": "rougeLsum", "mode": "max"}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


@contextmanager
def driven(folder: Path, num_trials: int = 2, *, work: Work = "sweep") -> Iterator[None]:
    """Meanwhile a process holds the run and, if it runs the sweep, so many trials have begun, the
    first with a report, and requests are looked for."""
    has_ended = threading.Event()
    is_resumed = (folder / "events.jsonl").exists()
    with lock_run(RunPaths(folder), work):
        controller, steering = open_steered(folder, CONFIG, is_resumed=is_resumed)
        for _ in range(num_trials):
            controller.next_trial()
        if num_trials:
            controller.report(make_report("t0000", 1, 2.0))

        def poll() -> None:
            while not has_ended.wait(0.1):
                steering.poll()

        thread = threading.Thread(target=poll, daemon=True)
        if work == "sweep":
            thread.start()
        try:
            yield
        finally:
            has_ended.set()
            if work == "sweep":
                thread.join()


def facts(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_a_running_sweep_answers_within_seconds(folder: Path) -> None:
    run = str(folder)
    with driven(folder):
        added = call("sweeps.ask", run, "--add", "lora_rank=8", "learning_rate=2e-3")
        assert (added.code, added.stderr) == (0, "")
        assert added.stdout == (
            "the next trial has learning_rate 0.002, lora_rank 8; the search has 5 trials now\n"
        )
        assert call("sweeps.ask", run, "--stop", "t0001").stdout == "stopped: t0001\n"
        error, fix = call("sweeps.ask", run, "--stop", "t0001").refusal()
        assert "t0001 has ended already (stopped, stopped by hand)" in error and "t0000" in fix
        assert facts(call("sweeps.ask", run, "--num-trials", "9", "--json"))["num_trials"] == 9
        done = facts(call("sweeps.ask", run, "--finish", "--json"))
        assert done["is_done"] and (done["stop"], done["num_trials"]) == (["t0000"], 2)
        for words in (["--finish"], ["--num-trials", "9"], ["--add", "lora_rank=8"]):
            error, fix = call("sweeps.ask", run, *words).refusal()
            assert error == "the search has ended already" and "--resume" in fix
    assert [record.status for record in records_of(folder)] == ["stopped", "stopped"]


def test_without_a_process_the_next_resume_takes_it_up(folder: Path) -> None:
    with driven(folder):
        pass
    asked = call("sweeps.ask", str(folder), "--num-trials", "7")
    assert asked.code == 0 and "no process runs this sweep" in asked.stdout
    resume = "python -m sweeps.run samsum --name invented --runs-dir "
    assert f"{resume}'{folder.parent}' --resume" in asked.stdout
    assert not facts(call("sweeps.ask", str(folder), "--add", "lora_rank=4", "--json"))["is_done"]
    config = replace(samsum(False), runs_dir=str(folder.parent), name="invented")
    assert read_saved_config(config, is_named=True).num_trials == 4
    with driven(folder, 0):
        pass
    assert [event["num_trials"] for event in events_of(folder)[-2:]] == [7, 8]
    assert read_saved_config(config, is_named=True).num_trials == 8


def test_requests_that_wait_are_shown_and_count_for_later_ones(folder: Path) -> None:
    run = str(folder)
    with driven(folder):
        fewer = call("sweeps.ask", run, "--num-trials", "1").stdout
    assert fewer == (
        "1 is less than the 2 that have begun or were added: the search ends with these 2\n"
    )
    add = ["--add", "learning_rate=3e-3", "lora_rank=8", "lora_alpha=16", "lora_dropout=0"]
    add.append("use_rslora=true")
    assert call("sweeps.ask", run, *add).code == 0
    assert "that is to come has this point" in call("sweeps.ask", run, *add).refusal()[0]
    note = "1 is less than the 3 that have begun or were added: the search ends with these 3"
    assert f"as it stands: {note}\n" in call("sweeps.ask", run, "--num-trials", "1").stdout
    waits = [" ".join(add), "--num-trials 1"]
    text = call("sweeps.status", run).stdout
    assert all(f"asked, to be taken up by a resume: {words}\n" in text for words in waits)
    pending = facts(call("sweeps.status", run, "--json"))["pending"]
    assert [one["request"] for one in pending] == waits
    with driven(folder, 0):
        pass
    shown = facts(call("sweeps.status", run, "--json"))
    assert (shown["pending"], shown["num_trials"]) == ([], 3)
    assert shown["added"][0]["lora_rank"] == 8 and shown["last_events"][-1]["note"] == note
    text = call("sweeps.status", run).stdout
    assert f" asked: --num-trials 1; {note}\n" in text and f" asked: {waits[0]}\n" in text
    assert "added, not begun: learning_rate=0.003 lora_rank=8" in text
    assert "dropped, since they had not" in call("sweeps.ask", run, "--finish").stdout
    error, _ = call("sweeps.ask", run, "--num-trials", "9").refusal()
    assert "--finish was asked for already" in error


def test_a_process_that_runs_no_trials_takes_nothing_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with driven(folder, work="sync"):
        asked = call("sweeps.ask", str(folder), "--num-trials", "7")
    assert "no process runs this sweep" in asked.stdout
    monkeypatch.setattr(ask, "ANSWER_TIMEOUT_S", 0.3)
    with lock_run(RunPaths(folder), "sweep"):  # packs load
        asked = call("sweeps.ask", str(folder), "--num-trials", "9")
    assert asked.code == 0 and "models may still load" in asked.stdout


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "nothing is asked for"),
        (["--stop"], "--stop names no trial"),
        (["--finish", "--add"], "--add names no value"),
        (["--finish", "--stop", "t0000"], "one thing is asked for"),
        (["--stop", "t0009"], "there is no trial 't0009'"),
        (["--add", "32"], "--add '32' has no name"),
        (["--add", "lora_rank=8", "lora_rank=16"], "--add names lora_rank twice"),
        (["--add", "rank=32"], "no hyperparameter 'rank'"),
        (["--add", "lora_rank=4096"], f"memory for {max(SPACE.lora_ranks)} at most"),
        (["--num-trials", "0"], "--num-trials is 0"),
    ],
)
def test_mistakes_are_refused_and_nothing_is_written(
    folder: Path, words: list[str], error: str
) -> None:
    with driven(folder):
        assert error in call("sweeps.ask", str(folder), *words).refusal()[0]
    assert not RunPaths(folder).requests.exists()


def test_no_run_is_told_with_those_that_are_there(folder: Path) -> None:
    error, fix = call("sweeps.ask", str(folder.parent / "none"), "--finish").refusal()
    assert "there is no sweep" in error and "invented" in fix
