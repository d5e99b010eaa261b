"""One GPU's pack as a service: trials join by lease from any thread; one thread trains.

It needs no Ray: actor.py makes it a Ray actor, alone.py has it in the trial's own process. Torch is
loaded by a host, not by this module, so that a driver can name the class without it.
"""

import os
import queue
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from trainables.config import Hyperparameters, TrainingSettings, TrialConfig
from trainables.errors import SweepAborted
from trainables.packing.service.events import Event, LeaseLost, PackFault
from trainables.packing.service.ledger import Ledger, LedgerKeeper
from trainables.packing.service.rebalance import Presence
from trainables.packing.service.registry import TrialRegistry
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.throughput import Throughput
from trainables.process import gc_disabled

if TYPE_CHECKING:  # loads torch
    from trainables.metrics.eval_result import EvalResult
    from trainables.packing.service.loop import PackLoop

LEASE_TIMEOUT_S = 30.0


class PackHost:
    """A pack and its loop. All methods but run may be called from any thread.

    Once the loop has ended of an error, what trials and the sweep ask raises a PackFault, or the
    SweepAborted that ended it.

    Args:
        settings: of every trial, apart from its seed.
        capacity: sizes of the pack.
        lease_timeout_s: how long a trial may be silent before its slot is given to another.
        admit_wait_s: how long a trial waits for others at most, so that they enter together; beside
            an empty pack only as long as others come.
        decision_wait_s: how long the pack waits at a rung for a trial that has not yet decided
            about its report before.
        probed: hyperparameters as the sweep's space has them, with which the throughput is
            measured before the first trial enters; none to leave that out.
        is_start_fatal: an error before the base is there aborts the sweep.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        capacity: Capacity,
        lease_timeout_s: float = LEASE_TIMEOUT_S,
        *,
        admit_wait_s: float = 1.0,
        decision_wait_s: float = 10.0,
        probed: Sequence[Hyperparameters] = (),
        is_start_fatal: bool = False,
    ) -> None:
        since_s = monotonic()  # loading torch is the pack's time too
        with gc_disabled():
            from trainables.packing.service.loading import device_name

        self._settings = settings
        self._capacity = capacity
        self._admit_wait_s = admit_wait_s
        self._decision_wait_s = decision_wait_s
        self._probed = probed
        self._is_start_fatal = is_start_fatal
        self._registry = TrialRegistry(capacity.num_slots, lease_timeout_s)
        self._ledger = LedgerKeeper(device_name(), since_s)
        self._tests: queue.SimpleQueue[_FinalTest] = queue.SimpleQueue()
        self._throughput: Future[Throughput | None] = Future()
        self._has_loaded = False
        self._fault: Exception | None = None
        """Why the loop has ended, if an error ended it."""

    def num_free(self, trial_id: str) -> int:
        """Slots that other living trials leave; below 0 if more of them wait than fit."""
        self._raise_fault()
        return self._registry.num_free(trial_id)

    def join(self, trial: TrialConfig) -> int:
        """The lease of a trial, which from now on waits for a slot.

        A lease that the trial already has is lost; the new one resumes from the disk.

        Raises:
            ValueError: the trial is not of this pack's sweep, or its rank is too large.
        """
        self._check_fits(trial)
        return self._registry.join(trial)

    def try_join(self, trial: TrialConfig, num_free: int) -> int | None:
        """Join if the num_free slots that the trial was told of are left; None if they are not."""
        self._check_fits(trial)
        return self._registry.try_join(trial, num_free)

    def next_event(self, lease: int, timeout_s: float) -> Event | None:
        """What happened next to the trial, or None if nothing has within timeout_s.

        Renews the lease, while it waits too. To ask again after a report says that the trial
        continues, as decide does: until then the pack trains it to its next rung at most.
        """
        event = self._registry.next_event(lease, timeout_s)
        if isinstance(event, LeaseLost):
            self._raise_fault()
        return event

    def renew(self, lease: int) -> bool:
        """Keep the lease; False if it is lost."""
        return self._registry.renew(lease)

    def leave(self, lease: int) -> None:
        """Give the slot back; once this returns, the pack writes no more to the trial's folder."""
        self._registry.leave(lease)

    def evict(self, trial_id: str) -> None:
        """Take the slot back from a process of the trial that has died, as if it had left."""
        self._registry.evict(trial_id)

    def presence(self) -> Presence:
        """Who waits or trains here."""
        self._raise_fault()
        return self._registry.presence()

    def decide(self, step: int, should_continue: Mapping[str, bool]) -> None:
        """What the sweep has decided about trials that reported at a step; others are no matter.

        Those that do not continue free their slots, before their processes know, and nothing of
        them is written from now on.
        """
        self._registry.decide(step, should_continue)

    def final_scores(
        self, adapters: Mapping[str, Path], has_base: bool = True
    ) -> "dict[str, EvalResult]":
        """Scores as of trainables.final_test.score; made between two steps, in slots that are free.

        Args:
            adapters: PEFT folders by name.
            has_base: whether the untuned base is scored too.

        Raises:
            RuntimeError: the loop has ended, or has no slot free.
        """
        self._raise_fault()
        test = _FinalTest(adapters, has_base, Future())
        self._tests.put(test)
        if self._registry.is_closed:  # the loop may have looked for the last time
            self._refuse_tests()
        return test.scores.result()

    def throughput(self) -> Throughput | None:
        """How fast the pack is, once its base is there; None where that is not measured.

        Raises:
            RuntimeError: the loop has ended before.
        """
        return self._throughput.result()

    def ledger(self) -> Ledger:
        """Where the loop's time went so far."""
        from trainables.models.memory import peak_gib  # loads torch

        return self._ledger.so_far(peak_gib())

    def close(self) -> None:
        """End run at the next step; whoever waits for an event is told that the lease is lost."""
        self._registry.close()

    def run(self, until_empty: bool = False) -> None:
        """Train whoever joins, until close is called.

        Args:
            until_empty: also end once every trial that has joined has ended.

        Raises:
            SweepAborted: the data cannot be read.
        """
        from trainables.packing.service.loading import load_pack  # these load torch
        from trainables.packing.service.loop import PackLoop

        try:
            loaded = load_pack(self._settings, self._capacity)
            loop = PackLoop(
                loaded,
                self._registry,
                self._ledger,
                admit_wait_s=self._admit_wait_s,
                decision_wait_s=self._decision_wait_s,
            )
            self._throughput.set_result(loaded.measure_throughput(self._probed, self._ledger))
            self._has_loaded = True
            while not self._registry.is_closed and not (until_empty and self._registry.is_done):
                self._run_final_test(loop)
                loop.run_round()
        except BaseException as error:  # trials are woken below, and shall find it then
            self._fault = self._fault_of(error)
            raise
        finally:
            self.close()
            self._ledger.end()
            if not self._throughput.done():
                self._throughput.set_exception(self._fault or RuntimeError("the pack has ended"))
            self._refuse_tests()

    @contextmanager
    def run_in_thread(self, until_empty: bool = False) -> Iterator[None]:
        """Run beside the block, at whose end the pack ends; raises what run raised."""
        with ThreadPoolExecutor(1, thread_name_prefix="pack") as pool:
            loop = pool.submit(self.run, until_empty)
            with suppress(PackFault):  # the loop's result raises what lies behind it
                try:
                    yield
                finally:
                    self.close()
            loop.result()

    def _run_final_test(self, loop: "PackLoop") -> None:
        """Do one test, if one is asked for; its errors are its caller's."""
        from safetensors import SafetensorError  # loads torch

        try:
            test = self._tests.get_nowait()
        except queue.Empty:
            return
        try:
            scores = loop.run_final_test(test.adapters, has_base=test.has_base)
        except (RuntimeError, ValueError, OSError, SafetensorError) as error:
            test.scores.set_exception(error)
        else:
            test.scores.set_result(scores)

    def _refuse_tests(self) -> None:
        while True:
            try:
                test = self._tests.get_nowait()
            except queue.Empty:
                return
            test.scores.set_exception(self._fault or RuntimeError("the pack has ended"))

    def _check_fits(self, trial: TrialConfig) -> None:
        self._raise_fault()
        if replace(trial.settings, seed=self._settings.seed) != self._settings:
            raise ValueError(f"the settings of {trial.trial_id} are not those of the pack")
        if trial.params.lora_rank > self._capacity.max_rank:
            rule = f"at most the pack's max_rank ({self._capacity.max_rank})"
            raise ValueError(f"lora_rank is {trial.params.lora_rank}; it must be {rule}")

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _fault_of(self, error: BaseException) -> Exception:
        """What trials are told; a pack that cannot even load will not the next time either."""
        if isinstance(error, SweepAborted):
            return error
        reason = f"{type(error).__name__}: {error}"
        if self._is_start_fatal and not self._has_loaded:
            return SweepAborted(
                f"a pack cannot start: {reason}",
                "see its traceback in Ray's logs (worker-*.err); --engine solo needs no packs",
            )
        first_line, *_ = reason.splitlines()
        return PackFault(os.getpid(), first_line)


class _FinalTest(NamedTuple):
    """A final test that was asked for."""

    adapters: Mapping[str, Path]
    has_base: bool
    scores: "Future[dict[str, EvalResult]]"
