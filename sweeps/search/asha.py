"""ASHA: which trials continue at a rung (arXiv 1810.05934, the variant that stops), and how and why
the others end."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from sweeps.records.schemas import Status
from trainables.config import Metric, TrialReport

Ends = dict[str, tuple[Status, str]]
"""How trials end, and why, by trial."""


class Asha:
    """Compares trials with all others that have reached the same rung.

    A trial continues when it is among the best 1 / reduction_factor of the trials that have
    reached the rung, itself included, and at least the best one always does. Values of
    different rungs are never compared. Equal values share their fate: where they stand at the
    border all of them continue, because nothing that was measured tells them apart, and a choice by
    number would stop what is as good as what it keeps.

    Trials that were scored together are a cohort. All of a cohort are recorded before any is
    decided, so its decisions are a function of values, not of the order in which its trials
    report. What does depend on time, and has to where nobody waits: which other cohorts have
    reached the rung before. Early ones are compared with few and later ones with many, a trial
    that trains alone is a cohort of one, and a trial that has continued is not called back.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: int, metric: Metric) -> None:
        self._metric = metric
        self._reduction_factor = reduction_factor
        self.last_rung = rungs[-1]
        self._worths: dict[int, dict[str, float]] = {rung: {} for rung in rungs}
        """By rung and trial; more is better."""

    def decide_who_continues(self, step: int, cohort: Mapping[str, float]) -> dict[str, bool]:
        """Records the values of a cohort; then, by trial, whether it should continue.

        Raises:
            KeyError: step is not a rung.
        """
        for trial_id, value in cohort.items():
            self.record(trial_id, step, value)
        return {trial_id: self.should_continue(trial_id, step) for trial_id in cohort}

    def record(self, trial_id: str, step: int, value: float) -> None:
        """Takes a trial's value at a rung; a later value for the same rung replaces it.

        Raises:
            KeyError: step is not a rung.
        """
        self._worths[step][trial_id] = self._metric.sign * value

    def should_continue(self, trial_id: str, step: int) -> bool:
        """Whether a trial whose value at this rung is recorded continues, as things stand."""
        if step == self.last_rung:
            return True
        quota = max(1, len(self._worths[step]) // self._reduction_factor)
        return self._count_better(trial_id, step) < quota

    def describe_rank(self, trial_id: str, step: int) -> str:
        """The trial's rank at a rung in words, e.g. "place 3 of 5 at step 30"."""
        rank = self._count_better(trial_id, step) + 1
        return f"place {rank} of {len(self._worths[step])} at step {step}"

    def _count_better(self, trial_id: str, step: int) -> int:
        worths = self._worths[step]
        own_worth = worths[trial_id]
        return [worth > own_worth for worth in worths.values()].count(True)


def find_fault(report: TrialReport, rungs: Collection[int], metric: Metric) -> str:
    """Why a report is worth nothing, or ""."""
    name, step = metric.name, report.step
    if step not in rungs:
        return f"it reported at step {step}, which is no rung"
    if report.metrics.get(name) is None:
        return f"its report at step {step} has no {name}"
    value = report.metrics[name]
    return "" if math.isfinite(value) else f"{name} is {value} at step {step}"


def decide_ends(
    asha: Asha, step: int, values: Mapping[str, float], unranked: Collection[str]
) -> Ends:
    """How those trials end that do not continue after a rung.

    Args:
        values: of the trials of one cohort.
        unranked: those of them that ASHA is told nothing of, because nobody stops them.
    """
    if step == asha.last_rung:
        return dict.fromkeys(values, ("completed", ""))
    ranked = {trial_id: value for trial_id, value in values.items() if trial_id not in unranked}
    return {
        trial_id: ("stopped", asha.describe_rank(trial_id, step))
        for trial_id, is_continuing in asha.decide_who_continues(step, ranked).items()
        if not is_continuing
    }


def list_cohort(report: TrialReport) -> list[TrialReport]:
    """The reports of all trials that were scored together, by trial.

    The trial whose report arrives brings the others in it. Here each report has the others, as if
    its own trial had been the one to bring them.
    """
    members = sorted((report, *report.cohort), key=lambda member: member.trial_id)
    alone = [replace(member, cohort=()) for member in members]
    return [replace(r, cohort=tuple(other for other in alone if other is not r)) for r in alone]
