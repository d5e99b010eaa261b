"""Who won the finals and how sure that is: finals.json, and finals.csv with a row a run."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from sweeps.config import SweepConfig
from sweeps.finals import bootstrap
from sweeps.finals.finalists import Finals
from sweeps.records import trials_csv
from sweeps.records.paths import RunPaths, write_file
from sweeps.records.trial_record import TrialRecord
from trainables.checkpoint import checkpoint_folder
from trainables.config import Hyperparameters, Metric
from trainables.metrics.eval_result import SavedAnswers, read_answers


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """One configuration in the finals."""

    trial_id: str
    """The search's trial."""
    params: Hyperparameters
    metric: Metric
    runs: tuple[TrialRecord, ...]
    """With fresh seeds, in their order; those that failed say why, and their configuration goes on
    without them. The search's own run is none of them."""
    probability_best: float | None = None
    """See bootstrap.compare; None where it cannot be told."""

    @property
    def completed(self) -> list[TrialRecord]:
        """The runs that count: those that were trained to the full budget."""
        return [run for run in self.runs if run.status == "completed"]

    @property
    def values(self) -> list[float]:
        """The metric on validation at the last rung, of the runs that count."""
        return [run.reports[-1].metrics[self.metric.name] for run in self.completed]

    @property
    def mean(self) -> float | None:
        """Mean of the values; None if there are none."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None of fewer than two runs."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The finals' result, on validation."""

    metric: Metric
    finalists: tuple[Finalist, ...]
    """The best mean first; those without a run that counts come last."""
    lead: float | None = None
    """How much better the winner's mean is than the runner-up's."""
    interval: tuple[float, float] | None = None
    """95% bootstrap interval of the lead."""
    num_rows: int = 0
    """Validation rows that were resampled."""
    notes: tuple[str, ...] = ()
    """What was not as planned."""

    @property
    def winner(self) -> Finalist | None:
        """The best mean; None if no run of the finals reached the end."""
        return self.finalists[0] if self.finalists and self.finalists[0].completed else None

    @property
    def best_run(self) -> TrialRecord | None:
        """The best of the winner's runs on validation; its adapter is the one to keep."""
        if self.winner is None:
            return None
        choose = max if self.metric.mode == "max" else min
        best_value = choose(self.winner.values)
        return self.winner.completed[self.winner.values.index(best_value)]


def decide(
    config: SweepConfig,
    paths: RunPaths,
    finals: Finals,
    records: Sequence[TrialRecord],
    metric: Metric,
) -> Verdict:
    """Names the winner by the mean over seeds, and resamples rows and seeds to tell how sure it is.

    Args:
        records: of the search's trials and of the finals' runs.
    """
    by_id = {record.trial_id: record for record in records}
    finalists = [
        Finalist(
            trial_id=trial_id,
            params=by_id[trial_id].params,
            metric=metric,
            runs=tuple(by_id[run.trial_id] for run in finals.runs if run.of == trial_id),
        )
        for trial_id in finals.finalists
    ]
    sign = -1.0 if metric.mode == "max" else 1.0
    finalists.sort(key=lambda finalist: (finalist.mean is None, sign * (finalist.mean or 0.0)))
    notes = [
        f"{run.trial_id} ({finalist.trial_id} with seed {run.seed}) is missing: "
        f"{run.status or 'running'}, {run.reason or 'no reason given'}"
        for finalist in finalists
        for run in finalist.runs
        if run.status != "completed"
    ]
    without_interval = Verdict(metric=metric, finalists=tuple(finalists), notes=tuple(notes))
    return _add_bootstrap(config, paths, without_interval)


def write(verdict: Verdict, paths: RunPaths) -> None:
    """Writes finals.json and finals.csv atomically.

    Raises:
        SweepAborted: the disk is full or gone.
    """
    runs = [run for finalist in verdict.finalists for run in finalist.runs]
    origins = {run.trial_id: {"final_of": run.final_of, "seed": run.seed} for run in runs}
    trials_csv.write_csv(runs, verdict.metric, paths.finals_csv, origins)
    text = json.dumps(_to_json(verdict), indent=2, ensure_ascii=False) + "\n"
    write_file(paths.finals_json, text)


def summarize(verdict: Verdict) -> dict[str, object]:
    """What sweep.json says of the finals."""
    winner, best_run = verdict.winner, verdict.best_run
    return {
        "winner": winner.trial_id if winner else None,
        "adapter": best_run.trial_id if best_run else None,
        "mean": winner.mean if winner else None,
        "deviation": winner.deviation if winner else None,
        "probability_best": winner.probability_best if winner else None,
        "lead": verdict.lead,
        "interval": verdict.interval,
    }


def make_columns(verdict: Verdict | None) -> dict[str, dict[str, object]]:
    """What trials.csv says of each finalist beyond its own search run."""
    return {
        finalist.trial_id: {
            "final_runs": len(finalist.completed),
            "final_mean": finalist.mean,
            "final_deviation": finalist.deviation,
            "probability_best": finalist.probability_best,
        }
        for finalist in (verdict.finalists if verdict else ())
    }


def _add_bootstrap(config: SweepConfig, paths: RunPaths, verdict: Verdict) -> Verdict:
    """The verdict with what resampling tells; without the rows' scores it stays as it is."""
    present = [finalist for finalist in verdict.finalists if finalist.completed]
    if not present:
        return verdict
    try:
        answers = [
            [
                read_answers(checkpoint_folder(paths.trial(run.trial_id), config.max_steps))
                for run in finalist.completed
            ]
            for finalist in present
        ]
        num_rows = _count_common_rows(answers)
        comparison = bootstrap.compare(
            [[_make_run_metric(run, verdict.metric) for run in runs] for runs in answers],
            verdict.metric.mode,
            num_rows,
            seed=config.seed,
        )
    except (OSError, ValueError) as missing:
        return replace(verdict, notes=(*verdict.notes, f"no interval: {missing}"))
    likely = [
        replace(finalist, probability_best=probability)
        for finalist, probability in zip(present, comparison.probabilities, strict=True)
    ]
    absent = verdict.finalists[len(present) :]
    return replace(
        verdict,
        finalists=(*likely, *absent),
        lead=comparison.lead,
        interval=comparison.interval,
        num_rows=num_rows,
    )


def _count_common_rows(answers: Sequence[Sequence[SavedAnswers]]) -> int:
    """How many rows all runs have answered.

    Raises:
        ValueError: they were not scored on the same rows.
    """
    row_ids = {run.ids for runs in answers for run in runs}
    if len(row_ids) != 1:
        raise ValueError("the runs were scored on different rows")
    return len(row_ids.pop())


def _make_run_metric(answers: SavedAnswers, metric: Metric) -> bootstrap.RunMetric:
    if metric.name in answers.row_scores:
        return bootstrap.mean_of_rows(answers.row_scores[metric.name])
    if metric.name == "macro_f1":
        return bootstrap.macro_f1(answers.answers, answers.targets)
    raise ValueError(f"{metric.name} cannot be told of resampled rows")


def _to_json(verdict: Verdict) -> dict[str, object]:
    return {
        **summarize(verdict),
        "metric": asdict(verdict.metric),
        "finalists": [_to_json_finalist(finalist) for finalist in verdict.finalists],
        "num_rows": verdict.num_rows,
        "notes": verdict.notes,
        "num_resamples": bootstrap.NUM_RESAMPLES,
    }


def _to_json_finalist(finalist: Finalist) -> dict[str, object]:
    runs = [
        {
            "trial_id": run.trial_id,
            "seed": run.seed,
            "status": run.status or "running",
            "reason": run.reason,
            "value": run.value(finalist.metric) if run.status == "completed" else None,
        }
        for run in finalist.runs
    ]
    return {
        "trial_id": finalist.trial_id,
        "params": asdict(finalist.params),
        "runs": runs,
        "probability_best": finalist.probability_best,
        "mean": finalist.mean,
        "deviation": finalist.deviation,
    }
