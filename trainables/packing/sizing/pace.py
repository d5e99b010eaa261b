"""How fast a pack is: seconds of a step and of an evaluation. Standard library only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol


class Speed(Protocol):
    """What an estimate needs to know of a pack, measured before the first trial or on the way."""

    def step_s(self, num_live: int) -> float:
        """Seconds of one optimizer step of so many trials together; at least one."""

    def evaluation_s(self, num_live: int, num_rows: int) -> float:
        """Seconds in which so many trials are scored on so many rows each."""

    def recording_s(self, num_before: float, num_steps: float) -> float:
        """Seconds that a pack loses to recording in so many steps, after those that it has made."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """A Speed that was measured on a few real batches.

    A step's seconds are linear between the numbers of trials that were measured, and linear in
    its tokens, which is why steps of mean length tell the mean. An evaluation costs launch_s a
    batch (the tokens of an answer follow one another, whatever the batch holds) and row_s for
    each row of each trial.
    """

    device: str
    """Name of the GPU, or "cpu"."""
    num_slots: int
    """Trials that the pack holds."""
    load_s: float
    """From the pack's start until it could step."""
    steps_s: Mapping[int, float]
    """Seconds of a step of mean length, by the number of trials that make it."""
    launch_s: float
    """Seconds of a batch of the evaluation that do not depend on its rows."""
    row_s: float
    """Seconds that one more row of one trial costs."""
    batch_rows: int
    """Rows of all trials that one batch of the evaluation holds."""
    record_s: float = 0.0
    """Seconds that recording a CUDA graph adds to the first pass of a shape."""
    recordings: Mapping[int, int] = field(default_factory=dict)
    """Graphs that have been recorded after so many steps of the pack (recordings.py)."""
    probe_s: float
    """What the measurement took, the warm-up that trials are spared included."""

    def step_s(self, num_live: int) -> float:
        """See Speed; never less for more trials."""
        known = sorted(self.steps_s)
        if num_live <= known[0]:
            return self.steps_s[known[0]]
        for low, high in pairwise(known):
            if num_live <= high:
                share = (num_live - low) / (high - low)
                return (1 - share) * self._rising(low) + share * self._rising(high)
        return self._rising(known[-1]) * num_live / known[-1]

    def evaluation_s(self, num_live: int, num_rows: int) -> float:
        """See Speed."""
        if num_live * num_rows == 0:
            return 0.0
        rows_at_once = max(1, self.batch_rows // num_live)
        num_batches = math.ceil(num_rows / rows_at_once)
        return num_batches * self.launch_s + num_live * num_rows * self.row_s

    def recording_s(self, num_before: float, num_steps: float) -> float:
        """See Speed."""
        if not self.recordings:
            return 0.0
        return self.record_s * (self._recorded(num_before + num_steps) - self._recorded(num_before))

    def _recorded(self, num_steps: float) -> float:
        """Graphs after so many steps; beyond what is known, as many more a doubling as before."""
        known = sorted({0: 0, **self.recordings}.items())
        for (low, few), (high, many) in pairwise(known):
            if num_steps <= high:
                return few + (many - few) * (num_steps - low) / (high - low)
        (_, few), (last, many) = known[-2:]
        return many + (many - few) * math.log2(num_steps / last)

    def _rising(self, num_live: int) -> float:
        """Noise may have made more trials look faster than fewer."""
        return max(s for live, s in self.steps_s.items() if live <= num_live)


def slowest(paces: list[Pace]) -> Pace:
    """That of the pack which takes longest for a step of all its trials: the sweep waits for it."""
    return max(paces, key=lambda pace: pace.step_s(pace.num_slots))
