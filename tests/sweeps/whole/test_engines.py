"""Whole sweeps by engine: packed gives what solo gives, keeps no slot and leaves no process."""

import json
import time
from pathlib import Path

import pytest

from sweeps.records.events import read_events
from sweeps.records.trial_record import replay
from tests.sweeps import small_sweep
from tests.sweeps.small_sweep import FLAGS, Finished, count

NUM_SHORT = 32
LEAK_S = 30.0
"""A slot that was not given back is free again after so long (actor.LEASE_TIMEOUT_S)."""


def test_packed_is_the_default(finished: Finished) -> None:
    config = json.loads((finished.folder / "sweep.json").read_text())["config"]
    assert config["engine"] == "packed"


def test_solo_sweep_is_whole_and_has_the_curves_of_the_packed_one(
    finished: Finished, tmp_path: Path
) -> None:
    code, output = small_sweep.run(
        tmp_path, "solo", *FLAGS, "--num-trials", "2", "--engine", "solo"
    )
    assert code == 0, output
    histories = small_sweep.check_whole(tmp_path / "solo", "solo", 2)
    packed = replay(small_sweep.events_of(finished.folder))
    without_dropout = [
        one.trial_id
        for one, other in zip(histories, packed, strict=False)
        if one.params == other.params and one.params.lora_dropout == 0.0
    ]
    assert "t0001" in without_dropout
    small_sweep.check_same_curves(histories, packed, without_dropout)


def test_many_short_trials_give_every_slot_back_and_the_best_is_tested_although_the_pack_died(
    tmp_path: Path,
) -> None:
    flags = (*FLAGS, "--max-steps", "1", "--num-rungs", "1", "--num-trials", str(NUM_SHORT))
    process = small_sweep.start(tmp_path, "short", *flags, "--slots-per-gpu", "4")
    folder = tmp_path / "short"
    events = small_sweep.wait_for(folder, lambda events: count(events, "report") >= 4, process)
    began_s = time.monotonic()
    small_sweep.wait_for(folder, lambda events: count(events, "trial_ended") >= NUM_SHORT, process)
    took_s = time.monotonic() - began_s
    (pack,) = small_sweep.pack_processes(process.pid)
    pack.kill()
    output, _ = process.communicate(timeout=small_sweep.LIMIT_S)
    assert process.returncode == 0, output
    small_sweep.check_whole(folder, "short", NUM_SHORT)
    num_rounds = (NUM_SHORT - count(events, "report")) / 4
    assert took_s < num_rounds * LEAK_S / 2
    assert count(read_events(folder / "events.jsonl"), "final_scores") == 1


def test_a_stopped_trial_leaves_its_pack_which_tests_the_best_one_in_the_end(
    tmp_path: Path,
) -> None:
    """A stopped trial's process lives on, for a next trial that may never come."""
    flags = (*FLAGS, "--max-steps", "40", "--num-rungs", "2", "--reduction-factor", "10")
    code, output = small_sweep.run(tmp_path, "leaves", *flags, "--num-trials", "4")
    assert code == 0, output
    events = read_events(tmp_path / "leaves" / "events.jsonl")
    (ledger,) = (event for event in events if event["kind"] == "pack_ended")
    trials = replay(events)
    num_stopped = sum(trial.status == "stopped" for trial in trials)
    assert num_stopped >= 1
    wanted = sum(trial.reports[-1].step for trial in trials)
    assert ledger["trial_steps"] <= wanted + 10 * num_stopped
    assert ledger["seconds"]["test"] > 0
    assert "pack on cpu: " in output


@pytest.mark.parametrize(("engine", "num_trials"), [("packed", 2), ("solo", 1)])
def test_trials_that_fail_before_their_first_report_keep_their_reason(
    engine: str, num_trials: int, tmp_path: Path
) -> None:
    flags = (*FLAGS, "--num-rungs", "1", "--learning-rates", "1e30", "1e31")
    flags += ("--engine", engine, "--num-trials", str(num_trials))
    code, output = small_sweep.run(tmp_path, "failing", *flags)
    assert code == 1, output
    histories = replay(small_sweep.events_of(tmp_path / "failing"))
    assert [history.status for history in histories] == ["failed"] * num_trials
    assert all("non-finite" in history.reason for history in histories), output
