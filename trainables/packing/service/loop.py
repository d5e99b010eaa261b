"""The loop of a pack: admit trials, step them together, report at their rungs, let them go."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from safetensors import SafetensorError

from trainables.checkpoint import abort_if_disk_fails
from trainables.config import TrialReport
from trainables.errors import SweepAborted, TrialFailed
from trainables.metrics.eval_result import EvalResult
from trainables.models.memory import measure_peak_gib, retry_with_less_memory
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.service.events import (
    Aborted,
    Event,
    Failed,
    Finished,
    PackPreempted,
    Reported,
)
from trainables.packing.service.final_scores import NO_ROOM, score_adapters
from trainables.packing.service.ledger import LedgerKeeper
from trainables.packing.service.loading import LoadedPack
from trainables.packing.service.packed_trial import PackedTrial
from trainables.packing.service.registry import TrialRegistry
from trainables.packing.service.saving import MAX_WRITERS, Saver, run_if_live

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.1
"""How long an empty pack sleeps between two looks for trials."""
SETTLE_S = 0.5
"""An empty pack that nobody new has come to for so long begins with those that wait. Trials look
for a slot as often (client.POLL_INTERVAL_S)."""
QUEUE_S, MAX_QUEUED_STEPS = 0.25, 16
"""A GPU is given steps for so many seconds at once, and no more than these: the CPU captures the
graphs of later ones meanwhile, and who comes or goes between two reports does not wait long."""


class PackLoop:
    """A pack with the trials in it. Used by one thread.

    Args:
        registry: the trials that wait for a slot or train, and what they are told.
        admit_wait_s: how long a trial waits for others at most, so that they enter together.
    """

    def __init__(
        self, loaded: LoadedPack, registry: TrialRegistry, ledger: LedgerKeeper, admit_wait_s: float
    ) -> None:
        self._loaded = loaded
        self._pack = loaded.pack
        self._registry = registry
        self._ledger = ledger
        self._admit_wait_s = admit_wait_s
        rungs = loaded.settings.rungs
        self._evaluator = loaded.make_evaluator(loaded.select_report_rows(rungs[0]))
        last_rows = loaded.select_report_rows(rungs[-1])
        self._last_evaluator = self._evaluator
        if len(self._evaluator.rows) != len(last_rows):
            self._last_evaluator = loaded.make_evaluator(last_rows)
        self._trials: dict[int, PackedTrial] = {}
        """By slot."""
        self._num_usable = len(self._pack.free_slots())
        self._saver = Saver(self._pack)
        self._step_s = QUEUE_S
        """What a step took of late."""
        self._completing: dict[PackedTrial, tuple[TrialReport, Future[bool]]] = {}
        """Reports of the last evaluation that nobody has been told, since their checkpoints are
        still being published."""

    def run_round(self) -> None:
        """Admit trials, train some steps, and report those that come to a rung.

        One step, unless they are small ones on a GPU; none goes beyond a trial's next rung.
        """
        self._ledger.begin_activity("admit")
        self._free_ended()
        if all(completion.done() for _, completion in self._completing.values()):
            self._announce_completed()
        self._admit_trials()
        if not self._trials:
            self._ledger.begin_activity("idle")
            self._registry.wait_for_change(POLL_INTERVAL_S)
            return
        if not self._list_due():  # a trial may have been saved at a rung before it was scored
            self._ledger.begin_activity("train")
            self._train()
        if due := self._list_due():
            # A trial trains on while the sweep decides about its report, but is scored again only
            # once it is known to continue: what a stopped trial did in between is dropped.
            self._ledger.begin_activity("report")
            self._announce_completed()
            self._ledger.begin_activity("decide")
            self._registry.wait_for_decisions(due)
            if self._registry.preempted:
                return
            if live := [trial for trial in due if trial.is_live]:
                with suppress(PackPreempted):  # they are scored where they go on
                    self._report_trials(live)

    def save_progress(self) -> None:
        """Save all trials where they stand, so that they go on from there in another pack."""
        self._ledger.begin_activity("report")
        self._announce_completed()
        self._free_ended()
        unsaved = [trial for trial in self._trials.values() if trial.has_progress]
        saving = self._saver.begin_save(unsaved)
        completing = {}
        for trial in unsaved:  # each counts at once, since the process may be killed meanwhile
            if self._keep_if_live(trial, saving[trial].result):
                self._ledger.charge({trial.trial_id: 1}, "saved")
                charged_s = self._ledger.get_seconds(trial.trial_id)
                completing[trial] = self._saver.begin_progress(trial, charged_s)
        wait(completing.values())
        for trial, completion in completing.items():
            self._keep_if_live(trial, completion.result)

    def _list_due(self) -> list[PackedTrial]:
        return [trial for trial in self._trials.values() if trial.is_at_rung]

    def run_final_test(
        self, adapters: Mapping[str, Path], *, has_base: bool
    ) -> dict[str, EvalResult]:
        """The scores of score_final_test, in the slots that are free.

        Raises:
            RuntimeError: no slot is free, or not even one row fits in the memory.
        """
        self._ledger.begin_activity("test")
        self._free_ended()
        return score_adapters(self._loaded, adapters, self._last_evaluator if has_base else None)

    def _free_ended(self) -> None:
        """Free the slots whose trials have left, were stopped, or are silent."""
        self._registry.drop_silent_leases()
        for trial in list(self._trials.values()):
            if not trial.is_live:
                self._free_slot(trial)

    def _admit_trials(self) -> None:
        """Fill the free slots together: no trial waits longer than admit_wait_s for others, and in
        an empty pack none does to which no others come. One whose folder is still being uploaded
        enters later."""
        free = self._pack.free_slots()[: self._num_usable - len(self._trials)]
        uploaded = {trial.trial_id for trial in self._completing}
        waiting = [one for one in self._registry.list_waiting() if one.trial_id not in uploaded]
        if not free or not waiting:
            return
        now_s = time.monotonic()
        is_late = now_s - waiting[0].waiting_since_s >= self._admit_wait_s
        is_settled = not self._trials and now_s - waiting[-1].waiting_since_s >= SETTLE_S
        if len(waiting) >= len(free) or is_late or is_settled:
            self._start_trials(list(zip(waiting, free, strict=False)))

    def _start_trials(self, entering: Sequence[tuple[PackedTrial, int]]) -> None:
        """Start trials in slots, or resume them; their last reports are sent again.

        Trials that come back together, such as those of a pack that died, are a cohort again.
        """
        with ThreadPoolExecutor(MAX_WRITERS) as pool:  # each may have checkpoints to fetch
            finding = {
                trial: pool.submit(run_if_live, trial, trial.find_resume_point)
                for trial, _ in entering
            }
        starting = [
            (trial, slot)
            for trial, slot in entering
            if self._keep_if_live(trial, finding[trial].result)
        ]
        # A trial that lost its slot to a lack of memory has been told its last report already.
        lasts = [(trial, trial.last) for trial, _ in starting if trial.last is not None]
        self._announce_reports([(t, last) for t, last in lasts if last.step > t.reported_step])
        for trial, slot in starting:
            self._start_trial(trial, slot)

    def _start_trial(self, trial: PackedTrial, slot: int) -> None:
        """Train a trial in a slot from now on; a damaged checkpoint fails its own trial alone."""
        newest = trial.progress or trial.last
        if newest is None:
            self._pack.join(slot, trial.config, self._loaded.examples)
        elif trial.last is not None and trial.last.step >= trial.config.settings.max_steps:
            self._end_trial(trial, Finished())
            return
        elif not self._keep_if_live(
            trial, partial(self._restore_trial, trial, slot, newest.checkpoint)
        ):
            return
        charged_s = self._ledger.get_seconds(trial.trial_id)
        trial.enter_slot(slot, self._pack.get_batches(slot), charged_s)
        self._trials[slot] = trial

    def _restore_trial(self, trial: PackedTrial, slot: int, checkpoint: Path) -> bool:
        """Put a trial into a slot as it was saved.

        Raises:
            SweepAborted: the disk is full or does not answer.
            TrialFailed: the checkpoint is damaged.
        """
        try:
            with abort_if_disk_fails(trial.config.folder):
                self._pack.restore(slot, trial.config, self._loaded.examples, checkpoint)
        except (ValueError, OSError, SafetensorError) as error:
            raise TrialFailed(f"{checkpoint} cannot be read: {error}") from error
        return True

    def _train(self) -> None:
        """Make a step of the pack or some, in as many tries as its memory needs."""
        started_s = time.perf_counter()
        results = retry_with_less_memory(
            lambda: self._pack.step(self._choose_num_steps()),
            self._pack.use_less_memory,
            self._shrink_pack,
            "a step",
        )
        seconds = time.perf_counter() - started_s
        num_steps = Counter(result.slot for result in results)
        self._step_s = seconds / max(num_steps.values(), default=1)
        num_tokens: Counter[str] = Counter()  # real ones; a step in which a trial fails counts too
        for result in results:
            tokens = self._trials[result.slot].batches.count_tokens
            num_tokens[result.trial_id] += tokens(result.step) - tokens(result.step - 1)
        self._ledger.count_step(len(results), *self._pack.last_tokens)
        self._ledger.charge(num_tokens, "trained")
        trials = dict(self._trials)  # if one fails, reports are told, which may end others
        for result in results:
            trial = trials[result.slot]
            if result.failed is None:
                trial.add_step(result, seconds / num_steps[result.slot])
            else:
                self._end_trial(trial, Failed(result.failed))

    def _choose_num_steps(self) -> int:
        """Steps to make before anybody is looked at again."""
        if not self._pack.is_queued:
            return 1
        until_rung = min((t.next_rung - t.step for t in self._trials.values()), default=1)
        return max(1, min(until_rung, int(QUEUE_S / self._step_s), MAX_QUEUED_STEPS))

    def _report_trials(self, due: Sequence[PackedTrial]) -> None:
        """Save, score and report trials that stand at a rung: they are saved while scored."""
        started_s = time.perf_counter()
        num_rows = sum(len(self._choose_evaluator(trial).rows) for trial in due)
        self._ledger.begin_activity("evaluate", num_rows)
        saving = self._saver.begin_save(due)
        try:
            results = self._evaluate_trials(due)
        finally:  # no write outlives the loop
            wait(saving.values())
        self._ledger.begin_activity("report")
        for trial, result in list(results.items()):
            if result.failure is not None:
                self._end_trial(trial, Failed(result.failure))
                del results[trial]
        saved = [trial for trial in due if self._keep_if_live(trial, saving[trial].result)]
        self._ledger.charge({trial.trial_id: 1 for trial in saved}, "saved")
        seconds = time.perf_counter() - started_s
        reports = {
            trial: trial.make_report(
                results[trial].metrics,
                len(results[trial].answers),
                evaluation_s=seconds,
                charged_s=self._ledger.get_seconds(trial.trial_id),
                peak_gib=measure_peak_gib(),
                pack=self._ledger.pack_id,
                device=self._ledger.device,
            )
            for trial in saved
            if trial in results
        }
        # A checkpoint counts once its report stands in it, so that comes after all else is written.
        for trial, report in reports.items():
            completion = self._saver.begin_completion(
                trial, report, self._choose_evaluator(trial).rows, results[trial]
            )
            self._completing[trial] = report, completion
        # Trials train on while their checkpoints are uploaded; one that has ended must not.
        if self._loaded.settings.storage is None or any(trial.is_at_end for trial in reports):
            self._announce_completed()

    def _announce_completed(self) -> None:
        """Tell the reports of the last evaluation, once all their checkpoints count."""
        completing, self._completing = self._completing, {}
        wait([completion for _, completion in completing.values()])
        completed = [
            (trial, report)
            for trial, (report, completion) in completing.items()
            if self._keep_if_live(trial, completion.result)
        ]
        self._announce_reports(completed)
        for trial, report in completed:
            if report.step >= trial.config.settings.max_steps:
                self._end_trial(trial, Finished())

    def _evaluate_trials(self, trials: Sequence[PackedTrial]) -> dict[PackedTrial, EvalResult]:
        """The scores of trials; those that lose their slots to a lack of memory are left out.

        Trials that are scored on the same rows go together.
        """
        groups: dict[PackEvaluator, list[PackedTrial]] = {}
        for trial in trials:
            groups.setdefault(self._choose_evaluator(trial), []).append(trial)
        results: dict[PackedTrial, EvalResult] = {}
        for evaluator, group in groups.items():
            results |= retry_with_less_memory(
                partial(self._evaluate_group, evaluator, group),
                evaluator.use_less_memory,
                self._shrink_pack,
                "an evaluation",
            )
        return results

    def _evaluate_group(
        self, evaluator: PackEvaluator, group: Sequence[PackedTrial]
    ) -> dict[PackedTrial, EvalResult]:
        slots = {trial.slot: trial for trial in group if trial.slot is not None}
        results = evaluator.evaluate(
            self._pack.model, list(slots), self._registry.raise_if_preempted
        )
        charged = {trial.trial_id: evaluator.num_tokens for trial in slots.values()}
        self._ledger.charge(charged, "scored")
        return dict(zip(slots.values(), results, strict=True))

    def _choose_evaluator(self, trial: PackedTrial) -> PackEvaluator:
        return self._last_evaluator if trial.is_at_end else self._evaluator

    def _announce_reports(self, reports: Sequence[tuple[PackedTrial, TrialReport]]) -> None:
        """Tell trials their reports, each with those of the others at its step.

        Whichever reaches the sweep first brings all of them, so that it decides about all at once
        and none waits for another. All of them are on the disk by then.
        """
        for trial, report in reports:
            at_step = [other for _, other in reports if other.step == report.step]
            cohort = tuple(other for other in at_step if other is not report)
            self._registry.post_event(trial, Reported(replace(report, cohort=cohort)))

    def _keep_if_live(self, trial: PackedTrial, is_live: Callable[[], bool]) -> bool:
        """Whether the trial is still to be trained; it ends if its folder could not be used.

        Args:
            is_live: gives whether it is, or raises why it ends.
        """
        try:
            return is_live()
        except SweepAborted as aborted:
            self._end_trial(trial, Aborted(aborted.error, aborted.fix))
        except TrialFailed as failed:
            self._end_trial(trial, Failed(str(failed)))
        return False

    def _shrink_pack(self) -> None:
        """Make do with one trial less: the youngest waits for a slot again."""
        youngest = max(self._trials.values(), key=lambda trial: trial.lease)
        if len(self._trials) == 1:
            self._end_trial(youngest, Failed(NO_ROOM))
            return
        self._num_usable = len(self._trials) - 1
        logger.warning("out of memory; going on with %d trials", self._num_usable)
        self._free_slot(youngest)

    def _end_trial(self, trial: PackedTrial, event: Event) -> None:
        if trial in self._completing:  # its report comes first
            self._announce_completed()
        self._free_slot(trial)
        self._registry.post_event(trial, event)

    def _free_slot(self, trial: PackedTrial) -> None:
        """Empty the trial's slot, if it has one; a trial that has not ended waits for another."""
        if trial.slot is not None:
            self._saver.wait_saved(trial)
            self._pack.leave(trial.slot)
            del self._trials[trial.slot]
            trial.slot = None
