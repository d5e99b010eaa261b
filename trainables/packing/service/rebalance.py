"""When a trial leaves its pack for an emptier one, so that no GPU stands idle beside a full one.

Packs fill up evenly as long as new trials come. Towards the end of a search none do, and chance
decides whose trials continue: of two packs with 64 trials, one trained 14 while the other had none
(192 trials of an 18M-parameter model on two H200s). Standard library only.
"""

from collections.abc import Sequence
from typing import NamedTuple

SETTLED_S = 3.0
"""A pack that somebody has come to within so many seconds may still be filling up."""


class Presence(NamedTuple):
    """Who is in a pack."""

    trial_ids: tuple[str, ...]
    """Trials that wait or train there, the oldest first."""
    settled_s: float
    """Since the last of them came; since the pack began, if none did."""


def should_move(trial_id: str, own: Presence, others: Sequence[Presence]) -> bool:
    """Whether a trial that stands at a report shall continue in another pack.

    The younger half of those by which its pack has more than the emptiest: all who report at a
    moment are told the same, and together they do not make the emptier pack the fuller one. Nobody
    moves for less than half of the company, since who comes has to be let in.

    Args:
        trial_id: who asks.
        own: the trial's pack.
        others: those packs that answer.
    """
    if not others:
        return False
    emptiest = min(others, key=lambda presence: len(presence.trial_ids))
    num_own, num_there = len(own.trial_ids), len(emptiest.trial_ids)
    if num_own < 2 * num_there + 2 or emptiest.settled_s < SETTLED_S:
        return False
    return trial_id in own.trial_ids[-((num_own - num_there) // 2) :]
