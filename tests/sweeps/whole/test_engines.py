"""Whole sweeps by engine: packed gives what solo gives, keeps no slot and leaves no process."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from sweeps import ask
from sweeps.records.events import read_events
from sweeps.records.trial_record import replay
from tests.sweeps import small_sweep
from tests.sweeps.small_sweep import FLAGS, Finished, count
from trainables.models.layer_kinds import GATED_DELTA_NET

NUM_SHORT = 16
LEAK_S = 30.0
"""A slot that was not given back is free again after so long (actor.LEASE_TIMEOUT_S)."""


def test_packed_is_the_default(finished: Finished) -> None:
    config = json.loads((finished.folder / "sweep.json").read_text())["config"]
    assert config["engine"] == "packed"


def test_solo_sweep_has_the_curves_of_the_packed_one_and_a_trial_that_dies_too_often_fails_alone(
    finished: Finished, tmp_path: Path
) -> None:
    flags = (*FLAGS, "--num-trials", "2", "--engine", "solo", "--max-failures", "0")
    process = small_sweep.start(tmp_path, "solo", *flags)
    folder = tmp_path / "solo"
    small_sweep.wait_for(folder, lambda events: count(events, "trial_started") >= 1, process)
    _kill_trial("t0000", folder, process)
    output, _ = process.communicate(timeout=small_sweep.LIMIT_S)
    assert process.returncode == 0, output
    histories = small_sweep.check_whole(folder, "solo", 2)
    (dead,) = [one for one in histories if one.status != "completed"]
    assert (dead.trial_id, dead.status) == ("t0000", "failed") and "died" in dead.reason
    packed = replay(small_sweep.events_of(finished.folder))
    assert histories[1].params == packed[1].params
    assert histories[1].params.lora_dropout == 0.0
    small_sweep.check_same_curves(histories, packed, ["t0001"])


def _kill_trial(trial_id: str, folder: Path, process: subprocess.Popen[str]) -> None:
    """Kills the process of a trial that has begun, once there is one."""
    while trial_id not in (by_trial := small_sweep.running_trials(process.pid, folder)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    by_trial[trial_id].kill()


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


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Five trials of the bundled hybrid, whose three layers of four are Gated DeltaNet. One was
    asked for while it ran, with an absurd learning rate."""
    runs_dir = tmp_path_factory.mktemp("hybrid")
    flags = (*FLAGS, "--model", "tiny-hybrid", "--target-modules", "all", "--num-trials", "4")
    flags += ("--max-steps", "40", "--num-rungs", "2", "--reduction-factor", "10")
    process = small_sweep.start(runs_dir, "hybrid", *flags)
    folder = runs_dir / "hybrid"
    small_sweep.wait_for(folder, lambda events: count(events, "trial_started") >= 1, process)
    ask.main([str(folder), "--add", "learning_rate=1e30"])
    output, _ = process.communicate(timeout=small_sweep.LIMIT_S)
    return Finished(runs_dir, "hybrid", folder, 5, process.returncode, output)


def test_a_stopped_trial_leaves_its_pack_which_tests_the_best_one_in_the_end(
    hybrid: Finished,
) -> None:
    """A stopped trial's process lives on, for a next trial that may never come."""
    assert hybrid.code == 0, hybrid.output
    trials = small_sweep.check_whole(hybrid.folder, hybrid.name, hybrid.num_trials)
    (ledger,) = (e for e in small_sweep.events_of(hybrid.folder) if e["kind"] == "pack_ended")
    num_left = sum(trial.status != "completed" for trial in trials)
    assert sum(trial.status == "stopped" for trial in trials) >= 1
    wanted = sum(trial.reports[-1].step for trial in trials if trial.reports)
    assert ledger["trial_steps"] <= wanted + 10 * num_left
    assert ledger["seconds"]["test"] > 0
    events = {event["kind"]: event for event in small_sweep.events_of(hybrid.folder)}
    assert events["pack_started"]["pack"] == ledger["pack"]
    held_s = sum(ledger["seconds"].values())
    assert events["sweep_ended"]["actual"]["gpu_hours"] == pytest.approx(held_s / 3600)
    assert "pack on cpu: " in hybrid.output


def test_a_trial_that_fails_in_a_pack_before_its_first_report_keeps_its_reason(
    hybrid: Finished,
) -> None:
    (failed,) = [t for t in replay(small_sweep.events_of(hybrid.folder)) if t.status == "failed"]
    assert failed.params.learning_rate == 1e30
    assert "non-finite" in failed.reason and not failed.reports


def test_every_kind_of_layer_of_a_hybrid_is_adapted(hybrid: Finished) -> None:
    with safe_open(hybrid.folder / "best" / "adapter_model.safetensors", "pt") as weights:
        names = list(weights.keys())  # the file is no dict
        adapted = {name.split(".")[6] for name in names if ".layers.0." in name}
    assert adapted == set(GATED_DELTA_NET.linear_layers) - {"in_proj_a", "in_proj_b"}


def test_a_solo_sweep_whose_trial_fails_before_its_first_report_keeps_its_reason(
    tmp_path: Path,
) -> None:
    flags = (*FLAGS, "--num-rungs", "1", "--learning-rates", "1e30", "1e31")
    flags += ("--engine", "solo", "--num-trials", "1")
    code, output = small_sweep.run(tmp_path, "failing", *flags)
    assert code == 1, output
    (trial,) = replay(small_sweep.events_of(tmp_path / "failing"))
    assert trial.status == "failed" and "non-finite" in trial.reason, output
