"""The Optuna study: which point comes next, and what a stopped or failed trial is worth to it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from search_spaces.lora import LoraSpace, Point
from sweeps.config import Sampler
from sweeps.records.events import Status
from sweeps.search.report_sampler import OUTSIDE, ReportSampler
from sweeps.search.storage import STORAGE_ERRORS, describe_cause
from trainables.config import Hyperparameters
from trainables.errors import REPEAT, SweepAborted

SamplerMaker = Callable[[int], optuna.samplers.BaseSampler]
"""Makes the sampler of one draw from its seed."""

REQUEST = "request_id"
"""User attribute of a trial whose point a user asked for."""
_STATES = {
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@contextmanager
def _abort_without_storage() -> Iterator[None]:
    try:
        yield
    except STORAGE_ERRORS as refused:
        error = f"the study storage failed: {describe_cause(refused)}"
        raise SweepAborted(error, f"wait until it answers again, {REPEAT}") from refused


class Search:
    """One sweep's study, addressed by trial numbers.

    Each new point is drawn by a sampler of its own, seeded by the sweep's seed and the trial's
    number, so that a resumed sweep goes on with fresh draws instead of repeating its first ones.
    Stopped trials are told as PRUNED with all their intermediate values, failed ones as FAIL.

    Args:
        study: see open_study.
        space: what may vary.
        seed: of the sweep.
        num_startup_trials: see the function of this name.
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
        self._steps: dict[int, set[int]] = {}
        self.asked: set[int] = set()
        """Of the trials that this process handed out, those whose points a user asked for."""

    @_abort_without_storage()
    def propose(self) -> tuple[int, Hyperparameters]:
        """The next trial's number and its point: start points first, then drawn ones."""
        states = (TrialState.RUNNING, *_STATES.values())
        self._seed_sampler(len(self._study.get_trials(deepcopy=False, states=states)))
        trial = self._study.ask()
        return trial.number, self._suggest(trial)

    @_abort_without_storage()
    def enqueue(self, point: Point, request_id: str) -> None:
        """Has a point proposed after those that wait; once, however often it is called.

        What it does not name is drawn. Of values outside the space, which a study cannot hold
        beside others, no sampler learns: they are an attribute of the trial.
        """
        trials = self._study.get_trials(deepcopy=False)
        if any(trial.user_attrs.get(REQUEST) == request_id for trial in trials):
            return
        outside = {n: v for n, v in point.items() if not self._space.contains({n: v})}
        inside = {name: value for name, value in point.items() if name not in outside}
        attributes = {REQUEST: request_id} | ({OUTSIDE: outside} if outside else {})
        self._study.enqueue_trial(inside, user_attrs=attributes)

    @_abort_without_storage()
    def adopt(self, number: int) -> Hyperparameters:
        """Goes on with a trial that an earlier process left running; a half-drawn point is drawn.

        Raises:
            SweepAborted: the study has no such trial, so it is not this sweep's.
        """
        frozen = self.require(number)
        self._seed_sampler(number)
        # Optuna only makes a Trial in ask() and has no public way to go on with one that another
        # process began. Its id is a private field, so pyproject.toml bounds Optuna's version, and
        # test_half_drawn_trials_of_a_killed_process_are_completed fails if the field changes.
        return self._suggest(optuna.trial.Trial(self._study, frozen._trial_id))

    @_abort_without_storage()
    def list_running(self) -> list[int]:
        """Numbers of the trials that have begun and not ended, ascending."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.number for trial in running]

    def require(self, number: int) -> FrozenTrial:
        """The study's trial of this number.

        Raises:
            SweepAborted: it has none, so it is not the study that the sweep began with.
        """
        trials = self._study.get_trials(deepcopy=False)
        if number >= len(trials):
            raise SweepAborted(
                f"the Optuna study {self._study.study_name!r} has {len(trials)} trials, but the "
                f"event log knows trial number {number}",
                "give the study storage that the sweep began with, or begin a new sweep",
            )
        return trials[number]

    @_abort_without_storage()
    def report(self, number: int, step: int, value: float) -> None:
        """Records the value that a trial reached at a step; the same step twice counts once."""
        if number not in self._steps:  # one question a trial, not one a report
            self._steps[number] = set(self.require(number).intermediate_values)
        if step not in self._steps[number]:
            self._trials[number].report(value, step)
            self._steps[number].add(step)

    @_abort_without_storage()
    def finish(self, number: int, status: Status, value: float | None, reason: str) -> None:
        """Ends a trial; a trial that has ended already stays as it is."""
        if self.require(number).state.is_finished():
            return
        if reason:
            self._trials[number].set_user_attr("reason", reason)
        final = value if status == "completed" else None
        self._study.tell(number, final, state=_STATES[status], skip_if_finished=True)

    def catch_up(
        self, number: int, values: Mapping[int, float], status: Status | None, reason: str
    ) -> None:
        """Tells the study what the event log knows of a trial, and the study may not."""
        for step, value in sorted(values.items()):
            self.report(number, step, value)
        if status is not None:
            self.finish(number, status, values[max(values)] if values else None, reason)

    def _suggest(self, trial: optuna.Trial) -> Hyperparameters:
        self._trials[trial.number] = trial
        attributes = trial.user_attrs
        if REQUEST in attributes:
            self.asked.add(trial.number)
        outside = attributes.get(OUTSIDE)
        params = Hyperparameters(**self._space.suggest(trial, outside))
        trial.set_user_attr("lora_alpha", params.lora_alpha)
        return params

    def _seed_sampler(self, number: int) -> None:
        (seed,) = np.random.SeedSequence([self._seed, number]).generate_state(1)
        self._study.sampler = self._make_sampler(int(seed))


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


def num_startup_trials(num_trials: int) -> int:
    """Random trials that must have reported before the sampler learns: a third, 10 at most.

    However many run at once: those that are proposed before the first report are random anyway,
    and the sampler learns from trials that still run. More of them win nothing in searches that are
    replayed over measured trainings (tests.benchmarks.search_quality).
    """
    return max(1, min(10, num_trials // 3))


def enqueue(study: optuna.Study, points: Sequence[Point], num_trials: int) -> None:
    """Lets the first trials try these points; a point that the study knows is not repeated.

    What a point does not name is drawn.
    """
    for point in points[:num_trials]:
        study.enqueue_trial(dict(point), skip_if_exists=True)
