"""Packs as Ray actors, one a GPU."""

import contextlib
import fcntl
import os
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray.actor import ActorHandle

from trainables.config import Hyperparameters, TrainingSettings, TrialConfig
from trainables.errors import SweepAborted
from trainables.imports import COMPILES_NOTHING, gc_disabled
from trainables.packing.service.events import (
    Event,
    LeaseLost,
    Reported,
)
from trainables.packing.service.ledger import Ledger, new_path, write_ledger
from trainables.packing.service.rebalance import Presence
from trainables.packing.sizing.capacity import Capacity, cpu_threads
from trainables.packing.sizing.pace import Pace

if TYPE_CHECKING:  # loads torch and the tasks, which a trial's process does without
    from trainables.metrics.eval_result import EvalResult
    from trainables.packing.service.host import PackHost

LEASE_TIMEOUT_S = 30.0
FAULT_S = 0.5
"""How long a loop that dies may take to say why."""
FAREWELL_S = 2.0
"""From a pack's fault to its process's end: its trials hear the reason."""
LEDGER_S = 1.0
"""Between two writings of a pack's ledger: what a kill may cost of its figures."""
LOCK_NAME = ".packs.lock"
"""In the checkpoints' folder: locked, and shared, by each pack whose process lives."""


class PackFault(Exception):
    """The loop of a pack ended, and its process is about to; the message says why."""


class PackActor:
    """A PackHost behind Ray: its methods are called from threads of Ray's, its loop has its own.

    The base loads from the start. When the loop dies the process ends, so that Ray starts it
    again.

    Args:
        settings: of every trial.
        capacity: sizes of the pack.
        checkpoints: absolute folder that holds one folder a trial.
        lease_timeout_s: how long a trial may be silent before its slot is given to another.
        probed: see PackHost.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        capacity: Capacity,
        checkpoints: Path,
        lease_timeout_s: float = LEASE_TIMEOUT_S,
        probed: Sequence[Hyperparameters] = (),
    ) -> None:
        since_s = time.monotonic()  # loading torch is the pack's time too
        host_class = load_host()
        self._lock = (checkpoints / LOCK_NAME).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        if probed and ray.get_runtime_context().was_current_actor_reconstructed:
            probed = ()  # the sweep knows its pace, and its trials wait
        self._host = host_class(settings, capacity, lease_timeout_s, probed=probed, since_s=since_s)
        self._ledger_path = new_path(checkpoints)
        self._lease_timeout_s = lease_timeout_s
        self._num_slots = capacity.num_slots
        self._heard_s: dict[int, tuple[str, float]] = {}
        self._last_came_s = since_s
        self._joining = threading.Lock()
        self._fault: Exception | None = None
        self._has_ended = threading.Event()
        threading.Thread(target=self._run, name="pack", daemon=True).start()
        threading.Thread(target=self._keep_ledger, name="ledger", daemon=True).start()

    def num_free(self, trial_id: str) -> int:
        """Slots that no other living trial waits for or trains in; below 0 if more wait than fit.

        Whoever holds the trial's lease is evicted: a process that has died.
        """
        self._check()
        self._host.evict(trial_id)
        return self._num_left_by_others(trial_id)

    def join(self, trial: TrialConfig, num_free: int = 1) -> int | None:
        """See PackHost.join; None if fewer slots are free by now.

        Trials that look for a slot at the same moment are told the same numbers. They would fill
        one pack and leave another empty, or, where each takes any of those that are equal, share
        them as chance has it: 12 runs of finals were 7 on one GPU and 5 on the other.

        Args:
            num_free: what the pack has told the trial, at least 1.
        """
        self._check()
        with self._joining:
            if self._num_left_by_others(trial.trial_id) < num_free:
                return None
            lease = self._host.join(trial)
            self._last_came_s = time.monotonic()
            self._heard_s[lease] = trial.trial_id, self._last_came_s
        return lease

    def presence(self) -> Presence:
        """Who waits or trains here."""
        self._check()
        return Presence(tuple(self._present()), time.monotonic() - self._last_came_s)

    def _num_left_by_others(self, trial_id: str) -> int:
        return self._num_slots - sum(other != trial_id for other in self._present())

    def _present(self) -> list[str]:
        """Trials that were heard of in time, the oldest first."""
        limit_s = time.monotonic() - self._lease_timeout_s
        heard = sorted(self._heard_s.items())
        return [trial_id for _, (trial_id, heard_s) in heard if heard_s > limit_s]

    def next_event(self, lease: int, timeout_s: float) -> Event | None:
        """See PackHost.next_event; raises PackFault, or what aborts the sweep, if the loop died."""
        self._hear(lease)
        event = self._host.next_event(lease, timeout_s)
        if isinstance(event, LeaseLost):
            self._has_ended.wait(FAULT_S)  # a loop that dies ends all leases first
            self._check()
        if event is None or isinstance(event, Reported):
            self._hear(lease)
        else:
            self._heard_s.pop(lease, None)
        return event

    def renew(self, lease: int) -> bool:
        """See PackHost.renew."""
        self._hear(lease)
        return self._host.renew(lease)

    def leave(self, lease: int) -> None:
        """See PackHost.leave."""
        self._heard_s.pop(lease, None)
        self._host.leave(lease)

    def final_scores(self, adapters: Mapping[str, Path], has_base: bool) -> dict[str, "EvalResult"]:
        """See PackHost.final_scores; raises what made it fail."""
        self._check()
        return self._host.final_scores(adapters, has_base=has_base).result()

    def ledger(self) -> Ledger:
        """See PackHost.ledger; it is then on the disk too."""
        found = self._host.ledger()
        with contextlib.suppress(OSError):  # a full disk stops trials, not this
            write_ledger(found, self._ledger_path)
        return found

    def pace(self) -> Pace | None:
        """See PackHost.pace; waits until the base is there, raises what made the pack end."""
        try:
            return self._host.pace.result()
        except RuntimeError:
            self._has_ended.wait(FAULT_S)
            self._check()
            raise

    def decide(self, step: int, goes_on: Mapping[str, bool]) -> None:
        """See PackHost.decide; the slots of stopped trials are free before their processes know."""
        self._host.decide(step, goes_on)
        for lease, (trial_id, _) in list(self._heard_s.items()):
            if goes_on.get(trial_id) is False:
                self._heard_s.pop(lease, None)

    def _hear(self, lease: int) -> None:
        heard = self._heard_s.get(lease)
        if heard is not None:
            self._heard_s[lease] = heard[0], time.monotonic()

    def _keep_ledger(self) -> None:
        """On disk, for whoever adds up the sweep's time after this process has been killed."""
        while True:
            self.ledger()
            if self._has_ended.wait(LEDGER_S):
                return

    def _run(self) -> None:
        try:
            self._host.run()
            self._fault = PackFault(f"the loop of process {os.getpid()} ended")
        except SweepAborted as aborted:
            self._fault = aborted
        except BaseException as error:  # whatever it is, the process ends of it
            traceback.print_exc()
            self._fault = self._as_fault(f"{type(error).__name__}: {error}")
        self._has_ended.set()
        time.sleep(FAREWELL_S)
        os._exit(1)

    def _as_fault(self, reason: str) -> Exception:
        """A pack that cannot even load the first time will not the next time either."""
        is_first = not ray.get_runtime_context().was_current_actor_reconstructed
        if is_first and not self._host.has_loaded:
            return SweepAborted(
                f"a pack cannot start: {reason}",
                "see its traceback in Ray's logs (worker-*.err); --engine solo needs no packs",
            )
        first_line, *_ = reason.splitlines()
        return PackFault(f"in process {os.getpid()}, {first_line}")

    def _check(self) -> None:
        if self._fault is not None:
            raise self._fault


def load_host() -> "type[PackHost]":
    """PackHost with torch, in a process that compiles nothing.

    Otherwise bitsandbytes, which wraps what a CPU may run in torch.compile, loads inductor at its
    import: a second.
    """
    os.environ |= COMPILES_NOTHING
    with gc_disabled():
        from trainables.packing.service.host import PackHost

    return PackHost


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
    num_polls = 2 * capacity.num_slots + 8  # what a trial asked before it died waits for POLL_S
    actor_class = ray.remote(concurrency_groups={"polls": num_polls})(PackActor)
    return actor_class.options(
        num_cpus=1, num_gpus=1 if has_gpu else 0, max_restarts=-1, max_concurrency=8,
        runtime_env={"env_vars": {} if has_gpu else cpu_threads()},
    ).remote(settings, capacity, checkpoints, lease_timeout_s, probed)  # fmt: skip
