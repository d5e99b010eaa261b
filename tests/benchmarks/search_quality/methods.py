"""The searches that are compared: each proposes points, judges reports and names its choice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import optuna

from search_spaces.lora import LoraSpace
from sweeps.search.asha import Asha
from sweeps.search.study import Search
from trainables.config import Hyperparameters, Metric


class Method(Protocol):
    """A search over trials that are numbered as it proposed them."""

    rungs: tuple[int, ...]
    """Steps at which its trials report, the last at the full budget."""

    def propose(self) -> tuple[int, Hyperparameters]:
        """The next trial."""

    def report(self, step: int, values: Mapping[int, float]) -> Mapping[int, bool]:
        """Takes what trials of one pack measured at a rung; whether each goes on."""

    def fail(self, number: int) -> None:
        """A trial could not go on."""

    @property
    def choice(self) -> int | None:
        """The trial that it would name as the best now; None before any has reported."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every method is told."""

    space: LoraSpace
    metric: Metric
    max_steps: int
    concurrency: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class AshaOptions:
    """Settings of a search with early stopping."""

    reduction_factor: int = 3
    num_rungs: int = 4

    def list_rungs(self, max_steps: int) -> tuple[int, ...]:
        """Steps of the rungs, ascending, as SweepConfig.rungs spaces them."""
        levels = range(self.num_rungs)
        return tuple(sorted({round(max_steps / self.reduction_factor**k) for k in levels}))


DEFAULT_ASHA = AshaOptions()


class Best:
    """The best trial at the highest rung that any has reached."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._step = 0
        self._value = 0.0
        self.number: int | None = None

    def record(self, step: int, number: int, value: float) -> None:
        is_first = self.number is None or step > self._step
        if is_first or (step == self._step and self._metric.is_better(value, self._value)):
            self._step, self._value, self.number = step, value, number


class ProjectSearch:
    """This project's: sweeps.search.study.Search with sweeps.search.asha.Asha.

    Args:
        task: what is searched.
        search: proposes points and is told what became of them.
        asha: rungs and how many go on.
        is_together: decide the trials of one pack together; else in the order of their arrival.
    """

    def __init__(
        self,
        task: Task,
        search: Search,
        asha: AshaOptions = DEFAULT_ASHA,
        *,
        is_together: bool = True,
    ) -> None:
        self.rungs = asha.list_rungs(task.max_steps)
        self._search = search
        self._asha = Asha(self.rungs, asha.reduction_factor, task.metric)
        self._is_together = is_together
        self._best = Best(task.metric)

    def propose(self) -> tuple[int, Hyperparameters]:
        return self._search.propose()

    def report(self, step: int, values: Mapping[int, float]) -> Mapping[int, bool]:
        cohort = {str(number): value for number, value in values.items()}
        if self._is_together:
            decided = self._asha.decide_who_continues(step, cohort)
        else:
            decided = {}
            for trial_id, value in cohort.items():
                decided |= self._asha.decide_who_continues(step, {trial_id: value})
        for number, value in values.items():
            self._best.record(step, number, value)
            self._search.report(number, step, value)
            if step == self.rungs[-1]:
                self._search.finish(number, "completed", value)
            elif not decided[str(number)]:
                self._search.finish(number, "stopped", value)
        return {number: decided[str(number)] for number in values}

    def fail(self, number: int) -> None:
        self._search.finish(number, "failed", None)

    @property
    def choice(self) -> int | None:
        return self._best.number


class PlainTpe:
    """Optuna as it comes: TPE with its defaults, every trial trained to the end."""

    def __init__(self, task: Task) -> None:
        self.rungs: tuple[int, ...] = (task.max_steps,)
        self._space = task.space
        self._study = make_study(task.metric)
        self._study.sampler = optuna.samplers.TPESampler(seed=task.seed)
        self._best = Best(task.metric)

    def propose(self) -> tuple[int, Hyperparameters]:
        trial = self._study.ask()
        return trial.number, Hyperparameters(**self._space.suggest(trial))

    def report(self, step: int, values: Mapping[int, float]) -> Mapping[int, bool]:
        for number, value in values.items():
            self._best.record(step, number, value)
            self._study.tell(number, value)
        return dict.fromkeys(values, True)

    def fail(self, number: int) -> None:
        self._study.tell(number, state=optuna.trial.TrialState.FAIL)

    @property
    def choice(self) -> int | None:
        return self._best.number


def make_study(metric: Metric) -> optuna.Study:
    return optuna.create_study(direction=metric.direction)
