"""A table as an objective: what a trial of any point would report, and what it would cost."""

from collections.abc import Mapping
from functools import cached_property
from statistics import median

from search_spaces.lora import LoraSpace
from tests.benchmarks.search_quality.grid import Configuration, find_nearest
from tests.benchmarks.search_quality.measurements import Table
from trainables.config import Hyperparameters, Metric


class Landscape:
    """The measured values by configuration, seed and step.

    A point between two learning rates is worth what the nearer one is. Every training-step costs
    the same, and every evaluation at one step: the medians over all runs, since all train on
    equal rows and the first ones also paid for kernels that the others found ready.

    Args:
        table: fully trained configurations.
        metric: that ranks them.
    """

    def __init__(self, table: Table, metric: Metric) -> None:
        self.metric = metric
        self.rungs = table.rungs
        self._runs = {one.configuration: one.runs for one in table.trained}
        self._known = sorted(self._runs)
        self._nearest: dict[Configuration, Configuration] = {}
        runs = [run for one in table.trained for run in one.runs]
        self.step_gpu_s = median(
            last.train_gpu_s / last.step
            for last in (run.measurements[-1] for run in runs)
            if last.failed is None
        )
        """GPU-seconds of one training-step of one trial."""
        self.eval_gpu_s = {
            step: median(
                one.eval_gpu_s for run in runs for one in run.measurements if one.step == step
            )
            for step in self.rungs
        }
        """GPU-seconds of one trial's evaluation, by step."""
        values = [m.metrics[metric.name] for run in runs for m in run.measurements if not m.failed]
        self._worst = min(values, key=lambda value: metric.sign * value)
        """What a failed run counts as."""

    @property
    def max_steps(self) -> int:
        return self.rungs[-1]

    @property
    def num_seeds(self) -> int:
        return min(len(runs) for runs in self._runs.values())

    @property
    def num_configurations(self) -> int:
        return len(self._known)

    @cached_property
    def mean_finals(self) -> Mapping[Configuration, float]:
        """The value at the full budget of each configuration, its mean over the table's seeds."""
        means = {}
        for one, runs in self._values.items():
            finals = [run.get(self.max_steps, self._worst) for run in runs]
            means[one] = sum(finals) / len(finals)
        return means

    @cached_property
    def best(self) -> Configuration:
        return max(self._known, key=lambda one: self.metric.sign * self.mean_finals[one])

    @cached_property
    def mean_regret(self) -> float:
        """The regret of a configuration drawn at random: what knowing nothing is worth."""
        return sum(map(self.find_regret, self._known)) / len(self._known)

    def sum_gpu_s(self, rungs: tuple[int, ...]) -> float:
        """GPU-seconds of training every configuration once, fully, with evaluations at rungs."""
        eval_gpu_s = sum(self.eval_gpu_s[step] for step in rungs)
        return self.num_configurations * (self.max_steps * self.step_gpu_s + eval_gpu_s)

    def find_configuration(self, params: Hyperparameters) -> Configuration:
        """The table's configuration that stands for a proposed point."""
        wanted = Configuration.of(params)
        if wanted not in self._nearest:
            self._nearest[wanted] = find_nearest(wanted, self._known)
        return self._nearest[wanted]

    def find_value(self, configuration: Configuration, run: int, step: int) -> float | None:
        """What one of its runs measured at a step; None if the run has failed by then."""
        return self._values[configuration][run].get(step)

    def find_regret(self, configuration: Configuration) -> float:
        """How far its mean lies behind the best one's, 0 or more."""
        return abs(self.mean_finals[self.best] - self.mean_finals[configuration])

    @cached_property
    def _values(self) -> dict[Configuration, list[dict[int, float]]]:
        name = self.metric.name
        return {
            one: [
                {m.step: m.metrics[name] for m in run.measurements if m.failed is None}
                for run in runs
            ]
            for one, runs in self._runs.items()
        }

    @cached_property
    def space(self) -> LoraSpace:
        rates, ranks, alphas, dropouts = (
            tuple(sorted({getattr(one, name) for one in self._known}))
            for name in ("learning_rate", "lora_rank", "alpha_over_rank", "lora_dropout")
        )
        return LoraSpace(
            learning_rates=(rates[0], rates[-1]),
            lora_ranks=ranks,
            alphas_over_rank=alphas,
            lora_dropouts=dropouts,
        )
