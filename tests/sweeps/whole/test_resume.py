"""A sweep goes on after any of its processes was killed, and ends as it was asked for."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.records.trial_record import replay
from tests.sweeps import small_sweep
from tests.sweeps.small_sweep import Finished, count
from trainables.packing.service.ledger import read_ledgers

NUM_TRIALS = 6
Events = list[dict[str, Any]]
HITS: tuple[tuple[str, Callable[[Events], bool]], ...] = (
    ("trials", lambda events: count(events, "report") >= 1),
    ("pack", lambda events: count(events, "report") >= NUM_TRIALS + 1),
    ("SIGTERM", lambda events: count(events, "report") >= NUM_TRIALS + 2),
    ("SIGTERM to all", lambda events: count(events, "trial_ended") >= NUM_TRIALS - 1),
    ("driver", lambda events: count(events, "trial_ended") >= NUM_TRIALS),
    ("driver", lambda events: any(_is_report_of_a_final(event) for event in events)),
)
"""What is killed, and when. A scheduler's SIGTERM, or Ctrl-C, interrupts the driver; sent to all
processes of its group, as timeout does, it ends its Ray too."""


def test_whatever_is_killed_or_interrupted_loses_and_repeats_no_trial(
    finished: Finished, tmp_path: Path
) -> None:
    flags = (*small_sweep.WITH_FINALS, "--num-trials", str(NUM_TRIALS))
    process = small_sweep.start(tmp_path, "killed", *flags)
    folder, killed_s = tmp_path / "killed", 0.0
    for victim, is_time in HITS:
        events = small_sweep.wait_for(folder, is_time, process)
        assert count(events, "sweep_ended") == 0, victim
        if victim == "trials":
            trials = small_sweep.trial_processes(process.pid)
            assert trials
            for trial in trials:
                trial.kill()
        elif victim == "pack":
            (pack,) = small_sweep.pack_processes(process.pid)
            pack.kill()
            killed_s = time.time()
        else:
            words = ["--tiny", "--resume"]
            if victim == "driver":
                small_sweep.kill(process)
            else:
                send = os.killpg if victim == "SIGTERM to all" else os.kill
                words = _interrupt(process, send)
                assert (folder / "trials.csv").exists()
                reason = "Ray's head is gone" if send is os.killpg else "Ctrl-C"
                assert small_sweep.events_of(folder)[-1]["reason"] == reason
            process = small_sweep.start(tmp_path, "killed", *words)
    output, _ = process.communicate(timeout=small_sweep.LIMIT_S)
    assert process.returncode == 0, output
    histories = small_sweep.check_whole(folder, "killed", NUM_TRIALS)
    assert all(history.status != "failed" for history in histories)
    assert count(small_sweep.events_of(folder), "finals_started") == 1
    assert (folder / "best" / "adapter_model.safetensors").exists()
    # As in the undisturbed sweep; the start points are those that any sweep tries.
    undisturbed = replay(small_sweep.events_of(finished.folder))
    small_sweep.check_same_curves(histories, undisturbed, ("t0000", "t0001"))
    dead, *others = read_ledgers(folder / "checkpoints")
    assert dead.started + dead.wall_s == pytest.approx(killed_s, abs=10.0)  # all but its last s
    assert dead.shares and others and all(one.started > killed_s for one in others)


def _is_report_of_a_final(event: dict[str, Any]) -> bool:
    return event["kind"] == "report" and event["trial_id"].startswith("f")


def _interrupt(process: subprocess.Popen[str], send: Callable[[int, int], None]) -> list[str]:
    """Sends SIGTERM; the flags of the command that resumes, which the driver printed."""
    send(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=small_sweep.LIMIT_S)
    assert process.returncode == 130, output
    command = next(line for line in output.splitlines() if "--resume" in line)
    recipe, *flags = command.partition("python -m sweeps.run ")[2].split()
    assert recipe == "samsum"
    return flags
