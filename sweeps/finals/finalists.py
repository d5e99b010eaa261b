"""The finals: who trains again, with which seeds, once the search has ended. No torch, no Ray.

A search names the luckiest of many single runs. In the finals its best configurations are trained
to the full budget with several seeds each, so that the winner is chosen by a mean and its lead can
be told from chance. A seed decides the order of the rows, the first weights and the dropout.

Only fresh seeds count. The run of the search made its configuration a finalist because its value
was high, luck included: in a mean it would favour whoever was luckiest, and the interval of the
lead would speak of values that were chosen (the winner's curse; choosing and estimating on
different data, as in sample splitting, is free of it). Seeds are fresh, validation's rows are those
of the search; what test says of the winner was chosen by neither.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.config import SweepConfig
from sweeps.records.trial_record import TrialRecord, replay, replay_finals
from sweeps.records.trials_csv import rank
from trainables.config import Metric


@dataclass(frozen=True, kw_only=True)
class FinalRun:
    """One training of a finalist to the full budget, with a seed that the search has not used."""

    trial_id: str
    """E.g. f0007s1: t0007 with the first fresh seed."""
    of: str
    """The search's trial whose hyperparameters it has."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Finals:
    """Which configurations meet in the finals, and what has to be trained for it."""

    finalists: tuple[str, ...]
    """Trials of the search, best first."""
    baseline: str | None
    """The best start point: it is tested beside the winner, at the full budget too."""
    runs: tuple[FinalRun, ...]
    """The finalists', and one of the baseline if it is none and the search has not trained it to
    the end. That the search's run of the baseline was chosen can only flatter the baseline."""


def choose_finals(
    config: SweepConfig, trials: Sequence[TrialRecord], metric: Metric
) -> Finals | None:
    """The finals of a search that has ended; None if they are off or nobody can take part.

    Finalists are the best trials that completed; if these are too few, the best of those that were
    stopped take the slots that are left. A failed trial takes none.

    Args:
        trials: all trials of the search. Its first ones are its start points, unless a user asked
            for them while there were too few trials for all start points.
    """
    ranked = rank(trials, metric)
    if not config.finals or not ranked:
        return None
    finalists = ranked[: config.num_finalists]
    num_start_points = _count_start_points(config)
    first = [trial for trial in ranked if trial.number < num_start_points and not trial.is_asked]
    baseline = first[0] if first else None
    num_seeds = [(trial, config.num_final_seeds) for trial in finalists]
    if baseline is not None and baseline not in finalists and baseline.status != "completed":
        num_seeds.append((baseline, 1))
    runs = [
        FinalRun(
            trial_id=f"f{trial.number:04d}s{ordinal}",
            of=trial.trial_id,
            seed=(config.seed + ordinal) % 2**32,  # the search has used the sweep's own
        )
        for trial, num in num_seeds
        for ordinal in range(1, num + 1)
    ]
    finalist_ids = tuple(trial.trial_id for trial in finalists)
    baseline_id = baseline.trial_id if baseline else None
    return Finals(finalists=finalist_ids, baseline=baseline_id, runs=tuple(runs))


def is_over(config: SweepConfig, events: Sequence[dict[str, Any]], metric: Metric) -> bool:
    """Whether search and finals have ended as they were asked for, by what the log tells."""
    trials = replay(events)
    num_ended = sum(trial.status is not None for trial in trials)
    if num_ended < max(config.num_trials, len(trials)):
        return False
    finals = choose_finals(config, trials, metric)
    ended = {run.trial_id for run in replay_finals(events) if run.status is not None}
    return finals is None or ended >= {run.trial_id for run in finals.runs}


def is_search_over(config: SweepConfig, events: Sequence[dict[str, Any]]) -> bool:
    """Whether the process that runs a sweep is past the search, by what the log tells."""
    phases = ("sweep_started", "sweep_resumed", "finals_started")
    last = [event["kind"] for event in events if event["kind"] in phases][-1:]
    trials = replay(events)
    have_ended = all(trial.status is not None for trial in trials)
    return last == ["finals_started"] or (have_ended and len(trials) >= config.num_trials)


def count_final_runs(config: SweepConfig, num_trials: int | None = None) -> int:
    """The most runs that the finals train.

    Args:
        num_trials: that have reported; those that the sweep is asked for if not given.
    """
    num_trials = config.num_trials if num_trials is None else num_trials
    num_finalists = min(config.num_finalists, num_trials)
    has_baseline = _count_start_points(config) > 0 and num_trials > num_finalists
    return config.finals * (num_finalists * config.num_final_seeds + has_baseline)


def find_last_finals(events: Iterable[dict[str, Any]]) -> Finals | None:
    """The finals that the log tells of last: a sweep that was given more trials has new ones."""
    started = [event for event in events if event["kind"] == "finals_started"]
    if not started:
        return None
    runs = tuple(FinalRun(**run) for run in started[-1]["runs"])
    finalists, baseline = tuple(started[-1]["finalists"]), started[-1]["baseline"]
    return Finals(finalists=finalists, baseline=baseline, runs=runs)


def _count_start_points(config: SweepConfig) -> int:
    return sum(config.space.contains(point) for point in config.start_points)
