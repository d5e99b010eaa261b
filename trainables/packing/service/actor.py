"""Packs as Ray actors, one a GPU."""

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import ray
from ray.actor import ActorHandle

from trainables.checkpoint import hold_writers_lock
from trainables.config import Hyperparameters, TrainingSettings
from trainables.packing.service.host import LEASE_TIMEOUT_S, PackHost
from trainables.packing.service.ledger import Ledger, new_path, write_ledger
from trainables.packing.sizing.capacity import Capacity
from trainables.process import COMPILES_NOTHING, cpu_threads

SHUTDOWN_GRACE_S = 2.0
"""From a pack's fault to its process's end: its trials hear the reason."""
LEDGER_INTERVAL_S = 1.0
"""Between two writings of a pack's ledger: what a kill may cost of its figures."""


class PackActor(PackHost):
    """A PackHost that has a process of Ray's to itself, whose threads call its methods.

    The base loads from the start. When the loop dies the process ends, so that Ray starts it
    again, with the same arguments.

    Args:
        settings, capacity, lease_timeout_s, probed: as PackHost has them.
        checkpoints: absolute folder that holds one folder a trial.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        capacity: Capacity,
        checkpoints: Path,
        lease_timeout_s: float = LEASE_TIMEOUT_S,
        probed: Sequence[Hyperparameters] = (),
    ) -> None:
        os.environ |= COMPILES_NOTHING  # before torch is loaded
        self._at_end = contextlib.ExitStack()  # it ends with the process
        self._at_end.enter_context(hold_writers_lock(checkpoints))
        is_restarted = ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(
            settings,
            capacity,
            lease_timeout_s,
            probed=()
            if is_restarted
            else probed,  # the sweep knows its throughput, and its trials wait
            is_start_fatal=not is_restarted,
        )
        self._ledger_path = new_path(checkpoints)
        self._has_ended = threading.Event()
        threading.Thread(target=self._run_until_fault, name="pack", daemon=True).start()
        threading.Thread(target=self._keep_ledger, name="ledger", daemon=True).start()

    def ledger(self) -> Ledger:
        """Where the loop's time went so far; it is then on the disk too."""
        ledger = super().ledger()
        with contextlib.suppress(OSError):  # a full disk stops trials, not this
            write_ledger(ledger, self._ledger_path)
        return ledger

    def _keep_ledger(self) -> None:
        """On disk, for whoever adds up the sweep's time after this process has been killed."""
        while True:
            self.ledger()
            if self._has_ended.wait(LEDGER_INTERVAL_S):
                return

    def _run_until_fault(self) -> None:
        try:
            self.run()
        except BaseException:  # whatever it is, the process ends of it
            traceback.print_exc()
        self._has_ended.set()
        time.sleep(SHUTDOWN_GRACE_S)
        os._exit(1)


def start_pack(
    settings: TrainingSettings,
    capacity: Capacity,
    checkpoints: Path,
    *,
    has_gpu: bool,
    lease_timeout_s: float = LEASE_TIMEOUT_S,
    probed: Sequence[Hyperparameters] = (),
) -> ActorHandle:
    """A pack on any GPU of the cluster that is free, or on a CPU; Ray restarts it when it dies."""
    # Polls for events wait in threads of their own, so that they never hold up other calls. What a
    # trial asked before its process died waits too, hence two a slot and some.
    num_polls = 2 * capacity.num_slots + 8
    actor_class = ray.remote(concurrency_groups={"polls": num_polls})(PackActor)
    return actor_class.options(
        num_cpus=1,
        num_gpus=1 if has_gpu else 0,
        max_restarts=-1,
        max_concurrency=8,
        runtime_env={"env_vars": {} if has_gpu else cpu_threads()},
    ).remote(settings, capacity, checkpoints, lease_timeout_s, probed)
