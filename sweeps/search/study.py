"""The search: which point comes next, and what a stopped or failed trial is worth to Optuna."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from search_spaces.lora import LoraSpace, Point
from sweeps.config import Sampler
from sweeps.records.schemas import Status
from sweeps.records.trial_record import TrialRecord
from sweeps.search.report_sampler import OUTSIDE, ReportSampler
from trainables.config import Hyperparameters, Metric

SamplerMaker = Callable[[int], optuna.samplers.BaseSampler]
"""Makes the sampler of one draw from its seed."""

STATES = {
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class Search:
    """One sweep's study, addressed by trial numbers.

    Each new point is drawn by a sampler of its own, seeded by the sweep's seed and the trial's
    number, so that a resumed sweep goes on with fresh draws instead of repeating its first ones.
    What was proposed and is in no log is proposed again. Stopped trials are told as PRUNED with all
    their intermediate values, failed ones as FAIL.

    Args:
        study: in memory; a StudyWriter keeps one in a database.
        sampler: how points are drawn; a function makes the sampler of one draw from its seed.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: LoraSpace,
        seed: int,
        num_startup_trials: int,
        sampler: Sampler | SamplerMaker = "tpe",
    ) -> None:
        self._study = study
        self._space = space
        self._seed = seed
        self._make_sampler: SamplerMaker = (
            partial(make_sampler, sampler, num_startup_trials=num_startup_trials)
            if isinstance(sampler, str)
            else sampler
        )
        self._trials: dict[int, optuna.Trial] = {}
        """Those that run."""
        self._starts: deque[Point] = deque()
        self.added: deque[Point] = deque()
        """Points that users asked for and that were not proposed yet."""
        self.asked: set[int] = set()
        """Trials that this process handed out and whose points a user asked for."""

    def restore(
        self, records: Sequence[TrialRecord], metric: Metric, start_points: Sequence[Point] = ()
    ) -> None:
        """Takes over the trials of earlier processes, and has those start points tried that are
        left: the first trials of a sweep are its start points."""
        for record in records:
            for _ in range(self._count_trials(), record.number):  # whose lines the log has lost
                self._study.add_trial(create_trial(state=TrialState.FAIL))
            self.enqueue(self._space.find_point(vars(record.params)), is_asked=record.is_asked)
            self.propose()
            for step, value in record.get_values(metric).items():
                self.report(record.number, step, value)
            if record.status is not None:
                self.finish(record.number, record.status, record.get_value(metric))
        for point in start_points[len(records) :]:
            self.enqueue(point)

    def propose(self, num_left: float = math.inf) -> tuple[int, Hyperparameters]:
        """The next trial's number and its point: start points, then those that users asked for,
        then drawn ones.

        Of values outside the space, which a study cannot hold beside others, no sampler learns:
        they are an attribute of the trial.

        Args:
            num_left: trials that are still to be proposed; where they are too few for all points
                that wait, start points are left out.
        """
        seeds = np.random.SeedSequence([self._seed, self._count_trials()])
        self._study.sampler = self._make_sampler(int(seeds.generate_state(1)[0]))
        is_start = bool(self._starts) and len(self.added) < num_left
        queue = self._starts if is_start else self.added
        outside: Point = {}
        if has_point := bool(queue):
            inside, outside = self._space.split_inside(queue.popleft())
            attributes = {OUTSIDE: outside} if outside else {}
            self._study.enqueue_trial(inside, user_attrs=attributes)
        trial = self._study.ask()
        self._trials[trial.number] = trial
        if has_point and not is_start:
            self.asked.add(trial.number)
        return trial.number, Hyperparameters(**self._space.suggest(trial, outside))

    def enqueue(self, point: Point, *, is_asked: bool = False) -> None:
        """Has a point, or a part of one, proposed after those of its kind that wait; the rest is
        drawn."""
        (self.added if is_asked else self._starts).append(point)

    def report(self, number: int, step: int, value: float) -> None:
        """Records the value that a trial reached at a step."""
        self._trials[number].report(value, step)

    def finish(self, number: int, status: Status, value: float | None) -> None:
        """Ends a trial; a trial that has ended already stays as it is."""
        if trial := self._trials.pop(number, None):
            self._study.tell(trial, value if status == "completed" else None, STATES[status])

    def _count_trials(self) -> int:
        return len(self._study.get_trials(deepcopy=False))


def make_sampler(kind: Sampler, seed: int, num_startup_trials: int) -> optuna.samplers.BaseSampler:
    """The sampler of one draw. Whatever Optuna's defaults become, everything that matters is said.

    "tpe" and "gp" learn from every report, also of trials that were stopped or still run. "tpe"
    models the parameters jointly and counts trials without a report as bad, so that trials that
    are proposed together differ; "gp" (a Gaussian process, which loads torch and scipy) expects
    their values instead.
    """
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if kind == "gp":
        return ReportSampler(
            optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=num_startup_trials, warn_independent_sampling=False
            )
        )
    return ReportSampler(
        optuna.samplers.TPESampler(
            multivariate=True, constant_liar=True, n_startup_trials=num_startup_trials, seed=seed
        )
    )


def choose_num_startup_trials(num_trials: int) -> int:
    """Random trials that must have reported before the sampler learns: a third, 10 at most.

    However many run at once: those that are proposed before the first report are random anyway,
    and the sampler learns from trials that still run. More of them win nothing in searches that are
    replayed over measured trainings (tests.benchmarks.search_quality).
    """
    return max(1, min(10, num_trials // 3))
