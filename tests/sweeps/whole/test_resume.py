"""A sweep goes on after any of its processes was killed, and ends as it was asked for."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.records.trial_record import TrialRecord, replay
from tests.sweeps import small_sweep
from tests.sweeps.small_sweep import Finished, count
from trainables.packing.service.ledger import read_ledgers

NUM_TRIALS = 5
Events = list[dict[str, Any]]

INTERRUPTED = "after the third report"
"""The moment at which the user presses Ctrl-C; at all others the driver is killed."""
MOMENTS: dict[str, Callable[[Events], bool]] = {
    "as soon as the log begins": lambda events: len(events) >= 1,
    INTERRUPTED: lambda events: count(events, "report") >= 3,
    "when the last trial has ended": lambda events: count(events, "trial_ended") >= NUM_TRIALS,
    "when a run of the finals reports": lambda events: any(
        event["kind"] == "report" and event["trial_id"].startswith("f") for event in events
    ),
}


def test_killed_or_interrupted_driver_loses_and_repeats_no_trial(
    finished: Finished, tmp_path: Path
) -> None:
    flags = (*small_sweep.WITH_FINALS, "--num-trials", str(NUM_TRIALS))
    process = small_sweep.start(tmp_path, "killed", *flags)
    folder = tmp_path / "killed"
    for moment, is_time in MOMENTS.items():
        events = small_sweep.wait_for(folder, is_time, process)
        assert count(events, "sweep_ended") == 0, moment
        words = ["--tiny", "--resume"]
        if moment == INTERRUPTED:
            words = _interrupt(process)
            assert (folder / "trials.csv").exists()
            assert small_sweep.events_of(folder)[-1]["reason"] == "Ctrl-C"
        else:
            small_sweep.kill(process)
        process = small_sweep.start(tmp_path, "killed", *words)
    output, _ = process.communicate(timeout=small_sweep.LIMIT_S)
    assert process.returncode == 0, output
    histories = small_sweep.check_whole(folder, "killed", NUM_TRIALS)
    assert count(small_sweep.events_of(folder), "finals_started") == 1
    assert (folder / "best" / "adapter_model.safetensors").exists()
    _check_same_curves(finished, histories)


def _interrupt(process: subprocess.Popen[str]) -> list[str]:
    """Presses Ctrl-C; the flags of the command that resumes, which the driver printed."""
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=small_sweep.LIMIT_S)
    assert process.returncode == 130, output
    command = next(line for line in output.splitlines() if "--resume" in line)
    recipe, *flags = command.partition("python -m sweeps.run ")[2].split()
    assert recipe == "samsum"
    return flags


def test_killed_trial_processes_and_a_killed_pack_cost_no_trial(
    finished: Finished, tmp_path: Path
) -> None:
    num_trials = finished.num_trials
    process = small_sweep.start(
        tmp_path, "orphan", *small_sweep.FLAGS, "--num-trials", str(num_trials)
    )
    folder = tmp_path / "orphan"
    small_sweep.wait_for(folder, lambda events: count(events, "report") >= 1, process)
    victims = small_sweep.trial_processes(process.pid)
    assert victims
    for victim in victims:
        victim.kill()
    small_sweep.wait_for(folder, lambda events: count(events, "report") >= 4, process)
    (pack,) = small_sweep.pack_processes(process.pid)
    pack.kill()
    killed = time.time()
    output, _ = process.communicate(timeout=small_sweep.LIMIT_S)
    assert process.returncode == 0, output
    histories = small_sweep.check_whole(folder, "orphan", num_trials)
    assert all(history.status != "failed" for history in histories)
    _check_same_curves(finished, histories)
    dead, alive = read_ledgers(folder / "checkpoints")  # of a dead pack counts all but its last s
    assert dead.started + dead.wall_s == pytest.approx(killed, abs=10.0)
    assert dead.shares and alive.shares and alive.started > killed


def test_trial_whose_process_dies_too_often_fails_alone(tmp_path: Path) -> None:
    flags = (*small_sweep.FLAGS, "--num-trials", "4", "--max-failures", "0")
    process = small_sweep.start(tmp_path, "deadly", *flags)
    folder = tmp_path / "deadly"
    small_sweep.wait_for(folder, lambda events: count(events, "report") >= 2, process)
    victim = _kill_a_running_trial(folder, process)
    output, _ = process.communicate(timeout=small_sweep.LIMIT_S)
    histories = small_sweep.check_whole(folder, "deadly", 4)
    has_completed = any(history.status == "completed" for history in histories)
    assert process.returncode == (0 if has_completed else 1), output
    failed = [history for history in histories if history.status == "failed"]
    assert [history.trial_id for history in failed] == [victim]
    assert "died" in failed[0].reason


def _kill_a_running_trial(folder: Path, process: subprocess.Popen[str]) -> str:
    """Kills the process of a trial that has not ended, of those there are; returns the trial's
    id."""
    while True:
        assert process.poll() is None, process.communicate()[0]
        by_trial = small_sweep.running_trials(process.pid, folder)
        running = {h.trial_id for h in replay(small_sweep.events_of(folder)) if h.status is None}
        for trial_id in sorted(running & by_trial.keys()):
            by_trial[trial_id].kill()
            return trial_id
        time.sleep(0.02)


def _check_same_curves(finished: Finished, histories: list[TrialRecord]) -> None:
    """As in the undisturbed sweep; the start points are those that any sweep tries."""
    undisturbed = small_sweep.replay(small_sweep.events_of(finished.folder))
    small_sweep.check_same_curves(histories, undisturbed, ("t0000", "t0001"))
