"""What a report says of one run, read from its folder; no number is made up on the page itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sweeps.checks import sweep_json
from sweeps.config import SweepConfig
from sweeps.finals import predictions
from sweeps.finals import verdict as verdicts
from sweeps.finals.final_test import Outcome, Winner
from sweeps.finals.predictions import Prediction
from sweeps.finals.verdict import Verdict
from sweeps.records.events import find_num_trials, list_since_search, read_events, scores_from_event
from sweeps.records.paths import RunPaths
from sweeps.records.redact import redact
from sweeps.records.trial_record import TrialRecord, replay_all
from trainables.config import Metric
from trainables.data.prepared_rows import read_rows
from trainables.data.rows import Splits
from trainables.errors import SweepAborted
from trainables.metrics.classification import Confusion

COMMAND = "python -m sweeps.report RUN"
UNTUNED = "the untuned base"
State = Literal["running", "ended", "unfinished"]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run, as far as it is."""

    paths: RunPaths
    config: SweepConfig
    record: Mapping[str, Any]
    """The content of sweep.json."""
    metric: Metric
    events: Sequence[dict[str, Any]]
    state: State
    trials: Sequence[TrialRecord]
    """Of the search."""
    final_runs: Sequence[TrialRecord]
    outcome: Outcome | None = None
    """What the one look at test gave; None before it."""
    verdict: Verdict | None = None
    """Of the finals; None before their end, and of a sweep without them."""
    answers: Sequence[Prediction] = ()
    """To the test rows, in the fixed order in which they are scored; () where they are not kept."""
    confusion: Confusion | None = None
    score_interval: tuple[float, float] | None = None
    """95% bootstrap interval over rows of the winner's score on test; None where none can be."""

    @property
    def name(self) -> str:
        return str(self.record["name"])

    @property
    def last_rung(self) -> int:
        return self.config.rungs[-1]

    @property
    def began(self) -> datetime | None:
        """When the first of its processes began."""
        return _time_of(self.events[0]) if self.events else None

    @property
    def last_told(self) -> datetime | None:
        """When the log was last written."""
        return _time_of(self.events[-1]) if self.events else None

    def find_last(self, kind: str) -> dict[str, Any] | None:
        """The last event of a kind."""
        return next((event for event in reversed(self.events) if event["kind"] == kind), None)

    def scores_at(self, rung: int) -> dict[str, float]:
        """The metric by trial of the search, of those that reported at a rung and did not fail."""
        return {
            trial.trial_id: value
            for trial in self.trials
            if trial.status != "failed"
            for value in [trial.values(self.metric).get(rung)]
            if value is not None and np.isfinite(value)
        }


def read_facts(folder: Path, *, is_running: bool = False) -> RunFacts:
    """The facts of the run in a folder, which may be moved, unfinished, or being written.

    Args:
        is_running: whether its process is known to live.

    Raises:
        SweepAborted: there is no run, or it cannot be read.
    """
    paths = RunPaths(folder.absolute())
    config = sweep_json.read_run(paths, COMMAND)
    record = sweep_json.read(paths)
    metric = Metric(name=record["metric"]["name"], mode=record["metric"]["mode"])
    events = read_events(paths.events) if paths.events.is_file() else []
    records = replay_all(events)
    turns = ("sweep_started", "sweep_resumed", "sweep_ended")
    last_turn = next((e["kind"] for e in reversed(events) if e["kind"] in turns), "")
    state: State = "running" if is_running else "unfinished"
    final_runs = [trial for trial in records if trial.final_of is not None]
    outcome = _find_outcome(events, records, record)
    splits, answers = _read_answers(paths, outcome)
    return RunFacts(
        paths=paths,
        config=replace(config, num_trials=find_num_trials(events, config.num_trials)),
        record=record,
        metric=metric,
        events=events,
        state="ended" if last_turn == "sweep_ended" else state,
        trials=[trial for trial in records if trial.final_of is None],
        final_runs=final_runs,
        outcome=outcome,
        verdict=verdicts.read(paths, events, records, metric),
        answers=answers,
        confusion=predictions.count_confusions(answers, splits) if splits else None,
        score_interval=verdicts.find_score_interval(
            paths.answers / outcome.winner.run.trial_id, metric, splits.scoring, config.seed
        )
        if outcome and splits
        else None,
    )


def _find_outcome(
    events: Sequence[dict[str, Any]], records: Sequence[TrialRecord], record: Mapping[str, Any]
) -> Outcome | None:
    """What the log and sweep.json tell of the last look at test, unless the search has gone on."""
    by_id = {one.trial_id: one for one in records}
    since = list_since_search(events)
    tested = [e for e in since if e["kind"] == "final_scores" and e["trial_id"] in by_id]
    if not tested:
        return None
    run = by_id[tested[-1]["trial_id"]]
    runs = scores_from_event(tested[-1].get("runs", {}))
    scores = scores_from_event(tested[-1]["scores"])
    baselines, intervals = {}, {}
    for number, (title, by_split) in enumerate(record.get("baselines", {}).items()):
        key = "base" if title == UNTUNED else f"baseline{number}"
        intervals[key] = record.get("lead_intervals", {}).get(title, {})
        if title != UNTUNED:
            baselines[key] = title
            for split, of_split in scores_from_event(by_split).items():
                scores[f"{split}_{key}"] = of_split
    of = run.final_of or run.trial_id
    start = [name for name in runs if name in by_id and (by_id[name].final_of or name) != of]
    return Outcome(
        winner=Winner(run=run, tested={}, baseline=next(iter(start), None)),
        scores=scores,
        runs=runs,
        baselines=baselines,
        intervals=intervals,
        doubts=tuple(map(redact, record.get("doubts", ()))),
    )


def _read_answers(
    paths: RunPaths, outcome: Outcome | None
) -> tuple[Splits | None, list[Prediction]]:
    """The rows and what was answered to test, as far as they are there."""
    if outcome is None:
        return None, []
    try:
        splits = read_rows(paths.rows, ["test"])
    except SweepAborted:
        return None, []
    return splits, predictions.load(paths, splits.test, outcome.winner.run.trial_id)


def _time_of(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(event["time"])
