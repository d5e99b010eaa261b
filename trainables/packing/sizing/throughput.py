"""How fast a pack trains and scores, as measured before its first trial. Standard library only."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Seconds of a pack's steps and evaluations (probe.py measures them)."""

    device: str
    """Name of the GPU, or "cpu"."""
    num_slots: int
    """Trials that the pack holds."""
    load_s: float = 0.0
    """From the pack's start until it could step."""
    step_fixed_s: float
    """Seconds of a step of mean length, whatever the number of trials."""
    step_trial_s: float = 0.0
    """Seconds that each trial adds to it."""
    capture_s: float = 0.0
    """Seconds that capturing a CUDA graph adds to the first pass of a shape."""
    batch_fixed_s: float = 0.0
    """Seconds of a batch of the evaluation, whatever its rows: tokens of an answer follow one
    another."""
    row_s: float = 0.0
    """Seconds that one more row of one trial costs."""
    batch_rows: int = 1
    """Rows of all trials that one batch of the evaluation holds."""
    probe_s: float = 0.0
    """What the measurement took, the warm-up that trials are spared included."""

    def predict_step_s(self, num_trials: float) -> float:
        """Seconds of one optimizer step of so many trials together."""
        return self.step_fixed_s + self.step_trial_s * num_trials

    def predict_eval_s(self, num_trials: float, num_rows: int) -> float:
        """Seconds in which so many trials are scored on so many rows each."""
        if num_trials * num_rows == 0:
            return 0.0
        rows_at_once = max(1, math.floor(self.batch_rows / num_trials))
        num_batches = math.ceil(num_rows / rows_at_once)
        return num_batches * self.batch_fixed_s + num_trials * num_rows * self.row_s


def find_slowest(measured: list[Throughput]) -> Throughput:
    """The pack that takes longest for a step of all its trials: the sweep waits for it."""
    return max(measured, key=lambda throughput: throughput.predict_step_s(throughput.num_slots))
