"""What reports mean for their trials: which go on, and how and why the others end."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from sweeps.records.events import Status
from sweeps.search.asha import Asha
from trainables.config import Metric, TrialReport

Ends = dict[str, tuple[Status, str]]
"""How trials have ended, and why."""


class Decisions:
    """The rules by which a trial ends: a report that is worth nothing, the last step, ASHA.

    Args:
        rungs: steps at which trials report, ascending.
        reduction_factor: see Asha.
        metric: by which trials are ranked.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: int, metric: Metric) -> None:
        self._rungs = rungs
        self._metric = metric
        self._asha = Asha(rungs, reduction_factor, metric)

    def record(self, trial_id: str, step: int, value: float) -> None:
        """Notes a value that was decided on before."""
        self._asha.record(trial_id, step, value)

    def fault(self, report: TrialReport) -> str:
        """Why a report is worth nothing, or ""."""
        name, step = self._metric.name, report.step
        if step not in self._rungs:
            return f"it reported at step {step}, which is no rung"
        if report.metrics.get(name) is None:
            return f"its report at step {step} has no {name}"
        value = report.metrics[name]
        return "" if math.isfinite(value) else f"{name} is {value} at step {step}"

    def ends(self, step: int, cohort: Mapping[str, float], unranked: Collection[str]) -> Ends:
        """Those of a cohort that do not go on after the step.

        Args:
            step: a rung.
            cohort: values by trial.
            unranked: those of them that ASHA is told nothing of, because nobody stops them.
        """
        if step == self._rungs[-1]:
            return dict.fromkeys(cohort, ("completed", ""))
        ranked = {one: value for one, value in cohort.items() if one not in unranked}
        goes_on = self._asha.decide(step, ranked)
        stopped = (trial_id for trial_id, keeps in goes_on.items() if not keeps)
        return {one: ("stopped", self._asha.standing(one, step)) for one in stopped}


def as_told_by_each(report: TrialReport) -> list[TrialReport]:
    """The reports of a cohort, by trial, each as if it had been the one to bring the others."""
    members = sorted((report, *report.cohort), key=lambda one: one.trial_id)
    alone = [replace(one, cohort=()) for one in members]
    return [
        replace(one, cohort=tuple(other for other in alone if other is not one)) for one in alone
    ]
