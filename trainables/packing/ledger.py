"""Where a pack's time goes: seconds by activity, and what it computed. Standard library only."""

import threading
import time
from dataclasses import dataclass
from typing import Literal, get_args

Activity = Literal["load", "admit", "train", "evaluate", "report", "decide", "test", "idle"]
"""Reading base and rows; placing trials in slots; optimizer steps; scoring; saving and telling;
waiting for trials' decisions; the final test; having no trial."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What a pack has done so far."""

    device: str
    """Name of the GPU, or "cpu"."""
    seconds: dict[str, float]
    """By activity; they sum to the wall time of the pack's loop."""
    trial_steps: int
    """Optimizer steps, summed over trials."""
    real_tokens: int
    """Training tokens that are not there to fill up a pass."""
    computed_tokens: int
    """Places of all passes."""


class LedgerKeeper:
    """Keeps the ledger of one loop; each moment belongs to one activity. Thread-safe.

    Args:
        device: see Ledger.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._seconds = {str(activity): 0.0 for activity in get_args(Activity)}
        self._activity: Activity = "load"
        self._since_s = time.monotonic()
        self._has_ended = False
        self._trial_steps = self._real_tokens = self._computed_tokens = 0

    def turn_to(self, activity: Activity) -> None:
        """The loop does something else from now on."""
        with self._lock:
            self._settle()
            self._activity = activity

    def end(self) -> None:
        """Nothing more is counted."""
        with self._lock:
            self._settle()
            self._has_ended = True

    def count_step(self, trial_steps: int, real_tokens: int, computed_tokens: int) -> None:
        """Add one step of the pack."""
        with self._lock:
            self._trial_steps += trial_steps
            self._real_tokens += real_tokens
            self._computed_tokens += computed_tokens

    def so_far(self) -> Ledger:
        """A copy that no longer changes."""
        with self._lock:
            self._settle()
            return Ledger(
                device=self._device,
                seconds=dict(self._seconds),
                trial_steps=self._trial_steps,
                real_tokens=self._real_tokens,
                computed_tokens=self._computed_tokens,
            )

    def _settle(self) -> None:
        now_s = time.monotonic()
        if not self._has_ended:
            self._seconds[self._activity] += now_s - self._since_s
        self._since_s = now_s
