"""The packs of a sweep: Ray actors that live from before its first trial until after its test."""

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError

from sweeps.control.gpu_places import GpuPlaces
from sweeps.cost.allocation import Allocation
from sweeps.records.events import EventLog
from trainables.config import Hyperparameters, TrainingSettings
from trainables.errors import REPEAT, SweepAborted
from trainables.folder_locks import wait_for_writers
from trainables.packing.service.actor import start_pack
from trainables.packing.service.events import LoadFault, PackStatus
from trainables.packing.service.ledger import Ledger, read_ledgers
from trainables.packing.sizing.throughput import Throughput, find_slowest

logger = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 60.0
"""How long packs that end are waited for."""
ANSWER_TIMEOUT_S = 5.0
"""How long the ledgers of packs are waited for."""
SAVE_TIMEOUT_S = 20.0
"""How long packs are waited for that save their trials: clouds leave a process 30 s to end."""
POLL_INTERVAL_S, LOADED_POLL_INTERVAL_S = 0.1, 2.0
"""Between a pack's answer and the next question how it is, while it loads and later."""
HANG_TIMEOUT_S, LOADING_HANG_TIMEOUT_S = 60.0, 300.0
"""A pack that has answered before, and not for so long, hangs: an answer takes milliseconds. While
it loads, a library that comes from a slow disk lets nobody answer."""
COUNT_INTERVAL_S = 2.0
"""Between two looks for the cluster's GPUs."""


@dataclass(eq=False)
class _Pack:
    """A pack as the sweep knows it."""

    actor: ActorHandle
    avoided: Sequence[str] = ()
    """Nodes on which it does not start."""
    asked: ray.ObjectRef[PackStatus] | None = None
    """What it is being asked."""
    status: PackStatus | None = None
    """Its last answer; None while it waits for a GPU and for its process."""
    answered_s: float = 0.0
    silent_s: float = 0.0
    """Since the question, as far as this process ran itself."""

    @property
    def is_loaded(self) -> bool:
        return self.status is not None and self.status.is_loaded


class PackPool:
    """Keeps a pack on every GPU of the cluster that there is, up to a limit. Used by one thread,
    which calls poll often.

    Ray finds a free GPU for a pack, also on a node that joins later. A pack that dies, hangs or
    cannot start is replaced, and all of it is told.

    Args:
        start: starts the pack of a number somewhere but on these nodes; the last says whether it
            measures its throughput.
        most: packs at once at most; 0 where trials train alone.
        places: where packs may start.
        log: of the sweep.
    """

    def __init__(
        self,
        start: Callable[[int, Sequence[str], bool], ActorHandle],
        most: int,
        *,
        places: GpuPlaces,
        log: EventLog,
    ) -> None:
        self._start = start
        self._most = most
        self._places = places
        self._log = log
        self._packs: list[_Pack] = []
        self._num_started = 0
        self._has_loaded = False
        self._polled_s = self._counted_s = -COUNT_INTERVAL_S
        if most:
            self._fit_to_cluster()

    @property
    def actors(self) -> list[ActorHandle]:
        """All packs, also those that wait for a GPU."""
        return [pack.actor for pack in self._packs]

    @property
    def loaded(self) -> list[ActorHandle]:
        """Those that can train."""
        return [pack.actor for pack in self._packs if pack.is_loaded]

    @property
    def num_imported(self) -> int:
        """Packs whose processes have imported what they need."""
        return sum(pack.status is not None and pack.status.has_imported for pack in self._packs)

    @property
    def num_slots(self) -> int:
        """Trials that fit into the packs which have their GPUs."""
        return sum(pack.status.num_slots for pack in self._packs if pack.status is not None)

    @property
    def throughput(self) -> Throughput | None:
        """That of the slowest pack that has measured its own."""
        known = [pack.status.throughput for pack in self._packs if pack.status is not None]
        measured = [throughput for throughput in known if throughput is not None]
        return find_slowest(measured) if measured else None

    def wait(self, is_enough: Callable[[], bool]) -> None:
        """Until there is enough; GPUs that are waited for are told."""
        while not is_enough():
            time.sleep(POLL_INTERVAL_S / 2)
            self.poll()

    def poll(self) -> None:
        """Asks the packs how they are, replaces those that are lost, and follows the cluster.

        Raises:
            SweepAborted: no pack can start on any of the GPUs that there are, or the disk is full.
        """
        now_s = time.monotonic()
        # When this process itself was stopped, packs may be as late as it is.
        passed_s = min(now_s - self._polled_s, 1.0)
        self._polled_s = now_s
        asked = [pack.asked for pack in self._packs if pack.asked is not None]
        answered = ray.wait(asked, num_returns=len(asked), timeout=0)[0] if asked else []
        for pack in list(self._packs):
            interval_s, limit_s = POLL_INTERVAL_S, LOADING_HANG_TIMEOUT_S
            if pack.is_loaded:
                interval_s, limit_s = LOADED_POLL_INTERVAL_S, HANG_TIMEOUT_S
            if pack not in self._packs:  # given up because another was lost
                continue
            if pack.asked in answered:
                self._take_answer(pack, now_s)
            elif pack.asked is not None:
                pack.silent_s += passed_s
                if pack.status is not None and pack.silent_s > limit_s:
                    self._lose_pack(pack, f"it has not answered for {limit_s:.0f} s")
            elif now_s - pack.answered_s >= interval_s:
                self._ask_status(pack)
        if self._most and now_s - self._counted_s >= COUNT_INTERVAL_S:
            self._counted_s = now_s
            self._fit_to_cluster()
            num_waiting = sum(pack.status is None for pack in self._packs)
            self._places.tell_waits(num_waiting, len(self._packs), now_s)
            if not self.loaded:
                self._log.abort_if_full()  # and so none may start on any node

    def decide(
        self, step: int, should_continue: Mapping[str, bool], pack_id: str | None = None
    ) -> None:
        """Tells the pack that made the reports of a step which trials continue; returns at once.

        Where it is not known or gone, all are told: trials send their last report again in another.
        Their processes would say so one by one; a stopped one only when it is handed the next
        trial, and its slot would train for nothing until then.
        """
        packs = {pack.actor: pack.status.pack_id for pack in self._packs if pack.status is not None}
        own = [actor for actor, known_id in packs.items() if known_id == pack_id]
        for actor in own or packs:
            actor.decide.remote(step, should_continue)

    def save_and_end(self, reason: str) -> None:
        """Has all packs save their trials at the next step, and end; waits for them some time."""
        packs = [pack.actor for pack in self._packs if pack.status is not None]
        saving = [actor.preempt.remote(reason, SAVE_TIMEOUT_S) for actor in packs]
        if saving:
            ray.wait(saving, num_returns=len(saving), timeout=SAVE_TIMEOUT_S)
        self.stop()

    def stop(self) -> None:
        """Ends all packs."""
        for pack in self._packs:
            ray.kill(pack.actor)
        self._packs, self._most = [], 0

    def _ask_status(self, pack: _Pack) -> None:
        pack.silent_s = 0.0
        pack.asked = pack.actor.get_status.options(concurrency_group="status").remote()

    def _take_answer(self, pack: _Pack, now_s: float) -> None:
        had_loaded = pack.is_loaded
        assert pack.asked is not None, "it was asked"
        try:
            status = ray.get(pack.asked)
        except RayError as error:
            self._lose_pack(pack, explain_loss(error), error)
            return
        if not self._places.is_usable(status.place.node_id):  # which has just joined
            self._drop_pack(pack)
            self._fit_to_cluster()
            return
        pack.asked, pack.answered_s, pack.status = None, now_s, status
        if status.fault is not None:
            pack.status = status._replace(is_loaded=had_loaded)
            self._lose_pack(pack, str(status.fault), status.fault)
        elif status.is_loaded and not had_loaded:
            self._has_loaded = True
            place = status.place
            self._places.forget_failures(place.node_id)
            self._log.append("pack_started", pack=status.pack_id, node=place.node, gpu=place.gpu)

    def _lose_pack(self, pack: _Pack, reason: str, error: Exception | None = None) -> None:
        """Writes down that a pack is gone, and why.

        Raises:
            SweepAborted: it could not start, and none can on the GPUs that there are.
        """
        self._drop_pack(pack)  # it may still say why it ends, or hang
        status = pack.status
        ip = status.place.node if status else _find_ip(str(error))
        where = str(status.place) if status else f"node {ip}"
        num_trials = status.num_trials if status else 0
        self._log.append(
            "pack_lost",
            pack=status.pack_id if status else "",
            node=ip,
            gpu=status.place.gpu if status else "",
            reason=reason,
            num_trials=num_trials,
        )
        if pack.is_loaded:
            what = "GPU" if self._places.resource == "GPU" else "CPU core"
            wait = f"its {num_trials} trial{'s' * (num_trials != 1)} wait for a {what}"
            logger.warning("a pack was lost (%s): %s: %s", where, wait, reason)
            return
        is_told = isinstance(error, LoadFault) or getattr(error, "actor_init_failed", False)
        # What one GPU tells before any other has been of use, it would tell again.
        is_final = is_told and not self._has_loaded and self._places.num == 1
        nodes = [status.place.node_id] if status else _list_nodes_of(ip)
        self._places.add_failure(nodes, is_final=is_final)
        if self._places.has_failed and not self._places.num:
            what, fix = f"a pack cannot start: {reason}", f"see Ray's logs, {REPEAT}"
            if isinstance(error, LoadFault):
                _, what, fix = error.args
                fix = f"{fix}, {REPEAT}" if self._has_loaded and REPEAT not in fix else fix
            raise SweepAborted(f"{what} ({where})", fix)
        logger.warning("a pack could not start (%s), the next is tried: %s", where, reason)
        self._fit_to_cluster()

    def _fit_to_cluster(self) -> None:
        """Starts packs for GPUs that have none, and gives up waiting for those that have left.

        Packs on nodes that are about to leave hand on their trials.
        """
        places = self._places
        places.count()
        for pack in self._packs:
            if pack.status is not None and pack.status.place.node_id in places.draining:
                pack.actor.preempt.remote("its node is about to leave the cluster", 0.0)
        wanted = max(1, min(self._most, places.num))  # a cluster that grows sees the demand
        waiting = [pack for pack in self._packs if pack.status is None]
        superfluous = waiting[::-1][: max(0, len(self._packs) - wanted)]
        for pack in waiting:
            if pack in superfluous or not set(pack.avoided) <= set(places.avoided):
                self._drop_pack(pack)
        while len(self._packs) < wanted:
            actor = self._start(self._num_started, places.avoided, not self._has_loaded)
            self._add_pack(actor, places.avoided)
            self._num_started += 1

    def _add_pack(self, actor: ActorHandle, avoided: Sequence[str] = ()) -> None:
        self._packs.append(_Pack(actor, avoided))
        self._ask_status(self._packs[-1])

    def _drop_pack(self, pack: _Pack) -> None:
        self._packs.remove(pack)
        ray.kill(pack.actor)


def explain_loss(error: RayError) -> str:
    """Why a pack died, in one line: the constructor's error, or the first sentence of Ray's."""
    *_, last = [line.strip() for line in str(error).splitlines() if line.strip()]
    is_told = isinstance(error, RayActorError) and error.actor_init_failed
    return last if is_told else re.split(r"(?<=\.) ", last)[0]


def _find_ip(text: str) -> str:
    """The address of the node that an error of Ray's names; "?" if it names none."""
    found = re.search(r"\bip[=:] ?([0-9a-fA-F.:]+)", text)
    return found[1] if found else "?"


def _list_nodes_of(ip: str) -> list[str]:
    """Ray's ids of the nodes of an address, or of all, any of which may be the one."""
    return [node["NodeID"] for node in ray.nodes() if ip in ("?", node["NodeManagerAddress"])]


@contextlib.contextmanager
def run_packs(
    allocation: Allocation,
    settings: TrainingSettings,
    checkpoints: Path,
    *,
    has_trials: bool,
    places: GpuPlaces,
    log: EventLog,
    probed: Sequence[Hyperparameters] = (),
) -> Iterator[PackPool]:
    """Packs on as many GPUs as the cluster has at any time, up to the most that are of use.

    None for solo trials, and none where no trial is left to run.

    Processes of an earlier driver are waited for, and these packs in the end, so that nobody else
    writes to the checkpoints' folder or holds the GPUs.

    Args:
        places: where packs may start.
        probed: what the packs' throughput is measured with; see PackHost.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    wait_for_writers(checkpoints, SHUTDOWN_TIMEOUT_S)

    def start(number: int, avoided_nodes: Sequence[str], is_probed: bool) -> ActorHandle:
        return start_pack(
            settings,
            allocation.capacities[-1],
            checkpoints,
            choose_capacity=allocation.choose_pack,
            number=number,
            has_gpu=allocation.num_gpus > 0,
            avoided_nodes=avoided_nodes,
            probed=probed if is_probed else (),
        )

    most = allocation.most_packs if has_trials and allocation.num_packs else 0
    pool = PackPool(start, most, places=places, log=log)
    has_packs = bool(pool.actors)
    try:
        yield pool
    finally:
        pool.stop()
        if has_packs:
            wait_for_writers(checkpoints, SHUTDOWN_TIMEOUT_S)


def collect_ledgers(pool: PackPool, checkpoints: Path, storage: str | None = None) -> list[Ledger]:
    """Where the time of every pack went that ever ran for the sweep, oldest first.

    Those that still answer tell how it is now; of the others counts what they last wrote.
    """
    asked = [actor.read_ledger.remote() for actor in pool.loaded]
    if asked:
        with contextlib.suppress(RayError):
            ray.wait(asked, num_returns=len(asked), timeout=ANSWER_TIMEOUT_S)
    return read_ledgers(checkpoints, storage)
