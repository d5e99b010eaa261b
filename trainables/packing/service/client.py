"""How a trial's process, which loads no torch, trains in one of the sweep's packs."""

import contextlib
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError, RayTaskError

from trainables.config import TrialConfig, TrialReport
from trainables.errors import SweepAborted, TrialFailed
from trainables.packing.service.actor import PackFault
from trainables.packing.service.events import (
    Aborted,
    Event,
    Failed,
    Finished,
    LeaseLost,
    Reported,
    Stopped,
)
from trainables.packing.service.rebalance import Presence, is_to_move

RENEW_S = 2.0
POLL_S = 10.0
"""How long one question for the next event waits for it."""
ANSWER_S = 2.0
"""How long a pack is waited for when trials look for a slot."""
LOOK_S = 0.5
"""Between two looks for a slot; how long a look for an emptier pack takes at most."""
MOVED = "it goes on in an emptier pack"
"""Why a trial has left a pack that was not lost."""


def train(
    trial: TrialConfig,
    actors: Sequence[ActorHandle],
    report: Callable[[TrialReport], None],
    max_failures: int,
) -> None:
    """Train one trial in any of the packs, reporting at every rung.

    A trial whose pack dies, or is much fuller than another, joins again, from its last report.
    report may raise SystemExit; the slot is given back before it leaves this function.

    Args:
        trial: what to train.
        actors: PackActors of its sweep.
        report: blocks until the sweep has decided.
        max_failures: times that a pack may be lost between two reports.

    Raises:
        TrialFailed: the trial cannot go on, or no pack lives long enough.
        SweepAborted: nothing can go on.
    """
    last_step = num_lost = 0
    faults: set[str] = set()

    def forward(made: TrialReport) -> None:
        """A report that was decided already says only where the trial goes on."""
        nonlocal last_step, num_lost
        if made.step > last_step:
            last_step, num_lost = made.step, 0
            report(made)

    while (lost := _stay(trial, actors, forward, faults)) is not None:
        num_lost += lost != MOVED
        if num_lost > max_failures:
            raise TrialFailed(f"its pack was lost {num_lost} times without a report: {lost}")


def _stay(
    trial: TrialConfig,
    actors: Sequence[ActorHandle],
    report: Callable[[TrialReport], None],
    faults: set[str],
) -> str | None:
    """Join a pack and forward what it reports; why the lease was lost, MOVED, or None at the end.

    Args:
        faults: of packs, as far as the trial has met them; one that is met again is no new loss.
    """
    try:
        actor, lease = _joined(trial, actors, faults)
        with _leased(actor, lease):
            while True:
                poll = actor.next_event.options(concurrency_group="polls")
                event: Event | None = ray.get(poll.remote(lease, POLL_S))
                if isinstance(event, Reported):
                    report(event.report)
                    is_last = event.report.step >= trial.settings.max_steps
                    if not is_last and _has_moved(trial.trial_id, lease, actor, actors):
                        return MOVED
                elif isinstance(event, LeaseLost):
                    return "the pack had not heard of the trial in time"
                elif isinstance(event, Failed):
                    raise TrialFailed(event.reason)
                elif isinstance(event, Aborted):
                    raise SweepAborted(event.error, event.fix)
                elif isinstance(event, Finished | Stopped):
                    return None
    except RayTaskError as raised:  # also a PackFault, whose text is then a whole traceback
        faults.add(str(_fault(raised)))
        return str(_fault(raised))
    except PackFault as fault:
        return str(fault)
    except RayActorError as died:
        return _first_line(died)


def _has_moved(trial_id: str, lease: int, own: ActorHandle, actors: Sequence[ActorHandle]) -> bool:
    """Whether the trial has left its pack for an emptier one, as moves.is_to_move says; packs that
    do not answer at once, or are gone, do not count."""
    if len(actors) < 2:
        return False
    asked = {one.presence.remote(): one for one in actors}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_S)
    found: dict[ActorHandle, Presence] = {}
    for answer in answered:
        with contextlib.suppress(RayTaskError, RayActorError):
            found[asked[answer]] = ray.get(answer)
    mine = found.pop(own, None)
    if mine is None or not is_to_move(trial_id, mine, list(found.values())):
        return False
    ray.get(own.leave.remote(lease))  # what is being written for the trial ends first
    return True


def _joined(
    trial: TrialConfig, actors: Sequence[ActorHandle], faults: set[str]
) -> tuple[ActorHandle, int]:
    """The pack that has let the trial in, and its lease.

    A pack lets in one of those that look at the same moment; the others look again.
    """
    while True:
        actor, num_free = _freest(actors, trial.trial_id, faults)
        lease: int | None = ray.get(actor.join.remote(trial, num_free))
        if lease is not None:
            return actor, lease


def _freest(
    actors: Sequence[ActorHandle], trial_id: str, faults: set[str]
) -> tuple[ActorHandle, int]:
    """The pack with most free slots for a trial that none of them trains from now on, and how many
    it must have still to let the trial in.

    Waits until one has any, also while packs start. Each trial takes equal packs in an order of its
    own, so that few of those that look at the same moment are refused. Where a pack has kept them
    waiting, what the others have told is old, and any slot will do.

    Raises:
        TrialFailed: every pack is gone for good.
        PackFault: a pack that ends; the trial had not met the fault before.
    """
    turn = zlib.crc32(trial_id.encode()) % len(actors)
    actors = [*actors[turn:], *actors[:turn]]
    while True:
        asked = {actor.num_free.remote(trial_id): actor for actor in actors}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
        found = [(_num_free(ref, faults), asked[ref]) for ref in answered]
        gone = [why for why, _ in found if isinstance(why, str)]
        if len(gone) == len(actors):
            raise TrialFailed(f"no pack is left: {gone[0]}")
        free = [(number, actor) for number, actor in found if isinstance(number, int)]
        number, actor = max(free, key=lambda one: one[0], default=(0, None))
        if actor is not None and number > 0:
            return actor, number if len(answered) == len(actors) else 1
        time.sleep(LOOK_S)


def _num_free(answer: Any, faults: set[str]) -> int | str:
    """The free slots of a pack, 0 while it starts again, or why it is gone for good."""
    try:
        number: int = ray.get(answer)
    except ActorDiedError as gone:
        return _first_line(gone)
    except RayActorError:
        return 0
    except RayTaskError as raised:
        fault = _fault(raised)
        if str(fault) not in faults:
            faults.add(str(fault))
            raise fault from None
        return 0
    return number


@contextlib.contextmanager
def _leased(actor: ActorHandle, lease: int) -> Iterator[None]:
    """Keeps the lease however long a report takes, and gives it back."""
    is_over = threading.Event()
    threading.Thread(target=_renew, args=(actor, lease, is_over), daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
        with contextlib.suppress(RayActorError, GetTimeoutError):
            ray.get(actor.leave.remote(lease), timeout=ANSWER_S)


def _renew(actor: ActorHandle, lease: int, is_over: threading.Event) -> None:
    """Until the lease is over or lost; who waits for the next event is told why."""
    with contextlib.suppress(RayActorError):
        while not is_over.wait(RENEW_S) and ray.get(actor.renew.remote(lease)):
            pass


def _fault(raised: RayTaskError) -> PackFault:
    """The fault that a pack's method raised; anything else is not ours to handle."""
    if isinstance(raised.cause, SweepAborted):
        raise raised.cause from None
    if isinstance(raised.cause, PackFault):
        return raised.cause
    raise raised


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
