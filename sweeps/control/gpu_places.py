"""The GPUs of a cluster on which packs may start: those that are checked and do not fail."""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from threading import Thread

import ray

from cluster.check import name_node
from cluster.connect import list_draining_nodes
from sweeps.records.redact import join_lines
from trainables.packing.service.actor import PACK_CPUS

logger = logging.getLogger(__name__)

MAX_START_FAILURES = 3
"""Packs in a row that cannot start on a node, after which one GPU of it is left alone."""
FIRST_WAIT_S, MAX_WAIT_S = 10.0, 600.0
"""GPUs that are waited for are told after the first, then after three times as long each time, but
never less often than the last; so are nodes asked again that cannot be used."""


UNITS = {"GPU": "GPU", "CPU": "CPU core"}
"""By Ray's names of them."""
IN_USE = "in use by other jobs, or a process is slow to start"


class Waits:
    """Says when a wait is to be told that lasts."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._next_s = FIRST_WAIT_S

    def is_to_be_told(self, num_waiting: int, now_s: float) -> bool:
        """Whether now, while so many wait."""
        if not num_waiting:
            self._since_s, self._next_s = None, FIRST_WAIT_S
            return False
        self._since_s = self._since_s or now_s
        if now_s - self._since_s < self._next_s:
            return False
        self._next_s += min(2 * self._next_s, MAX_WAIT_S)
        return True


def find_short(
    num_waiting: int, needs: Mapping[str, float], *, has_any: bool = True
) -> tuple[int, str]:
    """How many of those that wait are not only starting, and what they lack most.

    Args:
        needs: of each, by Ray's names.
        has_any: whether there is any that they could use.
    """
    free = ray.available_resources() if has_any else {}
    return max(
        (num_waiting - int(free.get(kind, 0) / need), kind) for kind, need in needs.items() if need
    )


@dataclass(kw_only=True)
class _LateNode:
    """A node that had not answered when all were checked, or was not there."""

    name: str
    is_usable: bool = False
    fault: str = ""
    """Why it is not, as told last."""
    next_check_s: float = 0.0
    wait_s: float
    """Until the check after that."""


class GpuPlaces:
    """Counts the GPUs on which packs may start, or nodes where packs need none.

    Args:
        has_gpu: whether a pack needs a GPU.
        find_fault: says of a node that joins what keeps packs from it, "" if nothing does, which
            takes a while; None where none can join.
        is_usable: what was found by Ray's ids of nodes that are not to be checked.
    """

    def __init__(
        self,
        *,
        has_gpu: bool,
        find_fault: Callable[[str], str] | None = None,
        is_usable: Mapping[str, bool] | None = None,
    ) -> None:
        self.resource = "GPU" if has_gpu else "CPU"
        self.num = 0
        """As counted last."""
        self.draining: Collection[str] = ()
        """Ray's ids of nodes that are about to leave the cluster."""
        self.avoided: list[str] = []
        """Ray's ids of nodes with GPUs, on none of which a pack may start."""
        self.has_failed = False
        """Whether packs could not start on all GPUs of one of them."""
        self._find_fault = find_fault
        self._is_usable = is_usable or {}
        self._late: dict[str, _LateNode] = {}
        self._failures: Counter[str] = Counter()
        """Packs in a row that could not start, by node."""
        self._waits = Waits()

    def count(self) -> None:
        """Looks which nodes there are."""
        self.num, self.avoided, self.has_failed = 0, [], False
        self.draining = list_draining_nodes()
        for node in ray.nodes():
            node_id, num = node["NodeID"], int(node["Resources"].get(self.resource, 0))
            if not node["Alive"] or node_id in self.draining or num == 0:
                continue
            num = num if self.resource == "GPU" else 1
            is_usable = self.is_usable(node_id)
            left = max(0, num - self._failures[node_id] // MAX_START_FAILURES) * is_usable
            self.num += left
            if not left:
                self.avoided.append(node_id)
                self.has_failed |= is_usable

    def is_usable(self, node_id: str) -> bool:
        """Whether a node has been checked and found good. The check of one that is new begins, and
        so does that of one that was not good, which may still have been starting, once in a while.
        """
        if self._find_fault is None or node_id in self._is_usable:
            return self._is_usable.get(node_id, True)
        if node_id not in self._late:
            names = {node["NodeID"]: name_node(node) for node in ray.nodes()}
            self._late[node_id] = _LateNode(name=names[node_id], wait_s=FIRST_WAIT_S)
        late = self._late[node_id]
        if time.monotonic() >= late.next_check_s:
            late.next_check_s = math.inf
            Thread(target=_check_node, args=(self._find_fault, node_id, late), daemon=True).start()
        return late.is_usable

    def add_failure(self, node_ids: Iterable[str], *, is_final: bool) -> None:
        """A pack could not start on one of these nodes, and counts for all of them.

        Args:
            is_final: whether no pack is to be tried there again.
        """
        for node_id in node_ids:
            self._failures[node_id] += MAX_START_FAILURES if is_final else 1
        self.count()

    def forget_failures(self, node_id: str) -> None:
        """A pack has started on a node."""
        del self._failures[node_id]

    def tell_waits(self, num_waiting: int, num_packs: int, now_s: float) -> None:
        """Says which GPUs packs wait for, if they have for some time."""
        if not self._waits.is_to_be_told(num_waiting, now_s):
            return
        needs = {self.resource: 1.0} | {"CPU": PACK_CPUS}
        num_short, kind = find_short(num_waiting, needs, has_any=self.num > 0)
        if num_short > 0:
            of = f"{num_short} of {num_packs} " if num_packs > 1 else "a "
            what = UNITS[kind] + "s" * (num_packs > 1)
            if self.num:
                why = IN_USE
            elif self.has_failed:
                why = "packs cannot start on those that there are"
            else:
                why = "no node has one now" if not self.avoided else "no node with one is checked"
            logger.warning("waiting for %s%s: %s", of, what, why)


def _check_node(find_fault: Callable[[str], str], node_id: str, late: _LateNode) -> None:
    try:
        fault = find_fault(node_id)
    except Exception as failed:  # nobody else hears of a thread's
        fault = f"its check failed: {join_lines(str(failed)) or type(failed).__name__}"
    late.is_usable = not fault
    if not fault or not ray.is_initialized():  # the sweep has ended meanwhile
        return
    if fault != late.fault:
        logger.warning(
            "node %s is not used, and asked again in %.0f s: %s", late.name, late.wait_s, fault
        )
    late.fault = fault
    late.next_check_s = time.monotonic() + late.wait_s
    late.wait_s = min(3 * late.wait_s, MAX_WAIT_S)
