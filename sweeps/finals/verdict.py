"""Who won the finals and how sure that is: finals.json, and finals.csv with a row a run."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

from sweeps.config import SweepConfig
from sweeps.finals import bootstrap
from sweeps.finals.finalists import Finals
from sweeps.records import trials_csv
from sweeps.records.paths import RunPaths, write_file
from sweeps.records.trial_record import TrialRecord
from trainables.checkpoint import checkpoint_folder
from trainables.config import Hyperparameters, Metric
from trainables.metrics.eval_result import SavedAnswers, read_answers
from trainables.packing.service.ledger import Share


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of a finalist to the full budget."""

    trial_id: str
    seed: int
    status: str
    """completed or failed; running in a sweep that was interrupted."""
    reason: str
    value: float | None
    """The metric on validation at the last rung; None if it did not come so far."""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """One configuration in the finals."""

    trial_id: str
    """The search's trial."""
    params: Hyperparameters
    runs: tuple[Run, ...]
    """With fresh seeds, in their order; those that failed say why, and their configuration goes on
    without them. The search's own run is none of them."""
    probability_best: float | None = None
    """See bootstrap.compare; None where it cannot be told."""

    @property
    def completed(self) -> list[Run]:
        """The runs that count."""
        return [run for run in self.runs if run.value is not None]

    @property
    def mean(self) -> float | None:
        """Of the runs that count."""
        values = [run.value for run in self.runs if run.value is not None]
        return statistics.fmean(values) if values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None of fewer than two runs."""
        values = [run.value for run in self.runs if run.value is not None]
        return statistics.stdev(values) if len(values) > 1 else None


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
    def best_run(self) -> Run | None:
        """The best of the winner's runs on validation; its adapter is the one to keep."""
        if self.winner is None:
            return None
        sign = 1.0 if self.metric.mode == "max" else -1.0
        return max(self.winner.completed, key=lambda run: sign * (run.value or 0.0))


def decide(
    config: SweepConfig,
    paths: RunPaths,
    finals: Finals,
    histories: Sequence[TrialRecord],
    metric: Metric,
) -> Verdict:
    """Names the winner by the mean over seeds, and resamples rows and seeds to tell how sure it is.

    Args:
        histories: of the search's trials and of the finals' runs.
    """
    known = {history.trial_id: history for history in histories}
    met = [_finalist(config, trial_id, finals, known, metric) for trial_id in finals.finalists]
    sign = -1.0 if metric.mode == "max" else 1.0
    ordered = sorted(met, key=lambda one: (one.mean is None, sign * (one.mean or 0.0)))
    notes = [
        f"{run.trial_id} ({one.trial_id} with seed {run.seed}) is missing: {run.status}, "
        f"{run.reason or 'no reason given'}"
        for one in ordered for run in one.runs if run.value is None
    ]  # fmt: skip
    plain = Verdict(metric=metric, finalists=tuple(ordered), notes=tuple(notes))
    return _with_bootstrap(config, paths, plain)


def write(
    verdict: Verdict,
    paths: RunPaths,
    histories: Sequence[TrialRecord],
    shares: Mapping[str, Share] = MappingProxyType({}),
) -> None:
    """Writes finals.json and finals.csv atomically.

    Args:
        shares: of the GPUs' time, by trial.

    Raises:
        SweepAborted: the disk is full or gone.
    """
    known = {history.trial_id: history for history in histories}
    played = {
        run.trial_id: {"final_of": one.trial_id, "seed": run.seed}
        for one in verdict.finalists for run in one.runs
    }  # fmt: skip
    runs = trials_csv.rows([known[trial_id] for trial_id in played], verdict.metric, shares)
    trials_csv.write_csv(runs, paths.finals_csv, played)
    text = json.dumps(_as_json(verdict), indent=2, ensure_ascii=False) + "\n"
    write_file(paths.finals_json, text)


def in_short(verdict: Verdict) -> dict[str, object]:
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


def columns(verdict: Verdict | None) -> dict[str, dict[str, object]]:
    """What trials.csv says of each finalist beyond its own search run."""
    return {
        one.trial_id: {
            "final_runs": len(one.completed),
            "final_mean": one.mean,
            "final_deviation": one.deviation,
            "probability_best": one.probability_best,
        }
        for one in (verdict.finalists if verdict else ())
    }


def _finalist(
    config: SweepConfig,
    trial_id: str,
    finals: Finals,
    known: Mapping[str, TrialRecord],
    metric: Metric,
) -> Finalist:
    played = [(known[run.trial_id], run.seed) for run in finals.runs if run.of == trial_id]
    runs = tuple(_run(history, seed, config.max_steps, metric) for history, seed in played)
    return Finalist(trial_id=trial_id, params=known[trial_id].params, runs=runs)


def _run(history: TrialRecord, seed: int, max_steps: int, metric: Metric) -> Run:
    values = [r.metrics[metric.name] for r in history.reports if r.step == max_steps]
    is_completed = history.status == "completed"
    return Run(
        trial_id=history.trial_id,
        seed=seed,
        status=history.status or "running",
        reason=history.reason,
        value=values[0] if values and is_completed else None,
    )


def _with_bootstrap(config: SweepConfig, paths: RunPaths, plain: Verdict) -> Verdict:
    """The verdict with what resampling tells; without the rows' scores it stays as it is."""
    present = [one for one in plain.finalists if one.completed]
    if not present:
        return plain
    folders = [
        [checkpoint_folder(paths.trial(run.trial_id), config.max_steps) for run in one.completed]
        for one in present
    ]
    try:
        said = [[read_answers(folder) for folder in own] for own in folders]
        num_rows = _num_rows(said)
        found = bootstrap.compare(
            [[_run_metric(answers, plain.metric) for answers in own] for own in said],
            plain.metric.mode, num_rows, seed=config.seed,
        )  # fmt: skip
    except (OSError, ValueError) as missing:
        notes = (*plain.notes, f"no interval: {missing}")
        return Verdict(metric=plain.metric, finalists=plain.finalists, notes=notes)
    absent = plain.finalists[len(present) :]
    likely = [
        Finalist(trial_id=one.trial_id, params=one.params, runs=one.runs, probability_best=chance)
        for one, chance in zip(present, found.probabilities, strict=True)
    ]
    return Verdict(
        metric=plain.metric, finalists=(*likely, *absent), lead=found.lead,
        interval=found.interval, num_rows=num_rows, notes=plain.notes,
    )  # fmt: skip


def _num_rows(said: Sequence[Sequence[SavedAnswers]]) -> int:
    """Of the rows that all runs have answered.

    Raises:
        ValueError: they were not scored on the same rows.
    """
    rows = {answers.ids for own in said for answers in own}
    if len(rows) != 1:
        raise ValueError("the runs were scored on different rows")
    return len(rows.pop())


def _run_metric(answers: SavedAnswers, metric: Metric) -> bootstrap.RunMetric:
    if metric.name in answers.row_scores:
        return bootstrap.mean_of_rows(answers.row_scores[metric.name])
    if metric.name == "macro_f1":
        return bootstrap.macro_f1(answers.answers, answers.targets)
    raise ValueError(f"{metric.name} cannot be told of resampled rows")


def _as_json(verdict: Verdict) -> dict[str, object]:
    finalists = [
        asdict(one) | {"mean": one.mean, "deviation": one.deviation} for one in verdict.finalists
    ]
    return {
        **in_short(verdict),
        **asdict(verdict),
        "num_resamples": bootstrap.NUM_RESAMPLES,
        "finalists": finalists,
    }
