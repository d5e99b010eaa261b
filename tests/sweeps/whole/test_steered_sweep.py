"""A whole sweep that is steered while it runs, killed, asked meanwhile, resumed and ended."""

from pathlib import Path
from typing import Any

import pytest

from sweeps import ask
from sweeps.records.trial_record import replay
from sweeps.records.trials_csv import FINISH_REASON, STOP_REASON
from tests.sweeps import small_sweep
from tests.sweeps.small_sweep import count


@pytest.mark.slow
def test_a_steered_sweep_does_what_was_asked_and_keeps_it(tmp_path: Path) -> None:
    flags = (*small_sweep.WITH_FINALS, "--max-steps", "27", "--no-estimate", "--num-trials", "3")
    process = small_sweep.start(tmp_path, "steered", *flags, "--num-final-seeds", "1")
    folder = tmp_path / "steered"
    small_sweep.wait_for(folder, lambda events: count(events, "report") >= 1, process)

    def steer(*words: str) -> dict[str, Any]:
        return dict(ask.main([str(folder), *words]).facts)

    added = steer("--add", "lora_rank=2", "lora_alpha=3", "learning_rate=2e-3")
    assert added["is_done"] and added["num_trials"] == 4
    running = [h.trial_id for h in replay(small_sweep.events_of(folder)) if h.status is None]
    assert steer("--stop", running[0])["is_done"]
    small_sweep.wait_for(folder, lambda events: count(events, "trial_started") >= 3, process)
    small_sweep.kill(process)
    assert not steer("--num-trials", "9")["is_done"]
    process = small_sweep.start(tmp_path, "steered", "--tiny", "--resume", "--num-trials", "1")
    small_sweep.wait_for(folder, lambda events: count(events, "asked") == 3, process)
    before = count(small_sweep.events_of(folder), "report")
    small_sweep.wait_for(folder, lambda events: count(events, "report") > before, process)
    done = steer("--finish")
    assert done["is_done"] and done["stop"]
    output, _ = process.communicate(timeout=small_sweep.LIMIT_S)
    assert process.returncode == 0, output
    assert "--num-trials 1 is less than the" in output
    assert "Last result" not in output  # as Tune says of trials without a report
    histories = small_sweep.check_whole(folder, "steered", done["num_trials"])
    reasons = {history.trial_id: history.reason for history in histories}
    assert reasons[running[0]] == STOP_REASON
    assert {reasons[trial_id] for trial_id in done["stop"]} == {FINISH_REASON}
    (hand_made,) = [h.params for h in histories if h.params.lora_rank == 2]
    assert (hand_made.lora_alpha, hand_made.learning_rate) == (3.0, 2e-3)
    assert (folder / "best" / "adapter_model.safetensors").exists()
