"""A run folder as an object: what was asked, its trials, who won and how sure that is."""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.checks import sweep_json
from sweeps.config import SweepConfig
from sweeps.finals import verdict as verdicts
from sweeps.finals.verdict import Verdict
from sweeps.records.events import (
    find_num_trials,
    list_since_search,
    params_fields,
    read_events,
    scores_from_event,
)
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord, replay_all
from sweeps.records.trials_csv import count_by_status, make_csv, rank
from trainables.config import Hyperparameters, Metric
from trainables.data.prepared_rows import read_facts

if TYPE_CHECKING:  # slow
    import pandas as pd

BEST, UNTUNED = "best adapter", "the untuned base"
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepRun:
    """A sweep as it stood when its folder was read, finished or not."""

    paths: RunPaths
    """Every file of it; paths.folder is the run folder."""
    config: SweepConfig
    metric: Metric
    """What ranks trials, by name, and whether more or less of it is better."""
    is_ended: bool
    """Whether the sweep came to its end; python -m sweeps.status tells whether one that did not is
    still at work."""
    trials: tuple[TrialRecord, ...]
    """The search's, in the order in which they were proposed, with their reports."""
    final_runs: tuple[TrialRecord, ...]
    """Trainings of the finals, by their trial and seed."""
    finals: Verdict | None
    """Finalists, the winner, its lead with interval and probability; None before the finals' end
    and without finals."""
    adapter_id: str | None
    """The trial, or run of the finals, whose adapter is in best/; None before its test."""
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Metrics by whose they are ("best adapter", "the untuned base", and what else needs no
    training), then by split ("validation", "test"); nothing before the one look at test."""
    score_interval: Interval | None
    """95% bootstrap interval over rows of the best adapter's metric on test; None where it cannot
    be told."""
    lead_intervals: Mapping[str, Mapping[str, Interval | None]]
    """95% intervals of the best adapter's lead by the metric, by over whom, then by split."""
    doubts: tuple[str, ...]
    """A sentence for each reason why the winner may be worth nothing."""
    notes: tuple[str, ...] = field(default=())
    """How the rows were read, where that is not plain."""

    @property
    def name(self) -> str:
        """The sweep's, which is also that of its folder."""
        return self.config.name

    @property
    def best(self) -> TrialRecord | None:
        """The search's trial that won; before the end the one that leads; None without any."""
        if self.adapter_id is not None:
            runs = {run.trial_id: run for run in (*self.trials, *self.final_runs)}
            winner = runs[self.adapter_id]
            return runs[winner.final_of or winner.trial_id]
        return None if self.is_ended else next(iter(rank(self.trials, self.metric)), None)

    @property
    def best_params(self) -> Hyperparameters | None:
        """The hyperparameters of the best."""
        return self.best.params if self.best else None

    @property
    def adapter(self) -> Path | None:
        """PEFT folder of the best adapter, with tokenizer and model card; None before the end."""
        return self.paths.best if self.paths.best.is_dir() else None

    @property
    def test_scores(self) -> Mapping[str, float]:
        """Metrics of the best adapter on test; nothing before test was looked at."""
        return self.scores.get(BEST, {}).get("test", {})

    def to_pandas(self) -> "pd.DataFrame":
        """A row a trial of the search: trials.csv, in columns of numbers."""
        import pandas as pd

        text = make_csv(self.trials, self.metric)
        if self.is_ended:  # with what the packs and the finals told in the end
            text = self.paths.trials_csv.read_text(encoding="utf-8")
        frame = pd.read_csv(io.StringIO(text))
        return frame.fillna({"reason": ""})

    def reports_to_pandas(self) -> "pd.DataFrame":
        """A row a report, of trials and of runs of the finals: the learning curves."""
        import pandas as pd

        return pd.DataFrame(
            {"trial_id": run.trial_id, "final_of": run.final_of, "step": report.step}
            | report.metrics
            | {name: value for name, value in vars(report).items() if name not in _NOT_SHOWN}
            for run in (*self.trials, *self.final_runs)
            for report in run.reports
        )

    def to_json(self) -> dict[str, object]:
        """What `sweeps.run --json` prints, in JSON values."""
        best = self.best
        return {
            "run": self.paths.folder,
            "name": self.name,
            "is_ended": self.is_ended,
            "metric": asdict(self.metric),
            "trials": count_by_status(self.trials),
            "best": best
            and {
                "trial_id": best.trial_id,
                "params": params_fields(best.params),
                "steps": best.num_steps,
                "value": best.value(self.metric),
            },
            "finals": verdicts.summarize(self.finals) if self.finals else None,
            "scores": self.scores,
            "score_interval": self.score_interval,
            "lead_intervals": self.lead_intervals,
            "doubts": self.doubts,
            "adapter": self.adapter,
        }

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {name}" for name, n in count_by_status(self.trials).items())
        text = f"<sweep {self.name}, {'ended' if self.is_ended else 'not ended'}: {counts}"
        if self.best:
            text += f"; best {self.best.trial_id}"
        if self.metric.name in self.test_scores:
            text += f", {self.metric.name} {self.test_scores[self.metric.name]:.4g} on test"
        if self.score_interval:
            text += " ({:.4g} to {:.4g})".format(*self.score_interval)
        return f"{text}; {self.paths.folder}>"


_NOT_SHOWN = ("trial_id", "step", "metrics", "cohort")
"""Fields of a report that are not columns after those that are."""


def load_run(folder: str | Path) -> SweepRun:
    """Reads a run folder, which may be moved, unfinished, or being written.

    Raises:
        SweepAborted: there is no run, or it cannot be read.
    """
    paths = RunPaths(Path(folder).expanduser().absolute())
    config = sweep_json.read_run(paths, "load_run(RUN)")
    told = sweep_json.read(paths)
    metric = Metric(name=told["metric"]["name"], mode=told["metric"]["mode"])
    events = read_events(paths.events) if paths.events.is_file() else []
    records = replay_all(events)
    kinds = [event["kind"] for event in events]
    last_turn = next((kind for kind in reversed(kinds) if kind.startswith("sweep_")), "")
    since = list_since_search(events)
    tested = next((event for event in reversed(since) if event["kind"] == "final_scores"), None)
    adapter_id = tested["trial_id"] if tested else None
    scores: dict[str, dict[str, dict[str, float]]] = {}
    if tested:
        own = scores_from_event(tested["scores"])
        scores[BEST] = {split: own[split] for split in ("validation", "test") if split in own}
        scores |= {of: scores_from_event(by) for of, by in told.get("baselines", {}).items()}
    return SweepRun(
        paths=paths,
        config=replace(config, num_trials=find_num_trials(events, config.num_trials)),
        metric=metric,
        is_ended=last_turn == "sweep_ended",
        trials=tuple(record for record in records if record.final_of is None),
        final_runs=tuple(record for record in records if record.final_of is not None),
        finals=verdicts.read(paths, events, records, metric),
        adapter_id=adapter_id,
        scores=scores,
        score_interval=verdicts.find_score_interval(
            paths.answers / adapter_id, metric, read_facts(paths.rows).scoring, config.seed
        )
        if adapter_id
        else None,
        lead_intervals={
            of: {split: found and (found[0], found[1]) for split, found in by_split.items()}
            for of, by_split in told.get("lead_intervals", {}).items()
            if tested
        },
        doubts=tuple(told.get("doubts", ())) if tested else (),
        notes=tuple(told.get("read", ())),
    )
