"""Trains configurations in one pack without Ray, cohort by cohort, and measures them at rungs."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.benchmarks.search_quality.grid import Configuration
from tests.benchmarks.search_quality.measurements import Measurement
from trainables.config import TrainingSettings, TrialConfig
from trainables.data.rows import Splits, select_rung_rows
from trainables.data.tokens import encode_training_rows
from trainables.models.base_model import get_device, load_tokenizer
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.service.loading import make_pack
from trainables.packing.sizing.capacity import Capacity

Take = Callable[[Configuration, int, Measurement], None]
"""Receives what was measured of a configuration with a seed."""


@dataclass(kw_only=True)
class _Member:
    """One training of a cohort."""

    configuration: Configuration
    seed: int
    slot: int
    train_gpu_s: float = 0.0
    has_failed: bool = False


@dataclass(kw_only=True)
class _Cohort:
    """Trainings that go in step from beginning to end."""

    members: list[_Member]
    started_s: float = field(default_factory=time.perf_counter)
    step: int = 0

    @property
    def living(self) -> list[_Member]:
        return [member for member in self.members if not member.has_failed]

    @property
    def wall_s(self) -> float:
        return time.perf_counter() - self.started_s


class Trainer:
    """One pack, its rows and its evaluators.

    Args:
        settings: of every training, but for the seed.
        splits: the rows of all.
        capacity: sizes of the pack.
        take: is told every measurement as soon as it is made.
    """

    def __init__(
        self, settings: TrainingSettings, splits: Splits, capacity: Capacity, take: Take
    ) -> None:
        self._settings = settings
        self._take = take
        tokenizer = load_tokenizer(settings.model)
        self._examples = encode_training_rows(
            tokenizer, splits.train, settings.max_length_tokens, settings.max_new_tokens
        )
        self._pack = make_pack(settings, capacity)
        by_rows: dict[int, PackEvaluator] = {}
        self._evaluators: dict[int, PackEvaluator] = {}
        for step in settings.rungs:
            rows = select_rung_rows(splits.validation, settings, step)
            self._evaluators[step] = by_rows.setdefault(
                len(rows),
                PackEvaluator(
                    tokenizer,
                    rows,
                    splits.scoring,
                    settings,
                    max_tokens=capacity.eval_tokens,
                    is_graphed=get_device().type == "cuda",
                    state_positions=self._pack.model.state_positions,
                ),
            )

    @property
    def cohort_size(self) -> int:
        return len(self._pack.free_slots())

    def train(self, wanted: Sequence[tuple[Configuration, int]], deadline_s: float) -> bool:
        """Trains configurations with their seeds, as many as there are slots, to the end.

        Args:
            deadline_s: time.perf_counter() at which they are given up.

        Returns:
            Whether they came to their ends.
        """
        cohort = _Cohort(members=list(self._joined(wanted)))
        try:
            while cohort.step < self._settings.max_steps and cohort.living:
                if time.perf_counter() > deadline_s:
                    return False
                self._step(cohort)
                if cohort.step in self._evaluators:
                    self._measure(cohort)
            return True
        finally:
            for member in cohort.members:
                self._pack.leave(member.slot)

    def _joined(self, wanted: Sequence[tuple[Configuration, int]]) -> Iterator[_Member]:
        free = self._pack.free_slots()
        for slot, (configuration, seed) in zip(free, wanted, strict=False):
            trial = TrialConfig(
                trial_id=f"slot{slot}",
                params=configuration.params,
                settings=replace(self._settings, seed=seed),
                folder=Path(),
            )
            self._pack.join(slot, trial, self._examples)
            yield _Member(configuration=configuration, seed=seed, slot=slot)

    def _step(self, cohort: _Cohort) -> None:
        """One step of all; each has an equal share of its time, for equal rows."""
        started_s = time.perf_counter()
        living = {member.slot: member for member in cohort.living}
        results = self._pack.step()
        share_s = (time.perf_counter() - started_s) / len(living)
        cohort.step += 1
        for result in results:
            member = living[result.slot]
            member.train_gpu_s += share_s
            if result.failed is not None:
                member.has_failed = True
                self._tell(cohort, member, Measurement(step=result.step, failed=result.failed))

    def _measure(self, cohort: _Cohort) -> None:
        living = cohort.living
        evaluator = self._evaluators[cohort.step]
        started_s = time.perf_counter()
        results = evaluator.evaluate(self._pack.model, [member.slot for member in living])
        share_s = (time.perf_counter() - started_s) / max(1, len(living))
        for member, scored in zip(living, results, strict=True):
            measured = Measurement(
                step=cohort.step,
                metrics={name: round(value, 5) for name, value in scored.metrics.items()},
                eval_rows=len(evaluator.rows),
                eval_gpu_s=round(share_s, 5),
            )
            self._tell(cohort, member, measured)

    def _tell(self, cohort: _Cohort, member: _Member, measured: Measurement) -> None:
        whole = replace(
            measured,
            tokens=self._pack.get_batches(member.slot).count_tokens(cohort.step),
            train_gpu_s=round(member.train_gpu_s, 5),
            wall_s=round(cohort.wall_s, 3),
        )
        self._take(member.configuration, member.seed, whole)
