"""Packs as Ray actors, one a GPU."""

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import ray
from ray.actor import ActorHandle

from trainables.config import Hyperparameters, TrainingSettings
from trainables.folder_locks import hold_writers_lock
from trainables.packing.service.client import PACK_PREFIX
from trainables.packing.service.events import PackFault, PackStatus, Place
from trainables.packing.service.host import LEASE_TIMEOUT_S, PackHost
from trainables.packing.service.ledger import Ledger, make_ledger_path, write_ledger
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.choose import MOST_SLOTS
from trainables.process import COMPILES_NOTHING, make_cpu_environment

PACK_CPUS = 0.5
"""Cores that Ray reserves for a pack: its trials' processes need some of a node that has one."""
SHUTDOWN_GRACE_S = 2.0
"""From a pack's fault to its process's end: its trials and the sweep hear the reason."""
LEDGER_INTERVAL_S = 1.0
"""Between two writings of a pack's ledger: what a kill may cost of its figures."""
LEDGER_UPLOAD_INTERVAL_S = 10.0
"""LEDGER_INTERVAL_S where the ledger is copied to object storage."""


class PackActor(PackHost):
    """A PackHost that has a process of Ray's to itself, whose threads call its methods.

    The base loads from the start. When the loop ends of an error or hangs, so does the process.

    Args:
        settings, capacity, lease_timeout_s, probed, choose_capacity: as PackHost has them.
        checkpoints: absolute folder that holds one folder a trial.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        capacity: Capacity,
        checkpoints: Path,
        lease_timeout_s: float = LEASE_TIMEOUT_S,
        probed: Sequence[Hyperparameters] = (),
        choose_capacity: Callable[[float], Capacity] | None = None,
    ) -> None:
        os.environ |= COMPILES_NOTHING  # before torch is loaded
        super().__init__(
            settings, capacity, lease_timeout_s, probed=probed, choose_capacity=choose_capacity
        )
        node_id = ray.get_runtime_context().get_node_id()
        gpu = ", ".join(str(number) for number in ray.get_gpu_ids())
        self._place = Place(node_id, ray.util.get_node_ip_address(), gpu)
        self._checkpoints = checkpoints
        self._has_ended = threading.Event()
        signal.signal(signal.SIGTERM, self._handle_sigterm)  # at which Ray would end the process
        # What can fail does so in there, so that the sweep is told why, and on which node.
        threading.Thread(target=self._run_until_fault, name="pack", daemon=True).start()

    def get_status(self) -> PackStatus:
        """How the pack is, whatever its loop does, as long as its process runs."""
        with self._changed:
            is_loaded = self._throughput.done() and self._fault is None
            return PackStatus(
                place=self._place,
                pack_id=self._ledger.pack_id,
                has_imported=self._has_imported.is_set(),
                is_loaded=is_loaded,
                throughput=self._throughput.result() if is_loaded else None,
                num_slots=self._num_slots,
                num_trials=sum(not trial.has_ended for trial in self._open.values()),
                fault=self._fault,
            )

    def read_ledger(self) -> Ledger:
        """Where the loop's time went so far; it is then on the disk too."""
        ledger = replace(super().read_ledger(), node=self._place.node, gpu=self._place.gpu)
        with contextlib.suppress(OSError):  # a full disk stops trials, not this
            write_ledger(ledger, self._ledger_path, self._settings.storage)
        return ledger

    def preempt(self, reason: str, timeout_s: float) -> None:
        """Has the trials leave, see PackHost, and its ledger on the disk too."""
        super().preempt(reason, timeout_s)
        self.read_ledger()

    def _run_until_fault(self) -> None:
        try:
            with hold_writers_lock(self._checkpoints):
                self._ledger_path = make_ledger_path(self._checkpoints)
                threading.Thread(target=self._keep_ledger, name="ledger", daemon=True).start()
                self.run()
        except BaseException as error:  # whatever it is, the process ends of it
            traceback.print_exc()
            self._end_process(self._make_fault(error))
        self._end_process()

    def _keep_ledger(self) -> None:
        """Keeps the ledger on disk, for whoever adds up the sweep's time after this process has
        been killed; ends a process whose loop hangs."""
        while True:
            self.read_ledger()
            overdue = self._ledger.describe_overdue()
            if overdue:
                self._end_process(PackFault(os.getpid(), overdue))
            is_published = self._settings.storage is not None
            interval_s = LEDGER_UPLOAD_INTERVAL_S if is_published else LEDGER_INTERVAL_S
            if self._has_ended.wait(interval_s):
                return

    def _handle_sigterm(self, *_: object) -> None:
        # The thread that a signal interrupts may hold the lock.
        told = ("its process was told to end (SIGTERM)", 0.0)
        threading.Thread(target=self.preempt, args=told, daemon=True).start()

    def _end_process(self, fault: Exception | None = None) -> None:
        self.close(fault)
        self._has_ended.set()
        time.sleep(SHUTDOWN_GRACE_S)
        os._exit(1)


def start_pack(
    settings: TrainingSettings,
    capacity: Capacity,
    checkpoints: Path,
    *,
    number: int,
    has_gpu: bool,
    avoided_nodes: Sequence[str] = (),
    lease_timeout_s: float = LEASE_TIMEOUT_S,
    probed: Sequence[Hyperparameters] = (),
    choose_capacity: Callable[[float], Capacity] | None = None,
) -> ActorHandle:
    """A pack on any GPU of the cluster that is free, or on a CPU.

    Trials' processes find it by its name. One that dies is gone: whoever started it starts another.

    Args:
        number: of the pack, which no other of this driver's has.
        avoided_nodes: Ray's ids of nodes.
    """
    # Polls for events wait in threads of their own, so that they never hold up other calls. What a
    # trial asked before its process died waits too, hence two a slot and some.
    num_polls = 2 * max(capacity.num_slots, MOST_SLOTS if choose_capacity else 0) + 8
    actor_class = ray.remote(concurrency_groups={"polls": num_polls, "status": 1})(PackActor)
    avoided = f"!in({','.join(avoided_nodes)})"
    return actor_class.options(
        name=f"{PACK_PREFIX}{number}",
        num_cpus=PACK_CPUS,
        num_gpus=1 if has_gpu else 0,
        max_concurrency=8,
        scheduling_strategy="SPREAD",  # over nodes, whose cores and disks packs use too
        label_selector={"ray.io/node-id": avoided} if avoided_nodes else None,
        runtime_env={"env_vars": {} if has_gpu else make_cpu_environment()},
    ).remote(settings, capacity, checkpoints, lease_timeout_s, probed, choose_capacity)
