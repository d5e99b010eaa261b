"""The loop of a pack: trials are let in, make a step together, report at their rungs, and go."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import replace
from functools import partial
from pathlib import Path

from safetensors import SafetensorError

from trainables.config import TrialReport
from trainables.data.tokens import Example
from trainables.errors import SweepAborted
from trainables.metrics.eval_result import EvalResult
from trainables.models.memory import free_memory, is_out_of_memory
from trainables.packing.compute.pack import Pack
from trainables.packing.compute.slot import StepResult
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.service.events import Aborted, Event, Failed, Finished, Reported
from trainables.packing.service.leases import Lease, Leases
from trainables.packing.service.ledger import LedgerKeeper
from trainables.packing.service.saving import Saver, last_report, while_live
from trainables.packing.service.tenant import Tenant

logger = logging.getLogger(__name__)

IDLE_S = 0.1
"""How long an empty pack sleeps between two looks for trials."""
QUIET_S = 0.5
"""An empty pack that nobody new has come to for so long begins with those that wait. Trials look
for a slot as often (joining.LOOK_S)."""
AHEAD_S, MOST_AHEAD = 0.25, 16
"""A GPU is given steps for so many seconds at once, and no more than these: the CPU records the
graphs of later ones meanwhile, and who comes or goes between two reports does not wait long."""
NO_ROOM = "out of memory with one trial in the pack; lower max_length_tokens"


class PackLoop:
    """A pack with the trials in it. Used by one thread.

    Args:
        pack: empty.
        evaluator_at: what scores a report at a step.
        examples: the training rows of every trial.
        leases: whose trials train.
        admit_wait_s: how long a trial waits for others at most, so that they enter together.
        num_searching: trials that a search has in the pack: with so many, no other is waited for.
            None if they are as many as there are slots.
        decision_wait_s: how long the pack waits at a rung for a trial that has not yet decided
            about its report before: it trains on meanwhile, but never two rungs ahead.
        ledger: is told what the loop does.
    """

    def __init__(
        self,
        pack: Pack,
        evaluator_at: Callable[[int], PackEvaluator],
        examples: Sequence[Example],
        leases: Leases,
        *,
        admit_wait_s: float,
        decision_wait_s: float,
        ledger: LedgerKeeper,
        num_searching: int | None = None,
    ) -> None:
        self._pack = pack
        self._evaluator_at = evaluator_at
        self._examples = examples
        self._leases = leases
        self._admit_wait_s = admit_wait_s
        self._decision_wait_s = decision_wait_s
        self._ledger = ledger
        self._num_searching = num_searching
        self._tenants: dict[int, Tenant] = {}
        self._num_usable = len(pack.free_slots())
        self._saver = Saver(pack)
        self._step_s = AHEAD_S
        """What a step took of late."""

    def run_round(self) -> None:
        """Some steps of every trial in the pack, with what comes before and after them.

        A single one, unless they are small ones on a GPU; none goes beyond a trial's next rung.
        """
        self._ledger.turn_to("admit")
        self._let_go()
        self._admit()
        if not self._tenants:
            self._ledger.turn_to("idle")
            self._leases.wait(IDLE_S)
            return
        self._ledger.turn_to("train")
        self._step()
        self._report()

    def final_scores(
        self, adapters: Sequence[Path | None], evaluator: PackEvaluator
    ) -> list[EvalResult]:
        """The scores of saved adapters, None for the untuned base, in the slots that are free.

        Raises:
            RuntimeError: no slot is free, or not even one row fits in the memory.
        """
        self._ledger.turn_to("test")
        self._let_go()
        share = len(self._pack.free_slots())
        if share == 0:
            raise RuntimeError("no slot of the pack is free")
        found: list[EvalResult] = []
        for first in range(0, len(adapters), share):
            with self._pack.holding(adapters[first : first + share]) as slots:
                found += self._tested(slots, evaluator)
        return found

    def _tested(self, slots: Sequence[int], evaluator: PackEvaluator) -> list[EvalResult]:
        while True:
            try:
                return evaluator.evaluate(self._pack.model, slots)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                logger.warning("out of memory in the test: %s", error)
            free_memory()
            if not evaluator.use_less_memory():
                raise RuntimeError(NO_ROOM)

    def _let_go(self) -> None:
        """Free the slots whose trials have left, were stopped, or are silent."""
        self._leases.drop_silent()
        for tenant in list(self._tenants.values()):
            if not tenant.lease.is_live:
                self._free(tenant.lease)

    def _admit(self) -> None:
        """Fill the free slots together: no trial waits longer than admit_wait_s for others, and in
        an empty pack none does to which no others come."""
        free = self._pack.free_slots()[: self._num_usable - len(self._tenants)]
        waiting = self._leases.waiting()
        if not free or not waiting:
            return
        now_s = time.monotonic()
        is_late = now_s - waiting[0].waits_since_s >= self._admit_wait_s
        is_quiet = not self._tenants and now_s - waiting[-1].waits_since_s >= QUIET_S
        are_all = len(self._tenants) + len(waiting) == self._num_searching
        if are_all or len(waiting) >= len(free) or is_late or is_quiet:
            self._place(list(zip(free, waiting, strict=False)))

    def _place(self, placed: Sequence[tuple[int, Lease]]) -> None:
        """Start trials, or go on with them from their last reports, which are sent again.

        Trials that come back together, such as those of a pack that died, are a cohort again.
        """
        found: dict[int, tuple[Lease, TrialReport | None]] = {}
        for slot, lease in placed:

            def read(slot: int = slot, lease: Lease = lease) -> None:
                found[slot] = lease, last_report(lease.trial)

            self._is_borne(lease, partial(while_live, lease, read))
        self._announce(
            [(lease, last) for lease, last in found.values() if last and not lease.was_admitted]
        )
        for slot, (lease, last) in found.items():
            self._enter(slot, lease, last)

    def _enter(self, slot: int, lease: Lease, last: TrialReport | None) -> None:
        lease.was_admitted = True
        if last is not None and last.step >= lease.trial.settings.max_steps:
            self._end(lease, Finished())
        elif self._has_started(slot, lease, last):
            self._settle(slot, lease, last)

    def _settle(self, slot: int, lease: Lease, last: TrialReport | None) -> None:
        step = last.step if last else 0
        lease.slot = slot
        self._tenants[slot] = Tenant(
            lease=lease,
            slot=slot,
            batches=self._pack.batches(slot),
            step=step,
            reported_step=step,
            seconds=last.seconds if last else 0.0,
            earlier_gpu_s=(last.gpu_seconds if last else 0.0)
            - self._ledger.seconds_of(lease.trial.trial_id),
        )

    def _has_started(self, slot: int, lease: Lease, last: TrialReport | None) -> bool:
        """Whether the trial is in the slot; a damaged checkpoint fails its own trial alone."""
        if last is None:
            self._pack.join(slot, lease.trial, self._examples)
            return True
        try:
            self._pack.restore(slot, lease.trial, self._examples, last.checkpoint)
        except (ValueError, OSError, SafetensorError) as error:
            self._end(lease, Failed(f"{last.checkpoint} cannot be read: {error}"))
            return False
        return True

    def _step(self) -> None:
        started_s = time.perf_counter()
        results = self._results()
        seconds = time.perf_counter() - started_s
        num_steps = Counter(result.slot for result in results)
        self._step_s = seconds / max(num_steps.values(), default=1)
        self._ledger.count_step(len(results), *self._pack.last_tokens)
        self._ledger.charge(self._step_tokens(results), "trained")
        for result in results:
            tenant = self._tenants[result.slot]
            if result.failed is None:
                tenant.add(result, seconds / num_steps[result.slot])
            else:
                self._end(tenant.lease, Failed(result.failed))

    def _step_tokens(self, results: Sequence[StepResult]) -> Counter[str]:
        """Real tokens of steps by trial; that of a trial that has failed in it counts too."""
        found: Counter[str] = Counter()
        for result in results:
            batches = self._tenants[result.slot].batches
            found[result.trial_id] += batches.tokens(result.step) - batches.tokens(result.step - 1)
        return found

    def _num_ahead(self) -> int:
        """Steps to make before anybody is looked at again."""
        if not self._pack.is_queued:
            return 1
        until_rung = min(tenant.next_rung - tenant.step for tenant in self._tenants.values())
        return max(1, min(until_rung, int(AHEAD_S / self._step_s), MOST_AHEAD))

    def _results(self) -> list[StepResult]:
        """A step of the pack or some, in as many tries as its memory needs."""
        while True:
            try:
                return self._pack.step(self._num_ahead())
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                logger.warning("out of memory in a step: %s", error)
            free_memory()
            if not self._pack.use_less_memory():
                self._shrink()

    def _report(self) -> None:
        """Save, score and report all trials that stand at a rung: saved while they are scored."""
        due = [tenant for tenant in self._tenants.values() if tenant.is_at_rung]
        if not due:
            return
        self._ledger.turn_to("decide")
        self._leases.wait_decided([tenant.lease for tenant in due], self._decision_wait_s)
        due = [tenant for tenant in due if tenant.lease.is_live]
        started_s = time.perf_counter()
        self._ledger.turn_to("evaluate")
        saving = self._saver.begin_save(due)
        try:
            scored = self._scores(due)
        finally:  # no write outlives the loop
            self._saver.wait_all_saved()
        self._ledger.turn_to("report")
        saved = {
            tenant.trial.trial_id for tenant in due
            if self._is_borne(tenant.lease, saving[tenant.slot].result)
        }  # fmt: skip
        self._ledger.charge(dict.fromkeys(saved, 1), "saved")
        seconds = time.perf_counter() - started_s
        reports = [
            (tenant, self._report_of(tenant, found, seconds), found)
            for tenant, found in scored if tenant.trial.trial_id in saved
        ]  # fmt: skip
        completing = [
            self._saver.begin_completion(
                tenant, report, self._evaluator_at(report.step).rows, found
            )
            for tenant, report, found in reports
        ]
        wait(completing)
        completed = [
            (tenant, report)
            for (tenant, report, _), future in zip(reports, completing, strict=True)
            if self._is_borne(tenant.lease, future.result)
        ]
        self._announce([(tenant.lease, report) for tenant, report in completed])
        for tenant, _ in completed:
            if tenant.is_at_end:
                self._end(tenant.lease, Finished())

    def _report_of(self, tenant: Tenant, scored: EvalResult, seconds: float) -> TrialReport:
        charged_s = self._ledger.seconds_of(tenant.trial.trial_id)
        return tenant.report(scored.metrics, len(scored.answers), seconds, charged_s)

    def _announce(self, reports: Sequence[tuple[Lease, TrialReport]]) -> None:
        """Tell trials their reports, each with those of the others at its step.

        Whichever reaches the sweep first brings all of them, so that it decides about all at once
        and none waits for another. All of them are on the disk by then.
        """
        for lease, report in reports:
            at_step = [other for _, other in reports if other.step == report.step]
            cohort = tuple(other for other in at_step if other is not report)
            self._leases.post(lease, Reported(replace(report, cohort=cohort)))

    def _scores(self, tenants: Sequence[Tenant]) -> list[tuple[Tenant, EvalResult]]:
        """The scores of those trials that are still in the pack; equal rows go together."""
        groups: dict[PackEvaluator, list[Tenant]] = {}
        for tenant in tenants:
            groups.setdefault(self._evaluator_at(tenant.step), []).append(tenant)
        return [
            pair for evaluator, group in groups.items() for pair in self._scored(evaluator, group)
        ]

    def _scored(
        self, evaluator: PackEvaluator, tenants: Sequence[Tenant]
    ) -> list[tuple[Tenant, EvalResult]]:
        """The same of one group, in as many tries as needed."""
        while True:
            held = [tenant for tenant in tenants if tenant.lease.slot is not None]
            slots = [tenant.slot for tenant in held]
            try:
                found = evaluator.evaluate(self._pack.model, slots)
                self._ledger.charge(
                    {tenant.trial.trial_id: evaluator.num_tokens for tenant in held}, "scored"
                )
                return list(zip(held, found, strict=True))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                logger.warning("out of memory in an evaluation: %s", error)
            free_memory()
            if not evaluator.use_less_memory():
                self._shrink()

    def _is_borne(self, lease: Lease, is_live: Callable[[], bool]) -> bool:
        """Whether the trial is to be trained still, and the disk has borne what was to be done.

        Args:
            is_live: gives what while_live gave, or raises what it raised.
        """
        try:
            return is_live()
        except SweepAborted as aborted:
            self._end(lease, Aborted(aborted.error, aborted.fix))
            return False

    def _shrink(self) -> None:
        """Make do with one trial less: the youngest waits for a slot again."""
        lease = max((tenant.lease for tenant in self._tenants.values()), key=lambda one: one.number)
        if len(self._tenants) == 1:
            self._end(lease, Failed(NO_ROOM))
            return
        self._num_usable = len(self._tenants) - 1
        logger.warning("out of memory; going on with %d trials", self._num_usable)
        self._free(lease)

    def _end(self, lease: Lease, event: Event) -> None:
        self._free(lease)
        self._leases.post(lease, event)

    def _free(self, lease: Lease) -> None:
        """Empty the trial's slot, if it has one; a trial that has not ended waits for another."""
        if lease.slot is not None:
            self._saver.wait_saved(lease.slot)
            self._pack.leave(lease.slot)
            del self._tenants[lease.slot]
            lease.slot = None
