"""A sweep's start: its first trials' processes start while the packs still load."""

import time
from collections.abc import Callable, Sequence

from ray.actor import ActorHandle

from sweeps.control import pack_pool
from sweeps.control.controller import TrialController
from trainables.packing.sizing.throughput import Throughput


class StartupGate:
    """Holds trials back until the packs have measured their throughput and the estimate is told.

    22 trials' processes and proposals took 4.5 s beside an H200 that had loaded and waited. So
    they start once the packs have imported what they need, and wait in the pack, which lets them
    in once it has measured its throughput.

    Args:
        actors: the sweep's packs; none where trials train alone.
        tell_estimate: is told the throughput, before any trial starts.
    """

    def __init__(
        self,
        controller: TrialController,
        actors: Sequence[ActorHandle],
        tell_estimate: Callable[[Throughput | None], None],
    ) -> None:
        self._controller = controller
        self._imported = pack_pool.ask_started(actors)
        self._measured = [actor.throughput.remote() for actor in actors]
        self._tell_estimate = tell_estimate
        self._deadline_s = time.monotonic() + pack_pool.LOAD_TIMEOUT_S
        self.is_open = False
        """Whether trials may start."""

    def close(self) -> None:
        """From now on trials are held, unless the gate has opened already."""
        if not self.is_open:
            pack_pool.wait_for(
                self._imported
            )  # the trials' processes would take the cores from them
            self._controller.hold_starts()

    def poll(self) -> None:
        """Opens the gate if every pack has answered, or it has been closed for too long."""
        if not self.is_open:
            num_answers = len(pack_pool.wait_for(self._measured, 0.0))
            if num_answers == len(self._measured) or time.monotonic() > self._deadline_s:
                self.open()

    def open(self, timeout_s: float = 0.0) -> None:
        """Opens the gate with what packs measure within so many seconds; it opens only once.

        Raises:
            SweepAborted: a pack cannot load, or the budget is too small.
        """
        if not self.is_open:
            self._tell_estimate(pack_pool.find_slowest_throughput(self._measured, timeout_s))
            self.is_open = True
            self._controller.release_starts()
