"""What reports mean for their trials: which continue, and how and why the others end."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

from sweeps.records.schemas import Status
from sweeps.search.asha import Asha
from trainables.config import Metric, TrialReport

Ends = dict[str, tuple[Status, str]]
"""How trials end, and why, by trial."""


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
