"""How a trial's process, which loads no torch, trains in one of the sweep's packs."""

import contextlib
import functools
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from trainables.config import TrialConfig, TrialReport
from trainables.errors import SweepAborted, TrialFailed, get_first_line
from trainables.packing.service.events import (
    Aborted,
    Event,
    Failed,
    Finished,
    LeaseLost,
    LoadFault,
    PackFault,
    PackLost,
    PackPreempted,
    Presence,
    Reported,
    Stopped,
)

RENEW_INTERVAL_S = 2.0
EVENT_WAIT_S = 10.0
"""How long one question for the next event waits for it."""
ANSWER_WAIT_S = 2.0
"""How long a pack is waited for when trials look for a slot."""
POLL_INTERVAL_S = 0.5
"""Between two looks for a slot; how long a look for an emptier pack takes at most."""
SETTLED_S = 3.0
"""A pack that somebody has come to within so many seconds may still be filling up."""

PACK_PREFIX = "pack-"
"""Begins the names by which Ray knows a sweep's packs; each driver has a namespace of its own."""

Unanswered = dict[ActorHandle, ray.ObjectRef[Any]]
"""Questions to packs that have not answered them in time, such as those that wait for a GPU."""

_get_actor = functools.cache(ray.get_actor)
"""Gives one handle a pack, so that handles can be compared."""


def find_packs() -> list[ActorHandle]:
    """The packs that the sweep has by now, the oldest first."""
    names = [name for name in ray.util.list_named_actors() if name.startswith(PACK_PREFIX)]
    packs = []
    for name in sorted(names, key=lambda name: (len(name), name)):
        with contextlib.suppress(ValueError):  # it has died meanwhile
            packs.append(_get_actor(name))
    return packs


def train(
    trial: TrialConfig,
    list_packs: Callable[[], Sequence[ActorHandle]],
    report: Callable[[TrialReport], None],
    max_failures: int,
) -> None:
    """Train one trial in any of the packs, reporting at every rung.

    A trial whose pack dies, or is much fuller than another, joins again, from its last report; it
    waits as long as there is no pack. report may raise SystemExit; the slot is given back before it
    leaves this function.

    This is the only place that counts a trial's lost packs; Ray Tune counts the lost processes.

    Args:
        list_packs: gives the PackActors of its sweep at the moment.
        report: blocks until the sweep has decided.
        max_failures: times that a pack in which it trains may be lost between two reports.

    Raises:
        TrialFailed: the trial cannot go on, or no pack lives long enough.
        SweepAborted: nothing can go on.
    """
    last_step = num_lost = 0
    unanswered: Unanswered = {}

    def forward(made: TrialReport) -> None:
        """A report that was decided already says only where the trial resumes."""
        nonlocal last_step, num_lost
        if made.step > last_step:
            last_step, num_lost = made.step, 0
            report(made)

    has_ended = False
    while not has_ended:
        pack, lease = _join(trial, list_packs, unanswered)
        try:
            with _hold_lease(pack, lease):
                has_ended = _forward_events(trial, pack, lease, list_packs, unanswered, forward)
        except (LoadFault, PackPreempted):
            continue
        except (PackLost, RayActorError) as lost:
            num_lost += 1
            if num_lost > max_failures:
                reason = f"its pack was lost {num_lost} times without a report"
                raise TrialFailed(f"{reason}: {get_first_line(lost)}") from None


def _forward_events(
    trial: TrialConfig,
    pack: ActorHandle,
    lease: int,
    list_packs: Callable[[], Sequence[ActorHandle]],
    unanswered: Unanswered,
    forward: Callable[[TrialReport], None],
) -> bool:
    """Forward what the pack reports until the trial has ended; False if it leaves for another pack.

    Raises:
        PackLost: the pack has ended, or has given the slot to another.
    """
    take_event = pack.take_event.options(concurrency_group="polls")
    while True:
        event: Event | None = _get_answer(take_event.remote(lease, EVENT_WAIT_S))
        match event:
            case Reported(report):
                forward(report)
                is_last = report.step >= trial.settings.max_steps
                if not is_last and _should_move(trial.trial_id, pack, list_packs(), unanswered):
                    _get_answer(pack.leave.remote(lease))  # waits until nothing is written any more
                    return False
            case Failed(reason):
                raise TrialFailed(reason)
            case Aborted(error, fix):
                raise SweepAborted(error, fix)
            case LeaseLost():
                raise PackLost("the pack had not heard of the trial in time")
            case Finished() | Stopped():
                return True


def _ask_packs(
    packs: Sequence[ActorHandle],
    unanswered: Unanswered,
    ask: Callable[[ActorHandle], ray.ObjectRef[Any]],
    timeout_s: float,
) -> dict[ActorHandle, ray.ObjectRef[Any]]:
    """Answers that come in time; a pack that owes one is not asked again before."""
    if unanswered:
        answered, _ = ray.wait(list(unanswered.values()), num_returns=len(unanswered), timeout=0)
        for pack in [pack for pack in unanswered if unanswered[pack] in answered]:
            del unanswered[pack]
    asked = {pack: ask(pack) for pack in packs if pack not in unanswered}
    if not asked:
        return {}
    answered, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=timeout_s)
    unanswered.update({pack: asked[pack] for pack in asked if asked[pack] not in answered})
    return {pack: asked[pack] for pack in asked if pack not in unanswered}


def _should_move(
    trial_id: str, own: ActorHandle, packs: Sequence[ActorHandle], unanswered: Unanswered
) -> bool:
    """Whether the trial shall continue in an emptier pack, of those that answer at once."""
    if len(packs) < 2:
        return False
    presence: dict[ActorHandle, Presence] = {}
    answers = _ask_packs(
        packs, unanswered, lambda pack: pack.get_presence.remote(), POLL_INTERVAL_S
    )
    for pack, answer in answers.items():
        with contextlib.suppress(RayTaskError, RayActorError):
            presence[pack] = ray.get(answer)
    mine = presence.pop(own, None)
    return mine is not None and should_move(trial_id, mine, list(presence.values()))


def should_move(trial_id: str, own: Presence, others: Sequence[Presence]) -> bool:
    """Whether a trial that stands at a report shall continue in another pack, so that no GPU stands
    idle beside a full one.

    Packs fill up evenly as long as new trials come. Towards the end of a search none do, and chance
    decides whose trials continue: of two packs with 64 trials, one trained 14 while the other had
    none (192 trials of an 18M-parameter model on two H200s).

    The younger half of those move by which their pack has more than the emptiest: all who report at
    a moment are told the same, also after the first have left, and together they do not make the
    emptier pack the fuller one. Nobody moves for less than half of the company, since who comes
    has to be let in.
    """
    with_room = [other for other in others if len(other.trial_ids) < other.num_slots]
    if not with_room:
        return False
    emptiest = min(with_room, key=lambda presence: len(presence.trial_ids))
    num_own, num_there = len(own.trial_ids) + own.num_moving, len(emptiest.trial_ids)
    if num_own < 2 * num_there + 2 or emptiest.settled_s < SETTLED_S:
        return False
    num_moving = min((num_own - num_there) // 2, emptiest.num_slots - num_there)
    num_staying = num_own - num_moving
    return trial_id in own.trial_ids[num_staying:]


def _join(
    trial: TrialConfig, list_packs: Callable[[], Sequence[ActorHandle]], unanswered: Unanswered
) -> tuple[ActorHandle, int]:
    """The pack that has let the trial in, and its lease; waits as long as none does.

    A pack lets in one of those that look at the same moment; the others look again.
    """
    while True:
        packs = list_packs()
        # Each trial takes equal packs in an order of its own, so that few of those that look at the
        # same moment are refused.
        first = zlib.crc32(trial.trial_id.encode()) % max(1, len(packs))
        in_turn = [*packs[first:], *packs[:first]]
        pack, num_free = _find_emptiest_pack(trial.trial_id, in_turn, unanswered)
        if pack is None:
            time.sleep(POLL_INTERVAL_S)
            continue
        with contextlib.suppress(PackLost, RayActorError):  # it has just ended
            lease: int | None = _get_answer(pack.try_join.remote(trial, num_free))
            if lease is not None:
                return pack, lease


def _find_emptiest_pack(
    trial_id: str, packs: Sequence[ActorHandle], unanswered: Unanswered
) -> tuple[ActorHandle | None, int]:
    """The pack with most free slots, and how many it must have still to let the trial in; None if
    none of those that answer has any, also while packs start.

    A process of the trial that died may have left a lease in any of the packs, which would keep
    writing to the trial's folder: the question ends it. Where a pack has kept the trial waiting,
    what the others have told is old, and any slot will do.
    """
    answers = _ask_packs(packs, unanswered, lambda pack: pack.evict.remote(trial_id), ANSWER_WAIT_S)
    num_free: dict[ActorHandle, int] = {}
    for pack, answer in answers.items():
        with contextlib.suppress(PackLost, RayActorError):  # whoever started it starts another
            num_free[pack] = _get_answer(answer)
    freest = max(num_free, key=lambda pack: num_free[pack], default=None)
    if freest is None or num_free[freest] <= 0:
        return None, 0
    return freest, 1 if len(answers) < len(packs) else num_free[freest]


@contextlib.contextmanager
def _hold_lease(pack: ActorHandle, lease: int) -> Iterator[None]:
    """Keeps the lease however long a report takes, and gives it back if anything is raised."""
    is_over = threading.Event()

    def renew() -> None:
        with contextlib.suppress(RayActorError):  # who waits for the next event is told why
            while not is_over.wait(RENEW_INTERVAL_S) and ray.get(pack.renew_lease.remote(lease)):
                pass

    threading.Thread(target=renew, daemon=True).start()
    try:
        yield
    except BaseException:  # SystemExit too, with which a stopped trial leaves
        with contextlib.suppress(RayActorError, GetTimeoutError):
            ray.get(pack.leave.remote(lease), timeout=ANSWER_WAIT_S)
        raise
    finally:
        is_over.set()


def _get_answer(answer: Any) -> Any:
    """What a pack answers, or the PackFault or SweepAborted that it raised.

    Ray raises an error of a class of its own, whose text is a whole traceback.
    """
    try:
        return ray.get(answer)
    except RayTaskError as raised:
        if isinstance(raised.cause, SweepAborted | PackFault):
            raise raised.cause from None
        raise
