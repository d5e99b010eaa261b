"""What passes from a pack to a trial: events, and exceptions. Standard library only, because the
processes of trials load no torch."""

from dataclasses import dataclass
from typing import NamedTuple

from trainables.config import TrialReport


@dataclass(frozen=True)
class Reported:
    """The trial stands at a rung, or stood there when it was last seen on disk."""

    report: TrialReport


@dataclass(frozen=True)
class Failed:
    """The trial cannot go on; its neighbours can."""

    reason: str


@dataclass(frozen=True)
class Aborted:
    """Nothing can go on; the fields are those of SweepAborted."""

    error: str
    fix: str


@dataclass(frozen=True)
class Finished:
    """The trial has made all its steps; its last report came before."""


@dataclass(frozen=True)
class Stopped:
    """The sweep has stopped the trial; its slot is given to another."""


@dataclass(frozen=True)
class LeaseLost:
    """The pack does not know the lease, or no longer: join again."""


Event = Reported | Failed | Aborted | Finished | Stopped | LeaseLost
LAST_EVENTS = (Failed, Aborted, Finished, Stopped)
"""After one of these there is nothing to wait for."""


class Presence(NamedTuple):
    """Who is in a pack."""

    trial_ids: tuple[str, ...]
    """Trials that wait or train there, the oldest first."""
    settled_s: float
    """Since the last of them came; since the pack began, if none did."""


class PackLost(Exception):
    """The trial has lost its slot, and can resume in any pack from its last report."""


class PackFault(PackLost):
    """The loop of a pack has ended, and its process is about to.

    Its args are the process's id and the reason, one line. Two of equal args are the same fault,
    met twice.
    """

    def __str__(self) -> str:
        pid, reason = self.args
        return f"in process {pid}, {reason}"
