"""One GPU's pack as a service: trials join by lease from any thread; one thread trains.

It needs no Ray: actor.py makes it a Ray actor, in_process.py has it in the trial's own process.
Torch is loaded by a host, not by this module, so that a driver can name the class without it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from trainables.config import Hyperparameters, TrainingSettings, TrialConfig
from trainables.errors import SweepAborted
from trainables.models.model_files import read_ahead
from trainables.packing.service.events import LoadFault, PackFault, PackPreempted
from trainables.packing.service.ledger import Ledger, LedgerKeeper
from trainables.packing.service.registry import TrialRegistry
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.throughput import Throughput
from trainables.process import disable_gc

if TYPE_CHECKING:  # loads torch
    from trainables.metrics.eval_result import EvalResult
    from trainables.packing.service.loop import PackLoop

LEASE_TIMEOUT_S = 30.0
LOAD_FIX = "see its traceback in Ray's logs (worker-*.err); --engine solo needs no packs"
MEMORY_FIX = (
    "end what else runs on that GPU (nvidia-smi lists it), or leave it out with "
    "CUDA_VISIBLE_DEVICES"
)


class PackHost(TrialRegistry):
    """A pack's trials, and the loop that trains them. All methods but run may be called from any
    thread.

    Once the loop has ended of an error, what trials ask raises a PackFault, or the SweepAborted
    that ended it.

    Args:
        settings: of every trial, apart from its seed.
        lease_timeout_s, decision_wait_s: as TrialRegistry has them.
        admit_wait_s: how long a trial waits for others at most, so that they enter together; beside
            an empty pack only as long as others come.
        probed: hyperparameters as the sweep's space has them, with which the throughput is
            measured before the first trial enters; none to leave that out.
        choose_capacity: gives the sizes of the pack for a GPU of so many GiB, instead of capacity;
            no trial is let in before the GPU is known.
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
        choose_capacity: Callable[[float], Capacity] | None = None,
    ) -> None:
        num_slots = capacity.num_slots if choose_capacity is None else 0
        super().__init__(num_slots, lease_timeout_s, decision_wait_s)
        self._settings = settings
        self._capacity = capacity
        self._choose_capacity = choose_capacity
        self._admit_wait_s = admit_wait_s
        self._probed = probed
        self._has_imported = Event()
        self._ledger = LedgerKeeper(device="")  # loading torch is the pack's time too
        self._tests: deque[_FinalTest] = deque()
        self._throughput: Future[Throughput | None] = Future()

    def join(self, config: TrialConfig) -> int:
        """Join as a trial of TrialRegistry does.

        Raises:
            ValueError: the trial is not of this pack's sweep, or its rank is too large.
        """
        if replace(config.settings, seed=self._settings.seed) != self._settings:
            raise ValueError(f"the settings of {config.trial_id} are not those of the pack")
        if config.params.lora_rank > self._capacity.max_rank:
            rule = f"at most the pack's max_rank ({self._capacity.max_rank})"
            raise ValueError(f"lora_rank is {config.params.lora_rank}; it must be {rule}")
        return super().join(config)

    def run_final_test(
        self, adapters: Mapping[str, Path], has_base: bool = True
    ) -> "dict[str, EvalResult]":
        """The scores of score_final_test; made between two steps, in slots that are free.

        Args:
            has_base: whether the untuned base is scored too.

        Raises:
            RuntimeError: the loop has ended, or has no slot free.
        """
        test = _FinalTest(adapters, has_base, Future())
        with self._changed:  # once it is closed, the loop refuses tests for the last time
            self._raise_fault()
            if self._is_closed:
                raise RuntimeError("the pack has ended")
            self._tests.append(test)
        return test.scores.result()

    def wait_for_throughput(self) -> Throughput | None:
        """How fast the pack is, once its base is there; None where that is not measured.

        Raises:
            RuntimeError: the loop has ended before.
        """
        return self._throughput.result()

    def read_ledger(self) -> Ledger:
        """Where the loop's time went so far."""
        if not self._has_imported.is_set():
            return self._ledger.copy_ledger()
        from trainables.models.memory import measure_peak_gib  # loads torch

        return self._ledger.copy_ledger(measure_peak_gib())

    def preempt(self, reason: str, timeout_s: float) -> None:
        """Have all trials saved at the next step, which ends the pack; returns once that is done.

        A pack that still loads has nothing to save.

        Args:
            reason: what the trials and the sweep are told.
        """
        with self._changed:
            self.preempted = PackPreempted(os.getpid(), reason)
            if not self._throughput.done():
                self.close(self.preempted)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_closed, timeout_s)

    def run(self) -> None:
        """Train whoever joins, until close is called.

        Raises:
            SweepAborted: the data cannot be read.
        """
        fault: Exception | None = None
        try:
            Thread(target=read_ahead, args=(self._settings.model,), daemon=True).start()
            with disable_gc():  # these load torch
                from trainables.models.memory import get_gpu_gib
                from trainables.packing.service.loading import get_device_name, load_pack
                from trainables.packing.service.loop import PackLoop
                from trainables.packing.service.probe import measure_throughput

            self._ledger.device = get_device_name()
            if (memory_gib := get_gpu_gib()) is not None:
                self._fit_to_gpu(memory_gib)
            self._num_slots = self._capacity.num_slots
            self._has_imported.set()
            loaded = load_pack(self._settings, self._capacity)
            loop = PackLoop(loaded, self, self._ledger, self._admit_wait_s)
            self._throughput.set_result(measure_throughput(loaded, self._probed, self._ledger))
            while not self._is_closed:
                if self.preempted:
                    loop.save_progress()
                    raise self.preempted
                if self._tests:
                    self._run_final_test(loop, self._tests[0])
                    self._tests.popleft()
                loop.run_round()
        except BaseException as error:
            fault = self._make_fault(error)
            raise
        finally:
            self.close(fault)
            self._ledger.end()
            ended = fault or RuntimeError("the pack has ended")
            asked: list[Future[Any]] = [self._throughput, *(test.scores for test in self._tests)]
            for answer in asked:
                if not answer.done():
                    answer.set_exception(ended)

    @contextmanager
    def run_in_thread(self) -> Iterator[None]:
        """Run beside the block, at whose end the pack ends; raises what run raised."""
        with ThreadPoolExecutor(1, thread_name_prefix="pack") as pool:
            loop = pool.submit(self.run)
            with suppress(PackFault):  # the loop's result raises what lies behind it
                try:
                    yield
                finally:
                    self.close()
            loop.result()

    def _fit_to_gpu(self, memory_gib: float) -> None:
        """Choose the sizes by what other processes leave of the GPU's memory.

        Raises:
            SweepAborted: not even one trial fits.
        """
        if self._choose_capacity is None:
            return
        try:
            self._capacity = self._choose_capacity(memory_gib)
        except SweepAborted as refused:
            error = f"{refused.error} that no other process holds"
            raise SweepAborted(error, f"{MEMORY_FIX}; {refused.fix}") from None

    def _run_final_test(self, loop: "PackLoop", test: "_FinalTest") -> None:
        """Do one test; its errors are its caller's."""
        from safetensors import SafetensorError  # loads torch

        try:
            test.scores.set_result(loop.run_final_test(test.adapters, has_base=test.has_base))
        except (RuntimeError, ValueError, OSError, SafetensorError, SweepAborted) as error:
            test.scores.set_exception(error)

    def _make_fault(self, error: BaseException) -> Exception:
        """What trials are told."""
        if isinstance(error, PackPreempted):
            return error
        has_loaded = self._throughput.done()
        if isinstance(error, SweepAborted):
            return error if has_loaded else LoadFault(os.getpid(), error.error, error.fix)
        reason, *_ = f"{type(error).__name__}: {error}".splitlines()
        if has_loaded:
            return PackFault(os.getpid(), reason)
        fix = MEMORY_FIX if "out of memory" in reason else LOAD_FIX
        return LoadFault(os.getpid(), f"a pack cannot start: {reason}", fix)


class _FinalTest(NamedTuple):
    """A final test that was asked for."""

    adapters: Mapping[str, Path]
    has_base: bool
    scores: "Future[dict[str, EvalResult]]"
