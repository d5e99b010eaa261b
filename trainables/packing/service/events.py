"""What passes from a pack to a trial: events, and exceptions. Standard library only, because the
processes of trials load no torch."""

from dataclasses import dataclass
from typing import NamedTuple

from trainables.config import TrialReport
from trainables.packing.sizing.throughput import Throughput


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
    num_moving: int
    """Those that have left for another pack of late, and may not have arrived."""
    settled_s: float
    """Since the last of them came; since the pack began, if none did."""
    num_slots: int
    """Trials that fit into the pack."""


class PackLost(Exception):
    """The trial has lost its slot, and can resume in any pack from its last report."""


class PackFault(PackLost):
    """The loop of a pack has ended, and its process is about to.

    Its args are the process's id and the reason, one line.
    """

    def __str__(self) -> str:
        pid, reason, *_ = self.args
        return f"in process {pid}, {reason}"


class LoadFault(PackFault):
    """A pack could not load, which says nothing against the trials that wait in it.

    Its args are the process's id, the reason, and what to do.
    """


class PackPreempted(PackFault):
    """A pack has ended because its node or its sweep is about to; its trials have been saved."""


class Place(NamedTuple):
    """Where a pack runs."""

    node_id: str
    """Ray's."""
    node: str
    """Its IP address."""
    gpu: str
    """Ray's number of the GPU on that node; empty on a CPU."""

    def __str__(self) -> str:
        return f"node {self.node}" + (f", GPU {self.gpu}" if self.gpu else "")


class PackStatus(NamedTuple):
    """How a pack is."""

    place: Place
    pack_id: str
    has_imported: bool
    """Whether its process has imported what it needs."""
    is_loaded: bool
    """Whether its base is there, and its throughput is known."""
    throughput: Throughput | None
    num_slots: int
    """Trials that fit into it; 0 while it does not know its GPU."""
    num_trials: int
    """Trials that wait or train in it."""
    fault: Exception | None
    """Why it has ended."""
