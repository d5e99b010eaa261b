"""One search over a table, event by event: trials of a pack step together, report and go."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.benchmarks.search_quality.grid import Configuration
from tests.benchmarks.search_quality.landscape import Landscape
from tests.benchmarks.search_quality.methods import Method


@dataclass(kw_only=True)
class _Trial:
    """A trial in the pack."""

    configuration: Configuration
    run: int
    """Which of the table's trainings of the configuration it repeats."""
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What is known of a search at a time."""

    gpu_s: float
    """GPU-seconds spent so far."""
    regret: float
    """Regret of the configuration that would be chosen now."""


class Simulation:
    """A pack in which a search trains.

    All trials of the pack make their steps together, so those that began together reach a rung
    together: their reports are one cohort, in the order of the slots. A freed slot trains the
    next proposal from then on. A pack is busy as long as it holds a trial, so the GPU-seconds
    spent are the sum over all training-steps and evaluations.
    """

    def __init__(self, landscape: Landscape, method: Method, concurrency: int, seed: int) -> None:
        self._landscape = landscape
        self._method = method
        self._concurrency = concurrency
        self._seed = seed
        self._running: dict[int, _Trial] = {}
        self._ran: dict[int, Configuration] = {}
        self._gpu_s = 0.0

    def run(self, budget_gpu_s: float) -> list[Moment]:
        """Search until the budget is spent; a moment for each cohort that reported in time."""
        moments = [Moment(gpu_s=0.0, regret=self._landscape.mean_regret)]
        while True:
            while len(self._running) < self._concurrency:
                number, params = self._method.propose()
                draw = np.random.default_rng([self._seed, number])
                configuration = self._landscape.find_configuration(params)
                run = int(draw.integers(self._landscape.num_seeds))
                self._running[number] = _Trial(configuration=configuration, run=run)
                self._ran[number] = configuration
            cohorts = self._step_to_rung()
            if self._gpu_s > budget_gpu_s:
                return moments
            for step, numbers in cohorts.items():
                self._report(step, numbers)
            choice, regret = self._method.choice, self._landscape.mean_regret
            if choice is not None:
                regret = self._landscape.find_regret(self._ran[choice])
            moments.append(Moment(gpu_s=self._gpu_s, regret=regret))

    def _step_to_rung(self) -> dict[int, list[int]]:
        """Step all until some stand at a rung; these, by rung."""
        rungs = self._method.rungs
        lefts = {
            number: min(rung for rung in rungs if rung > trial.step) - trial.step
            for number, trial in self._running.items()
        }
        num_steps = min(lefts.values())
        self._gpu_s += num_steps * len(self._running) * self._landscape.step_gpu_s
        cohorts: dict[int, list[int]] = {}
        for number, trial in self._running.items():
            trial.step += num_steps
            if lefts[number] == num_steps:
                cohorts.setdefault(trial.step, []).append(number)
        for step, numbers in cohorts.items():
            self._gpu_s += len(numbers) * self._landscape.eval_gpu_s[step]
        return cohorts

    def _report(self, step: int, numbers: Sequence[int]) -> None:
        values = {}
        for number in numbers:
            trial = self._running[number]
            value = self._landscape.find_value(trial.configuration, trial.run, step)
            if value is None:
                self._method.fail(number)
                del self._running[number]
            else:
                values[number] = value
        if not values:
            return
        should_continue = self._method.report(step, values)
        for number in values:
            if step == self._method.rungs[-1] or not should_continue[number]:
                del self._running[number]


def find_regrets(moments: Sequence[Moment], budgets_gpu_s: Sequence[float]) -> list[float]:
    """The regret when each budget is spent: that of the last moment before."""
    times = [moment.gpu_s for moment in moments]
    indices = np.searchsorted(times, budgets_gpu_s, side="right") - 1
    return [moments[index].regret for index in indices]
