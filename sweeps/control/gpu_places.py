"""The GPUs of a cluster on which packs may start: those that are checked and do not fail."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from threading import Thread

import ray

from cluster.connect import list_draining_nodes

logger = logging.getLogger(__name__)

MAX_START_FAILURES = 3
"""Packs in a row that cannot start on a node, after which one GPU of it is left alone."""
FIRST_WAIT_S, MAX_WAIT_S = 10.0, 600.0
"""GPUs that are waited for are told after the first, then after three times as long each time, but
never less often than the last."""


class GpuPlaces:
    """Counts the GPUs on which packs may start, or nodes where packs need none.

    Args:
        has_gpu: whether a pack needs a GPU.
        check_node: says of a node that joins whether packs may use it, which takes a while; None
            where none can join.
        is_usable: what was found by Ray's ids of nodes that have been checked.
    """

    def __init__(
        self,
        *,
        has_gpu: bool,
        check_node: Callable[[str], bool] | None = None,
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
        self._check_node = check_node
        self._is_usable = dict(is_usable or {})
        self._failures: Counter[str] = Counter()
        """Packs in a row that could not start, by node."""
        self._waits_since_s: float | None = None
        self._next_wait_s = FIRST_WAIT_S

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
        """Whether a node has been checked and found good; the check of one that is new begins."""
        if self._check_node is None:
            return True
        if node_id not in self._is_usable:
            self._is_usable[node_id] = False
            Thread(target=self._check, args=(self._check_node, node_id), daemon=True).start()
        return self._is_usable[node_id]

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
        if not num_waiting:
            self._waits_since_s, self._next_wait_s = None, FIRST_WAIT_S
            return
        self._waits_since_s = self._waits_since_s or now_s
        if now_s - self._waits_since_s < self._next_wait_s:
            return
        self._next_wait_s += min(2 * self._next_wait_s, MAX_WAIT_S)
        # What has its GPU is only starting.
        free = ray.available_resources() if self.num else {}
        kinds = {self.resource, "CPU"}
        num_short, kind = max((num_waiting - int(free.get(kind, 0)), kind) for kind in kinds)
        if num_short > 0:
            of = f"{num_short} of {num_packs} " if num_packs > 1 else "a "
            what = {"GPU": "GPU", "CPU": "CPU core"}[kind] + "s" * (num_packs > 1)
            if self.num:
                why = "in use by other jobs, or a process is slow to start"
            elif self.has_failed:
                why = "packs cannot start on those that there are"
            else:
                why = "no node has one now" if not self.avoided else "no node with one is checked"
            logger.warning("waiting for %s%s: %s", of, what, why)

    def _check(self, check_node: Callable[[str], bool], node_id: str) -> None:
        self._is_usable[node_id] = check_node(node_id)
