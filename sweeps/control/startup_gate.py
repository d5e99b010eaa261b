"""The opening of a sweep: its first trials' processes start while the packs still load."""

import time
from collections.abc import Callable, Sequence

from ray.actor import ActorHandle

from sweeps.control import pack_pool
from sweeps.control.controller import TrialController
from sweeps.cost.budget import Budget
from sweeps.cost.outlook import Outlook
from trainables.packing.sizing.pace import Pace


class StartupGate:
    """Holds the book's trials until the packs have told their pace, and what it means is told.

    22 trials' processes and proposals took 4.5 s beside an H200 that had loaded and waited. Now
    they start once the packs have imported what they need, and wait in the pack, which lets them
    in once it has measured its pace.

    Args:
        actors: the sweep's packs; none where trials train alone.
        tell: says what is expected with a pace, before any trial starts.
    """

    def __init__(
        self,
        book: TrialController,
        actors: Sequence[ActorHandle],
        tell: Callable[[Pace | None], Outlook],
    ) -> None:
        self._book = book
        self._started = pack_pool.ask_started(actors)
        self._asked = pack_pool.ask_pace(actors)
        self._tell = tell
        self._until_s = time.monotonic() + pack_pool.PACE_S
        self._outlook: Outlook | None = None

    def begin(self) -> None:
        """From now on trials are held, unless the outlook is known already."""
        if self._outlook is None:
            pack_pool.wait(self._started)  # the trials' processes would take the cores from them
            self._book.hold()

    def look(self) -> None:
        """Ends the opening if every pack has answered, or it has lasted too long."""
        if self._outlook is None and (
            pack_pool.have_answered(self._asked) or time.monotonic() > self._until_s
        ):
            self.end()

    def end(self, timeout_s: float = 0.0) -> None:
        """Ends it with what the packs have told within so many seconds; a second time, nothing.

        Raises:
            SweepAborted: a pack cannot load, or the budget is too small.
        """
        if self._outlook is None:
            self._outlook = self._tell(pack_pool.pace(self._asked, timeout_s))
            self._book.go()

    def outlook(self) -> Outlook:
        """What is expected, once that is known."""
        self.end(pack_pool.PACE_S)
        assert self._outlook is not None
        return self._outlook

    @property
    def budget(self) -> Budget | None:
        """When the search must end; None without a limit, and while the opening lasts."""
        return self._outlook.budget if self._outlook else None
