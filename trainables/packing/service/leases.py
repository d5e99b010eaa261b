"""Which trials have a claim on a pack, and what has happened to them. Thread-safe; no torch.

The pack's loop and the trials that wait for its events meet here only. A trial that is not heard
of for some time loses its lease, so a slot never stays with a dead process.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trainables.config import TrialConfig
from trainables.packing.service.events import LAST_EVENTS, Event, LeaseLost, Reported, Stopped

logger = logging.getLogger(__name__)

_LOOK_S = 0.5
"""Between two looks for trials that have fallen silent."""


@dataclass(eq=False)
class Lease:
    """A trial's claim on a slot."""

    number: int
    """Numbers rise in order of arrival."""
    trial: TrialConfig
    heard_s: float
    """When the trial was last heard of (time.monotonic)."""
    waits_since_s: float
    slot: int | None = None
    """Where it trains; only the loop reads and writes it."""
    was_admitted: bool = False
    is_open: bool = True
    """Not left, evicted, replaced or expired."""
    has_ended: bool = False
    """Its last event has happened."""
    events: deque[Event] = field(default_factory=deque)
    num_listeners: int = 0
    reported_step: int = 0
    """Of the last report that was posted."""
    taken_step: int = 0
    """Of the last report that the trial has taken."""
    decided_step: int = 0
    """Of the last report after which the trial is known to go on."""
    folder_lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the pack writes to the trial's folder."""

    @property
    def is_live(self) -> bool:
        """Whether the trial is still to be trained: it has neither gone nor ended."""
        return self.is_open and not self.has_ended

    @property
    def is_decided(self) -> bool:
        """Whether the trial goes on after all its reports, or is gone or stopped."""
        return not self.is_live or self.decided_step >= self.reported_step


class Leases:
    """All leases of a pack.

    Args:
        timeout_s: how long a trial may be silent.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._open: dict[int, Lease] = {}
        self._last_number = 0
        self._is_closed = False

    def join(self, trial: TrialConfig) -> int:
        """A new lease; the older one of the same trial is lost."""
        with self._changed:
            for older in self._of(trial.trial_id):
                self._drop(older)
            self._last_number += 1
            now_s = time.monotonic()
            lease = Lease(self._last_number, trial, heard_s=now_s, waits_since_s=now_s)
            self._open[lease.number] = lease
            self._changed.notify_all()
            return lease.number

    def next_event(self, number: int, timeout_s: float) -> Event | None:
        """The trial's next event, None if there is none in time; asking renews the lease.

        Asking also says that the trial goes on after the reports that it has taken.
        """
        with self._changed:
            lease = self._open.get(number)
            if lease is None:
                return LeaseLost()
            lease.decided_step = max(lease.decided_step, lease.taken_step)
            lease.num_listeners += 1
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: lease.events or not lease.is_open or self._is_closed, timeout_s
            )
            lease.num_listeners -= 1
            lease.heard_s = time.monotonic()
            return self._take(lease)

    def renew(self, number: int) -> bool:
        """Say that the trial is alive; whether its lease still holds."""
        with self._changed:
            lease = self._open.get(number)
            if lease is not None:
                lease.heard_s = time.monotonic()
            return lease is not None and not self._is_closed

    def leave(self, number: int) -> None:
        """End a lease, if it is there; from then on the trial's folder is its caller's."""
        with self._changed:
            lease = self._open.get(number)
        if lease is not None:
            self._end(lease)

    def evict(self, trial_id: str) -> None:
        """End the lease of a trial, if it has one; as leave."""
        for lease in self._of(trial_id):
            self._end(lease)

    def decide(self, step: int, goes_on: Mapping[str, bool]) -> None:
        """Say which trials go on after their reports at a step, and end those that do not.

        The trials' own processes say so too, each when it has heard it; what is decided about
        many at once would wait for the slowest of them.
        """
        with self._changed:
            for lease in self._open.values():
                decision = goes_on.get(lease.trial.trial_id)
                if decision is True:
                    lease.decided_step = max(lease.decided_step, step)
                elif decision is False:
                    self.post(lease, Stopped())
            self._changed.notify_all()

    def close(self) -> None:
        """Wake everyone up; events that have happened can still be taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether close was called."""
        return self._is_closed

    @property
    def is_done(self) -> bool:
        """Whether no trial waits or trains."""
        with self._changed:
            return all(lease.has_ended for lease in self._open.values())

    def waiting(self) -> list[Lease]:
        """Leases without a slot, in order of arrival."""
        with self._changed:
            found = (lease for lease in self._open.values() if not lease.has_ended)
            return sorted((one for one in found if one.slot is None), key=lambda one: one.number)

    def drop_silent(self) -> None:
        """End the leases of trials that were not heard of in time."""
        with self._changed:
            limit_s = time.monotonic() - self._timeout_s
            for lease in list(self._open.values()):
                if lease.num_listeners == 0 and lease.heard_s < limit_s:
                    self._drop(lease)

    def post(self, lease: Lease, *events: Event) -> None:
        """Tell a trial what happened; after its end nothing more does."""
        with self._changed:
            for event in events:
                if lease.has_ended:
                    return
                lease.events.append(event)
                lease.has_ended = isinstance(event, LAST_EVENTS)
                if isinstance(event, Reported):
                    lease.reported_step = event.report.step
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Until something changes."""
        with self._changed:
            if not self._is_closed:
                self._changed.wait(timeout_s)

    def wait_decided(self, leases: Iterable[Lease], timeout_s: float) -> None:
        """Until these trials have decided to go on after their reports, or are gone."""
        waited = list(leases)
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not self._is_closed and not all(lease.is_decided for lease in waited):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    late = [one.trial.trial_id for one in waited if not one.is_decided]
                    logger.warning("no decision after %g s: %s", timeout_s, ", ".join(late))
                    return
                self._changed.wait(min(left_s, _LOOK_S))
                self.drop_silent()

    def _take(self, lease: Lease) -> Event | None:
        if not lease.is_open:
            return LeaseLost()
        if not lease.events:
            return LeaseLost() if self._is_closed else None
        event = lease.events.popleft()
        if isinstance(event, Reported):
            lease.taken_step = event.report.step
        if isinstance(event, LAST_EVENTS):
            self._drop(lease)
        return event

    def _of(self, trial_id: str) -> list[Lease]:
        with self._changed:
            return [one for one in self._open.values() if one.trial.trial_id == trial_id]

    def _end(self, lease: Lease) -> None:
        with self._changed:
            self._drop(lease)
        with lease.folder_lock:  # what is being written now ends first
            pass

    def _drop(self, lease: Lease) -> None:
        lease.is_open = False
        self._open.pop(lease.number, None)
        self._changed.notify_all()
