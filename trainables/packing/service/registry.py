"""The trials of a pack, each with a lease on a slot of it. Thread-safe; no torch.

The pack's loop and the trials' processes meet here only. A process that is not heard of for some
time loses its lease, so that a slot never stays with a dead one. This is the only place that knows
who is alive.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping

from trainables.config import TrialConfig
from trainables.packing.service.events import (
    LAST_EVENTS,
    Event,
    LeaseLost,
    PackPreempted,
    Presence,
    Reported,
    Stopped,
)
from trainables.packing.service.packed_trial import PackedTrial

logger = logging.getLogger(__name__)

_SILENCE_CHECK_S = 0.5
"""Between two looks for silent trials, while decisions are waited for."""
MOVING_S = 10.0
"""Who has left a pack may be on the way to another for so long: it asks packs that may be slow."""


class TrialRegistry:
    """All trials that wait for a slot of a pack or train in one.

    Args:
        num_slots: slots of the pack; more trials than that may wait.
        lease_timeout_s: how long a trial may be silent before its slot is given to another.
        decision_wait_s: how long the pack waits at a rung for a trial that has not yet decided
            about its report before: it trains on meanwhile, but never two rungs ahead.
    """

    def __init__(self, num_slots: int, lease_timeout_s: float, decision_wait_s: float) -> None:
        self._num_slots = num_slots
        self._timeout_s = lease_timeout_s
        self._decision_wait_s = decision_wait_s
        self._changed = threading.Condition()
        self._open: dict[int, PackedTrial] = {}
        # A restarted pack must not know the leases that its predecessor gave: they are lost.
        self._last_lease = time.time_ns()
        self._last_joined_s = time.monotonic()
        self._left_s: deque[float] = deque()
        self._is_closed = False
        self.preempted: PackPreempted | None = None
        """Why the pack ends as soon as its trials are saved."""
        self._fault: Exception | None = None

    def join(self, config: TrialConfig) -> int:
        """The lease of a trial, which from now on waits for a slot.

        A lease that the trial already has is lost; the new one resumes from the disk.
        """
        with self._changed:
            self._raise_fault()
            for older in self._list_leases(config.trial_id):
                self._drop_lease(older)
            self._last_lease += 1
            now_s = self._last_joined_s = time.monotonic()
            self._open[self._last_lease] = PackedTrial(
                config, self._last_lease, last_heard_s=now_s, waiting_since_s=now_s
            )
            self._changed.notify_all()
            return self._last_lease

    def try_join(self, config: TrialConfig, num_free: int) -> int | None:
        """Join if at least num_free slots are left by now; None if others were quicker.

        Trials that look for a slot at the same moment are told the same numbers. They would fill
        one pack and leave another empty, or, where each takes any of those that are equal, share
        them as chance has it: 12 runs of finals were 7 on one GPU and 5 on the other.
        """
        with self._changed:
            return self.join(config) if self.count_free_slots(config.trial_id) >= num_free else None

    def count_free_slots(self, trial_id: str) -> int:
        """Slots that other living trials leave; below 0 if more of them wait than fit."""
        others = (name for name in self.get_presence().trial_ids if name != trial_id)
        num_slots = 0 if self.preempted else self._num_slots
        return num_slots - sum(1 for _ in others)

    def get_presence(self) -> Presence:
        """Who waits or trains here."""
        with self._changed:
            self._raise_fault()
            trial_ids = tuple(
                trial.trial_id
                for trial in self._open.values()
                if not trial.has_ended and not self._is_silent(trial)
            )
            now_s = time.monotonic()
            while self._left_s and self._left_s[0] <= now_s - MOVING_S:
                self._left_s.popleft()
            settled_s = now_s - self._last_joined_s
            return Presence(trial_ids, len(self._left_s), settled_s, self._num_slots)

    def take_event(self, lease: int, timeout_s: float) -> Event | None:
        """What happened next to the trial, or None if nothing has within timeout_s.

        Renews the lease, while it waits too. To ask again after a report says that the trial
        continues, as decide does: until then the pack trains it to its next rung at most.
        """
        with self._changed:
            trial = self._open.get(lease)
            if trial is not None:
                trial.decided_step = max(trial.decided_step, trial.taken_step)
                trial.num_listeners += 1
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: trial.events or not trial.is_open or self._is_closed, timeout_s
                )
                trial.num_listeners -= 1
                trial.last_heard_s = time.monotonic()
            if trial is None or not trial.is_open or (self._is_closed and not trial.events):
                self._raise_fault()
                return LeaseLost()
            if not trial.events:
                return None
            event = trial.events.popleft()
            if isinstance(event, Reported):
                trial.taken_step = event.report.step
            if isinstance(event, LAST_EVENTS):
                self._drop_lease(trial)
            return event

    def renew_lease(self, lease: int) -> bool:
        """Say that the trial is alive; False if its lease is lost."""
        with self._changed:
            trial = self._open.get(lease)
            if trial is not None:
                trial.last_heard_s = time.monotonic()
            return trial is not None and not self._is_closed

    def leave(self, lease: int) -> None:
        """Give the slot back; once this returns, the pack writes no more to the trial's folder."""
        with self._changed:
            trial = self._open.get(lease)
            if trial is not None and not trial.has_ended:
                self._left_s.append(time.monotonic())
        if trial is not None:
            self._end_lease(trial)

    def evict(self, trial_id: str) -> int:
        """Take the slot back from a process of the trial that has died, as if it had left; the
        slots that other trials leave it."""
        with self._changed:
            trials = self._list_leases(trial_id)
        for trial in trials:
            self._end_lease(trial)
        return self.count_free_slots(trial_id)

    def decide(self, step: int, should_continue: Mapping[str, bool]) -> None:
        """What the sweep has decided about trials that reported at a step; others are no matter.

        Those that do not continue free their slots, before their processes know, and nothing of
        them is written from now on. The processes say so too, each when it has heard it; what is
        decided about many at once would wait for the slowest of them.
        """
        with self._changed:
            for trial in self._open.values():
                decision = should_continue.get(trial.trial_id)
                if decision is True:
                    trial.decided_step = max(trial.decided_step, step)
                elif decision is False:
                    self.post_event(trial, Stopped())
            self._changed.notify_all()

    def close(self, fault: Exception | None = None) -> None:
        """Let the loop end at its next step. Events that have happened can still be taken; then
        trials are told that their leases are lost, or the fault that the loop has ended of."""
        with self._changed:
            self._is_closed = True
            self._fault = self._fault or fault
            self._changed.notify_all()

    def list_waiting(self) -> list[PackedTrial]:
        """Trials without a slot, in order of arrival."""
        with self._changed:
            trials = self._open.values()
            return [trial for trial in trials if trial.slot is None and not trial.has_ended]

    def drop_silent_leases(self) -> None:
        """End the leases of trials that were not heard of in time."""
        with self._changed:
            for trial in list(self._open.values()):
                if self._is_silent(trial):
                    self._drop_lease(trial)

    def post_event(self, trial: PackedTrial, event: Event) -> None:
        """Tell a trial what happened; after its end nothing more does."""
        with self._changed:
            if trial.has_ended:
                return
            trial.events.append(event)
            trial.has_ended = isinstance(event, LAST_EVENTS)
            if isinstance(event, Reported):
                trial.reported_step = event.report.step
            self._changed.notify_all()

    def wait_for_change(self, timeout_s: float) -> None:
        """Until something changes."""
        with self._changed:
            if not self._is_closed:
                self._changed.wait(timeout_s)

    def raise_if_preempted(self) -> None:
        """Leave what takes long, since all trials are to be saved now.

        Raises:
            PackPreempted: the pack is.
        """
        if self.preempted:
            raise self.preempted

    def wait_for_decisions(self, trials: Iterable[PackedTrial]) -> None:
        """Until these trials are known to continue after their reports, or are gone, or
        decision_wait_s are over."""
        deadline_s = time.monotonic() + self._decision_wait_s
        with self._changed:
            while late := [trial.trial_id for trial in trials if not trial.is_decided]:
                left_s = deadline_s - time.monotonic()
                if self._is_closed or self.preempted:
                    return
                if left_s <= 0:
                    names = ", ".join(late)
                    logger.warning("no decision after %g s: %s", self._decision_wait_s, names)
                    return
                self._changed.wait(min(left_s, _SILENCE_CHECK_S))
                self.drop_silent_leases()

    def _is_silent(self, trial: PackedTrial) -> bool:
        is_late = trial.last_heard_s < time.monotonic() - self._timeout_s
        return trial.num_listeners == 0 and is_late

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _list_leases(self, trial_id: str) -> list[PackedTrial]:
        return [trial for trial in self._open.values() if trial.trial_id == trial_id]

    def _end_lease(self, trial: PackedTrial) -> None:
        with self._changed:
            self._drop_lease(trial)
        with trial.folder_lock:  # what is being written now ends first
            pass

    def _drop_lease(self, trial: PackedTrial) -> None:
        trial.is_open = False
        self._open.pop(trial.lease, None)
        self._changed.notify_all()
