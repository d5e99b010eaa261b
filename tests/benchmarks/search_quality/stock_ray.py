"""Ray Tune's own search and scheduler, driven as its controller drives them; the only Ray here."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from search_spaces.lora import make_hyperparameters
from tests.benchmarks.search_quality.methods import DEFAULT_ASHA, AshaOptions, Task
from trainables.config import Hyperparameters


class StockRay:
    """OptunaSearch with ASHAScheduler, with the rungs and the reduction factor of this project's.

    What they are told, and in which order, is TuneController._process_trial_result and stop_trial
    of Ray 2.60. The choice is ResultGrid.get_best_result's: the best last value, whatever the rung.
    """

    def __init__(self, task: Task, asha: AshaOptions = DEFAULT_ASHA) -> None:
        self.rungs = asha.list_rungs(task.max_steps)
        self._metric = task.metric
        self._search = OptunaSearch(
            space=task.space.distributions,
            metric=task.metric.name,
            mode=task.metric.mode,
            seed=task.seed,
        )
        self._scheduler = ASHAScheduler(
            time_attr="step",
            metric=task.metric.name,
            mode=task.metric.mode,
            max_t=task.max_steps,
            grace_period=self.rungs[0],
            reduction_factor=asha.reduction_factor,
        )
        self._trials: list[Any] = []
        self._last: dict[int, float] = {}

    def propose(self) -> tuple[int, Hyperparameters]:
        number = len(self._trials)
        trial = SimpleNamespace(trial_id=f"{number:05d}")
        point = self._search.suggest(trial.trial_id)
        assert isinstance(point, dict), "an OptunaSearch without limits always has a next trial"
        self._scheduler.on_trial_add(None, trial)
        self._trials.append(trial)
        return number, Hyperparameters(**make_hyperparameters(point))

    def report(self, step: int, values: Mapping[int, float]) -> Mapping[int, bool]:
        return {
            number: self._should_continue(number, step, value) for number, value in values.items()
        }

    def fail(self, number: int) -> None:
        trial = self._trials[number]
        self._scheduler.on_trial_error(None, trial)
        self._search.on_trial_complete(trial.trial_id, error=True)

    @property
    def choice(self) -> int | None:
        worths = {number: self._metric.sign * value for number, value in self._last.items()}
        return max(worths, key=lambda number: worths[number], default=None)

    def _should_continue(self, number: int, step: int, value: float) -> bool:
        trial = self._trials[number]
        result = {
            "step": step,
            "training_iteration": self.rungs.index(step) + 1,
            self._metric.name: value,
        }
        self._last[number] = value
        decision = self._scheduler.on_trial_result(None, trial, result)
        if decision == TrialScheduler.STOP:
            self._scheduler.on_trial_complete(None, trial, result)
            self._search.on_trial_complete(trial.trial_id, result)
            return False
        self._search.on_trial_result(trial.trial_id, result)
        return True
