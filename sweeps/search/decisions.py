"""What reports mean for their trials: which continue, and how and why the others end."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from sweeps.records.events import Status
from sweeps.search.asha import Asha
from trainables.config import Metric, TrialReport

Ends = dict[str, tuple[Status, str]]
"""How trials end, and why, by trial."""


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
        """Takes a value that an earlier process decided on."""
        self._asha.record(trial_id, step, value)

    def find_fault(self, report: TrialReport) -> str:
        """Why a report is worth nothing, or ""."""
        name, step = self._metric.name, report.step
        if step not in self._rungs:
            return f"it reported at step {step}, which is no rung"
        if report.metrics.get(name) is None:
            return f"its report at step {step} has no {name}"
        value = report.metrics[name]
        return "" if math.isfinite(value) else f"{name} is {value} at step {step}"

    def decide(self, step: int, values: Mapping[str, float], unranked: Collection[str]) -> Ends:
        """How those trials end that do not continue after the step.

        Args:
            step: a rung.
            values: of the trials of one cohort.
            unranked: those of them that ASHA is told nothing of, because nobody stops them.
        """
        if step == self._rungs[-1]:
            return dict.fromkeys(values, ("completed", ""))
        ranked = {name: value for name, value in values.items() if name not in unranked}
        should_continue = self._asha.decide(step, ranked)
        return {
            name: ("stopped", self._asha.describe_rank(name, step))
            for name in ranked
            if not should_continue[name]
        }


def list_cohort(report: TrialReport) -> list[TrialReport]:
    """The reports of all trials that were scored together, by trial.

    The trial whose report arrives brings the others in it. Here each report has the others, as if
    its own trial had been the one to bring them.
    """
    members = sorted((report, *report.cohort), key=lambda member: member.trial_id)
    alone = [replace(member, cohort=()) for member in members]
    return [replace(r, cohort=tuple(other for other in alone if other is not r)) for r in alone]
