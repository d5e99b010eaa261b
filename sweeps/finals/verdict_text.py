"""What the finals came to, in words: for the summary and for the model card."""

import math
from collections import Counter
from collections.abc import Mapping

from sweeps.finals.verdict import Finalist, Verdict
from sweeps.records.trial_record import TrialRecord
from trainables.config import Metric
from trainables.metrics.eval_result import SavedAnswers
from trainables.metrics.registry import format_score

MAX_EQUAL_FRAC = 0.9
"""A larger share of equal texts is one answer to everybody."""


def write_sentences(verdict: Verdict) -> list[str]:
    """The winner, its lead and how sure that is, which adapter is kept, and what went amiss."""
    winner, best_run = verdict.winner, verdict.best_run
    if winner is None or best_run is None:
        return [
            "no run of the finals reached the end: the best trial of the search stands",
            *verdict.notes,
        ]
    lines = [f"winner of the finals: {winner.trial_id}, {_describe_mean(verdict, winner)}"]
    if verdict.lead is not None:
        lines.append(_describe_lead(verdict, verdict.finalists[1]))
    lines.append(
        f"best/ holds {best_run.trial_id}, the best of the winner's seeds on validation "
        f"({verdict.metric.name} {show_score(verdict, best_run.get_value(verdict.metric))}, "
        f"seed {best_run.seed})"
    )
    return [*lines, *(f"note: {note}" for note in verdict.notes)]


def describe_place(
    run: TrialRecord, chosen: TrialRecord | None, metric: Metric, verdict: Verdict | None
) -> str:
    """Where a run stands that the sweep has not chosen: the place of its configuration in the
    finals, and who won; without finals who was chosen.

    Args:
        chosen: the run whose adapter was; None before the look at test.
    """
    trial_id = run.final_of or run.trial_id
    if verdict is None or verdict.winner is None or verdict.best_run is None:
        if chosen is None:
            return ""
        value = format_score(metric.name, chosen.get_value(metric), (run.get_value(metric),))
        return f"The sweep chose {chosen.trial_id}, {metric.name} {value} on validation."
    winner, best_run = verdict.winner, verdict.best_run
    own = "Its configuration" if run.final_of is None else f"Its configuration, {trial_id},"
    if trial_id == winner.trial_id:
        mean = _describe_mean(verdict, winner)
        return f"{own} won the finals with {mean}, of which the sweep chose {best_run.trial_id}."
    won = f"The winner is {winner.trial_id} with {_describe_mean(verdict, winner)}."
    for place, finalist in enumerate(verdict.finalists, 1):
        if finalist.trial_id == trial_id and finalist.completed:
            where = f"place {place} of {len(verdict.finalists)}"
            return (
                f"{own} took {where} in the finals with {_describe_mean(verdict, finalist)}. {won}"
            )
        if finalist.trial_id == trial_id:
            return f"{own} was in the finals, and none of its runs there reached the end. {won}"
    return f"{own} was not in the finals. {won}"


def describe_single_answer(answers: Mapping[str, SavedAnswers], *, is_label: bool) -> str | None:
    """A sentence if the winner says one thing to everybody; it does not repeat a text."""
    for split, said in answers.items():
        total = len(said.answers)
        (answer, num) = max(Counter(said.answers).items(), key=lambda item: item[1])
        if is_label and num == total > 1:
            return f"the winner says {answer!r} to all {total} rows of {split}"
        if not is_label and total > 1 and num > MAX_EQUAL_FRAC * total:
            return f"the winner gives the same answer to {num} of {total} rows of {split}"
    return None


def describe_no_lead(
    key: str,
    title: str,
    scores: Mapping[str, Mapping[str, float]],
    metric: Metric,
    intervals: Mapping[str, tuple[float, float] | None],
) -> str | None:
    """A sentence if the winner is no better than a baseline on a split, or if that may be chance.

    A baseline without a finite score says nothing.

    Args:
        key: ends the names of the baseline's scores.
        title: the baseline in words.
        scores: metrics by split, the winner's and the baseline's.
        intervals: of the winner's lead, by split, as far as they can be told; else scores decide.
    """
    places, is_behind = [], False
    for split in ("validation", "test"):
        best, other = (scores.get(of, {}).get(metric.name) for of in (split, f"{split}_{key}"))
        interval = intervals.get(split)
        if best is None or other is None or not math.isfinite(other):
            continue
        lead = metric.sign * (best - other)
        if (lead if interval is None else interval[0]) > 0:
            continue
        is_behind |= not lead > 0  # also where the winner's score is no number
        shown, below = (format_score(metric.name, v, (best, other)) for v in (best, other))
        place = f"{shown} against {below} on {split}"
        if interval is not None:
            low, high = (format_score(metric.name, v, (best, other)) for v in interval)
            place += f" (95% interval of the lead {low} to {high})"
        places.append(place)
    if not places:
        return None
    verb = "is" if is_behind else "may be"
    return f"the winner {verb} no better than {title}: {metric.name} {' and '.join(places)}"


def _describe_mean(verdict: Verdict, finalist: Finalist) -> str:
    num, deviation = len(finalist.completed), finalist.deviation
    seeds = f"{num} fresh seeds" if num > 1 else "one fresh seed"
    spread = "" if deviation is None else f" +- {show_score(verdict, deviation)}"
    return f"{verdict.metric.name} {show_score(verdict, finalist.mean)}{spread} over {seeds}"


def _describe_lead(verdict: Verdict, second: Finalist) -> str:
    line = f"it leads {second.trial_id} by {show_score(verdict, verdict.lead)}"
    if verdict.interval is None:
        return line
    low, high = (show_score(verdict, value) for value in verdict.interval)
    line += (
        f" (95% interval {low} to {high}; {verdict.num_rows} validation rows in pairs, and "
        "seeds, resampled)"
    )
    if verdict.finalists[0].probability_best is not None:
        line += f" and is the best with probability {verdict.finalists[0].probability_best:.2f}"
    return line if verdict.interval[0] > 0 else f"{line}: the lead may be chance"


def show_score(verdict: Verdict, value: float | None) -> str:
    """With the digits that tell the finalists' means apart."""
    means = (finalist.mean for finalist in verdict.finalists)
    return format_score(verdict.metric.name, value, means)
