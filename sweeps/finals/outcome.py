"""What the one look at test gave: the winner, its scores, and what needs no training beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.records.events import find_since_search, parse_scores
from sweeps.records.redact import redact
from sweeps.records.run import Run
from sweeps.records.trial_record import TrialRecord
from trainables.data.rows import SPLITS

UNTUNED = "the untuned base"

Scores = dict[str, dict[str, float]]
"""Metrics by name, by split: validation, validation_base, test, test_base."""


@dataclass(frozen=True, kw_only=True)
class Winner:
    """The run whose adapter goes into best/, and what is tested beside it."""

    run: TrialRecord
    """The best run of the winning configuration: a trial of the search, or a run of the finals."""
    tested: dict[str, Path]
    """Adapters that are scored on test, by run: the kept one, the winner's other seeds, and the
    baseline's."""
    baseline: str | None = None
    """The best start point's run at the full budget, if it is there."""

    @property
    def trial_id(self) -> str:
        """The search's trial that has the winning configuration."""
        return self.run.final_of or self.run.trial_id


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the one look at test gave."""

    winner: Winner
    scores: Scores
    """Metrics of the kept adapter and of the untuned base."""
    runs: Scores = field(default_factory=dict)
    """Metrics on test, by run."""
    baselines: Mapping[str, str] = field(default_factory=dict)
    """What needs no training and is among the scores too: what it does, by the end of its scores'
    names; see baselines.py."""
    intervals: Mapping[str, Mapping[str, tuple[float, float] | None]] = field(default_factory=dict)
    """95% intervals of the kept adapter's lead by the metric that ranks, by the same ends of names
    ("base" is the untuned base) and by split; None where rows cannot be resampled."""
    doubts: tuple[str, ...] = ()
    """A sentence for each reason why the winner may be worth nothing."""

    @property
    def untrained(self) -> dict[str, str]:
        """All that the adapter stands beside and that was not trained, as baselines has it."""
        return {"base": UNTUNED, **self.baselines}

    @property
    def baseline_facts(self) -> dict[str, object]:
        """What sweep.json and finals.json say of baselines: scores, intervals of the winner's lead
        over them, and doubts."""
        return {
            "baselines": self.untrained_scores,
            "lead_intervals": self.lead_intervals,
            "doubts": list(self.doubts),
        }

    @property
    def own_scores(self) -> Scores:
        """Metrics of the kept adapter, by split."""
        return {split: self.scores[split] for split in SPLITS[1:] if split in self.scores}

    @property
    def untrained_scores(self) -> dict[str, Scores]:
        """Metrics of what was not trained, by what it does, then by split."""
        return {
            title: {
                split: self.scores[f"{split}_{key}"]
                for split in SPLITS[1:]
                if f"{split}_{key}" in self.scores
            }
            for key, title in self.untrained.items()
        }

    @property
    def lead_intervals(self) -> dict[str, dict[str, tuple[float, float] | None]]:
        """The intervals, by what the adapter leads."""
        return {self.untrained[key]: dict(of) for key, of in self.intervals.items()}


def read_outcome(run: Run) -> Outcome | None:
    """What the log and sweep.json tell of the last look at test, unless the search has gone on."""
    tested = find_since_search(run.events, "final_scores")
    by_id = {one.trial_id: one for one in (*run.trials, *run.final_runs)}
    if tested is None or tested["trial_id"] not in by_id:
        return None
    kept = by_id[tested["trial_id"]]
    runs, scores = (parse_scores(tested.get(name, {})) for name in ("runs", "scores"))
    baselines, intervals = {}, {}
    for number, (title, by_split) in enumerate(run.record.get("baselines", {}).items()):
        key = "base" if title == UNTUNED else f"baseline{number}"
        leads = run.record.get("lead_intervals", {}).get(title, {})
        intervals[key] = {split: found and (found[0], found[1]) for split, found in leads.items()}
        if title != UNTUNED:
            baselines[key] = title
            for split, of_split in parse_scores(by_split).items():
                scores[f"{split}_{key}"] = of_split
    winner = kept.final_of or kept.trial_id
    start = [name for name in runs if name in by_id and (by_id[name].final_of or name) != winner]
    return Outcome(
        winner=Winner(run=kept, tested={}, baseline=next(iter(start), None)),
        scores=scores,
        runs=runs,
        baselines=baselines,
        intervals=intervals,
        doubts=tuple(map(redact, run.record.get("doubts", ()))),
    )
