"""One GPU's pack as a service: trials join by lease from any thread; one thread trains. No Ray.

It owns the base, the tokenised rows and the pack. Events are in events.py.
"""

import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from trainables.config import Hyperparameters, TrainingSettings, TrialConfig
from trainables.data.eval_rows import fixed_slice, rung_rows
from trainables.data.prepared_rows import read_rows
from trainables.data.rows import Row, Scoring, Splits
from trainables.data.tokens import Example, encode_training_rows
from trainables.metrics.eval_result import EvalResult
from trainables.models.base_model import device, load_base, load_tokenizer
from trainables.models.memory import free_memory, peak_gib, reset_peak
from trainables.packing.compute.pack import Pack
from trainables.packing.evaluation.evaluator import PackEvaluator, load_metrics
from trainables.packing.service.events import Event
from trainables.packing.service.leases import Leases
from trainables.packing.service.ledger import Ledger, LedgerKeeper
from trainables.packing.service.loop import PackLoop
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.pace import Pace
from trainables.packing.sizing.probe import measure_pace


class PackHost:
    """A pack and its loop. All methods but run are quick and may be called from any thread.

    Args:
        settings: of every trial, apart from its seed.
        capacity: sizes of the pack.
        lease_timeout_s: how long a trial may be silent before its slot is freed.
        admit_wait_s: how long a trial waits for others at most, so that they enter together; beside
            an empty pack only as long as others come.
        decision_wait_s: how long the pack waits at a rung for a trial that has not yet decided
            about its report before.
        probed: hyperparameters as the sweep's space has them: what the pack's pace is measured
            with before the first trial enters; none to leave that out.
        since_s: time.monotonic() at which the pack's time begins; now if not given.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        capacity: Capacity,
        lease_timeout_s: float = 30.0,
        *,
        admit_wait_s: float = 1.0,
        decision_wait_s: float = 10.0,
        probed: Sequence[Hyperparameters] = (),
        since_s: float | None = None,
    ) -> None:
        self._settings = settings
        self._capacity = capacity
        self._leases = Leases(lease_timeout_s)
        self._admit_wait_s = admit_wait_s
        self._decision_wait_s = decision_wait_s
        self._probed = probed
        self._ledger = LedgerKeeper(_device_name(), since_s)
        self._tests: queue.SimpleQueue[_Test] = queue.SimpleQueue()
        self._splits: Splits | None = None
        self._evaluator: Callable[..., PackEvaluator] | None = None
        self.has_loaded = False
        """Whether the rows and the base are there."""
        self.pace: Future[Pace | None] = Future()
        """Once the base is there; None where it is not measured, fails if the loop ends first."""

    def join(self, trial: TrialConfig) -> int:
        """The lease number of a trial, which from now on waits for a slot.

        A lease that the trial already has is lost; the new one goes on from the disk.

        Raises:
            ValueError: the trial is not of this pack's sweep, or its rank is too large.
        """
        if replace(trial.settings, seed=self._settings.seed) != self._settings:
            raise ValueError(f"the settings of {trial.trial_id} are not those of the pack")
        if trial.params.lora_rank > self._capacity.max_rank:
            rule = f"at most the pack's max_rank ({self._capacity.max_rank})"
            raise ValueError(f"lora_rank is {trial.params.lora_rank}; it must be {rule}")
        return self._leases.join(trial)

    def next_event(self, lease: int, timeout_s: float) -> Event | None:
        """What happened next to the trial, or None if nothing has within timeout_s.

        Renews the lease, while it waits too. To ask again after a report says that the trial goes
        on, as decide does: until then the pack trains it to its next rung at most.
        """
        return self._leases.next_event(lease, timeout_s)

    def renew(self, lease: int) -> bool:
        """Keep the lease; False if it is lost."""
        return self._leases.renew(lease)

    def leave(self, lease: int) -> None:
        """Give the slot back; once this returns, the pack writes no more to the trial's folder."""
        self._leases.leave(lease)

    def evict(self, trial_id: str) -> None:
        """As leave, for whoever holds the trial's lease."""
        self._leases.evict(trial_id)

    def decide(self, step: int, goes_on: Mapping[str, bool]) -> None:
        """What the sweep has decided about trials that reported at a step; others are no matter.

        Those that do not go on free their slots, and nothing of them is written from now on.
        """
        self._leases.decide(step, goes_on)

    def final_scores(
        self, adapters: Mapping[str, Path], *, has_base: bool = True
    ) -> Future[dict[str, EvalResult]]:
        """See trainables.final_test.score; done between two steps, in the slots that are then free.

        The future fails if the loop ends before, or has no slot free.

        Args:
            has_base: whether the untuned base is scored too.
        """
        test = _Test(adapters, has_base, Future())
        self._tests.put(test)
        if self._leases.is_closed:  # the loop may have looked for the last time
            self._refuse_tests()
        return test.scores

    def ledger(self) -> Ledger:
        """Where the loop's time went so far."""
        return self._ledger.so_far(peak_gib())

    def close(self) -> None:
        """End run at the next step; whoever waits for an event is told that the lease is lost."""
        self._leases.close()

    def run(self, until_empty: bool = False) -> None:
        """Train whoever joins, until close is called.

        Args:
            until_empty: also end once every trial that has joined has ended.

        Raises:
            SweepAborted: the data cannot be read.
        """
        try:
            rounds = self._start()
            self.has_loaded = True
            while not self._leases.is_closed and not (until_empty and self._leases.is_done):
                self._test(rounds)
                rounds.run_round()
        finally:
            self.close()
            self._ledger.end()
            if not self.pace.done():
                self.pace.set_exception(RuntimeError("the pack has ended"))
            self._refuse_tests()

    def _start(self) -> PackLoop:
        """Read the rows and the base once, for all trials."""
        reset_peak()
        settings = self._settings
        tokenizer = load_tokenizer(settings.model)  # transformers loads its parts in one thread
        with ThreadPoolExecutor(2) as pool:  # what these two import has no module in common
            loading = pool.submit(new_pack, settings, self._capacity)
            metrics = pool.submit(load_metrics)
            splits = read_rows(settings.rows_dir)
            examples = encode_training_rows(
                tokenizer, splits.train, settings.max_length_tokens, settings.max_new_tokens
            )
            pack = loading.result()
            metrics.result()
        self._splits = splits
        self._evaluator = partial(self._evaluator_of, tokenizer, splits.scoring)
        last = self._evaluator(rung_rows(splits.validation, settings, settings.max_steps))
        first_rows = rung_rows(splits.validation, settings, settings.rungs[0])
        before = last if len(first_rows) == len(last.rows) else self._evaluator(first_rows)
        self.pace.set_result(self._measured(pack, examples, first_rows))
        return PackLoop(
            pack,
            lambda step: last if step >= settings.max_steps else before,
            examples,
            self._leases,
            admit_wait_s=self._admit_wait_s,
            decision_wait_s=self._decision_wait_s,
            ledger=self._ledger,
            num_searching=self._capacity.num_searching,
        )

    def _measured(
        self, pack: Pack, examples: Sequence[Example], rows: Sequence[Row]
    ) -> Pace | None:
        if not self._probed:
            return None
        assert self._evaluator is not None
        load_s = self._ledger.so_far().wall_s
        self._ledger.turn_to("probe")
        return measure_pace(
            pack,
            examples,
            rows,
            self._evaluator,
            self._settings,
            self._capacity,
            self._probed,
            device_name=_device_name(),
            load_s=load_s,
            warms_up=device().type == "cuda",
        )

    def _evaluator_of(
        self,
        tokenizer: PreTrainedTokenizerBase,
        scoring: Scoring,
        rows: Sequence[Row],
        settings: TrainingSettings | None = None,
    ) -> PackEvaluator:
        return PackEvaluator(
            tokenizer,
            rows,
            scoring,
            settings or self._settings,
            max_tokens=self._capacity.eval_tokens,
            is_graphed=device().type == "cuda",
        )

    def _test(self, rounds: PackLoop) -> None:
        """Do one test, if one is asked for; its fault is its caller's."""
        try:
            test = self._tests.get_nowait()
        except queue.Empty:
            return
        assert self._splits is not None and self._evaluator is not None
        validation = rung_rows(self._splits.validation, self._settings, self._settings.max_steps)
        all_rows = fixed_slice(self._splits.test, len(self._splits.test))
        tested: dict[str, Path | None] = {"test_base": None} if test.has_base else {}
        tested |= test.adapters
        try:
            found = rounds.final_scores(list(tested.values()), self._evaluator(all_rows))
            scores = dict(zip(tested, found, strict=True))
            if test.has_base:
                (scores["validation_base"],) = rounds.final_scores(
                    [None], self._evaluator(validation)
                )
        except (RuntimeError, ValueError, OSError, SafetensorError) as error:
            test.scores.set_exception(error)
            return
        test.scores.set_result(scores)

    def _refuse_tests(self) -> None:
        while True:
            try:
                test = self._tests.get_nowait()
            except queue.Empty:
                return
            test.scores.set_exception(RuntimeError("the pack has ended"))


class _Test(NamedTuple):
    """A final test that was asked for."""

    adapters: Mapping[str, Path]
    has_base: bool
    scores: Future[dict[str, EvalResult]]


def new_pack(settings: TrainingSettings, capacity: Capacity) -> Pack:
    """An empty pack over a base that nothing else holds."""
    pack = Pack(
        load_base(settings.model, settings.compute_dtype),
        num_slots=capacity.num_slots,
        max_rank=capacity.max_rank,
        max_tokens=capacity.max_tokens,
        is_dequantised=capacity.is_dequantised,
        is_checkpointed=capacity.is_checkpointed,
        is_fast=device().type == "cuda" and settings.compute_dtype == "bfloat16",
    )
    free_memory()  # the base's NF4 weights, which stand in a cycle of references
    return pack


def _device_name() -> str:
    return torch.cuda.get_device_name() if device().type == "cuda" else "cpu"
