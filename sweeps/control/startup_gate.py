"""A sweep's start: its first trials' processes start while the packs still load."""

import time
from collections.abc import Callable

from sweeps.control.controller import TrialController
from sweeps.control.pack_pool import PackPool
from trainables.packing.sizing.throughput import Throughput

OTHERS_WAIT_S = 10.0
"""From the first pack to the sweep's start, if others are not so far: equal ones are, by then."""


class StartupGate:
    """Holds trials back until a pack has measured its throughput and the estimate is told.

    22 trials' processes and proposals took 4.5 s beside an H200 that had loaded and waited. So
    they start once the packs have imported what they need, and wait in the pack, which lets them
    in once it has measured its throughput. Packs that have no GPU yet are not waited for.

    Args:
        pool: the sweep's packs; without any, trials train alone.
        tell_estimate: is told the throughput of the slowest pack, before any trial starts.
    """

    def __init__(
        self,
        controller: TrialController,
        pool: PackPool,
        tell_estimate: Callable[[Throughput | None], None],
    ) -> None:
        self._controller = controller
        self._pool = pool
        self._tell_estimate = tell_estimate
        self._first_s: float | None = None
        """When the first pack was so far."""
        self.is_open = False
        """Whether trials may start."""

    def close(self) -> None:
        """From now on trials are held, unless the gate has opened already."""
        if not self.is_open:
            # the trials' processes would take the cores from the packs
            self._pool.wait(lambda: self._are_enough(self._pool.num_imported))
            self._first_s = None
            self._controller.hold_starts()

    def poll(self) -> None:
        """Opens the gate if enough packs have loaded."""
        self._pool.poll()
        if not self.is_open and self._are_enough(len(self._pool.loaded)):
            self.open()

    def wait(self) -> None:
        """Opens the gate once enough packs have loaded."""
        if not self.is_open:
            self._pool.wait(lambda: self._are_enough(len(self._pool.loaded)))
            self.open()

    def open(self) -> None:
        """Opens the gate with what packs have measured by now; it opens only once.

        Raises:
            SweepAborted: the budget is too small.
        """
        if not self.is_open:
            self._tell_estimate(self._pool.throughput)
            self.is_open = True
            self._controller.release_starts()

    def _are_enough(self, num_ready: int) -> bool:
        """Whether all packs are ready, or the first has been for a while."""
        if num_ready and self._first_s is None:
            self._first_s = time.monotonic()
        if num_ready == len(self._pool.actors):
            return True
        return self._first_s is not None and time.monotonic() > self._first_s + OTHERS_WAIT_S
