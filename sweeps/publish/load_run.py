"""A run folder as an object: what was asked, its trials, who won and how sure that is."""

import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sweeps.checks import sweep_json
from sweeps.config import SweepConfig
from sweeps.finals import verdict as verdicts
from sweeps.finals.outcome import Outcome, read_outcome
from sweeps.finals.verdict import Verdict
from sweeps.records.events import make_params_fields
from sweeps.records.paths import find_run
from sweeps.records.redact import redact
from sweeps.records.run import Run, read_run
from sweeps.records.run_lock import find_lock_owner
from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import Unended, count_by_status, make_csv, rank
from trainables.config import Hyperparameters
from trainables.data.prepared_rows import read_facts
from trainables.errors import SweepAborted

if TYPE_CHECKING:  # slow
    import pandas as pd

BEST = "best adapter"
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepRun(Run):
    """A sweep as it stood when its folder was read, finished or not."""

    config: SweepConfig
    is_running: bool
    """Whether its process is known to live; it may be one of a machine whose locks are not seen
    here, which python -m sweeps.status tells."""
    finals: Verdict | None
    """Finalists, the winner, its lead with interval and probability; None before the finals' end
    and without finals."""
    outcome: Outcome | None
    """What the one look at test gave; None before it."""
    score_interval: Interval | None
    """95% bootstrap interval over rows of the best adapter's metric on test; None where it cannot
    be told."""

    @property
    def name(self) -> str:
        """The sweep's, which is also that of its folder."""
        return self.config.name

    @property
    def state(self) -> Literal["ended", "running", "not finished"]:
        """How it stands, as far as its folder tells."""
        return "ended" if self.is_ended else "running" if self.is_running else "not finished"

    @property
    def unended(self) -> Unended:
        """What its trials that have not ended are called."""
        return "running" if self.is_running else "unfinished"

    @property
    def best(self) -> TrialRecord | None:
        """The search's trial that won; before the end the one that leads; None without any."""
        if self.outcome is None:
            return None if self.is_ended else next(iter(rank(self.trials, self.metric)), None)
        return next(t for t in self.trials if t.trial_id == self.outcome.winner.trial_id)

    @property
    def best_params(self) -> Hyperparameters | None:
        """The hyperparameters of the best."""
        return self.best.params if self.best else None

    @property
    def adapter(self) -> Path | None:
        """PEFT folder of the best adapter, with tokenizer and model card; None before it is known,
        and again after a resume with more trials until they have been tested."""
        return self.paths.best if self.outcome and self.paths.best.is_dir() else None

    @property
    def adapter_id(self) -> str | None:
        """The trial, or run of the finals, whose adapter is in best/; None before its test."""
        return self.outcome.winner.run.trial_id if self.outcome else None

    @property
    def scores(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """Metrics by whose they are ("best adapter", "the untuned base", and what else needs no
        training), then by split ("validation", "test"); nothing before the one look at test."""
        outcome = self.outcome
        return {BEST: outcome.own_scores} | outcome.untrained_scores if outcome else {}

    @property
    def lead_intervals(self) -> Mapping[str, Mapping[str, Interval | None]]:
        """95% intervals of the best adapter's lead by the metric, by over whom, then by split."""
        return self.outcome.lead_intervals if self.outcome else {}

    @property
    def doubts(self) -> tuple[str, ...]:
        """A sentence for each reason why the winner may be worth nothing."""
        return self.outcome.doubts if self.outcome else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """How the rows were read, where that is not plain."""
        return tuple(map(redact, self.record.get("read", ())))

    @property
    def test_scores(self) -> Mapping[str, float]:
        """Metrics of the best adapter on test; nothing before test was looked at."""
        return self.scores.get(BEST, {}).get("test", {})

    def to_pandas(self) -> "pd.DataFrame":
        """A row a trial of the search: trials.csv, in columns of numbers."""
        import pandas as pd

        text = make_csv(self.trials, self.metric, self.unended)
        # with what the packs and the finals told in the end
        if self.is_ended and self.paths.trials_csv.is_file():
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
            "trials": count_by_status(self.trials, self.unended),
            "best": best
            and {
                "trial_id": best.trial_id,
                "params": make_params_fields(best.params),
                "steps": best.num_steps,
                "value": best.get_value(self.metric),
            },
            "finals": verdicts.summarize(self.finals) if self.finals else None,
            "scores": self.scores,
            "score_interval": self.score_interval,
            "lead_intervals": self.lead_intervals,
            "doubts": self.doubts,
            "adapter": self.adapter,
        }

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{n} {name}" for name, n in count_by_status(self.trials, self.unended).items()
        )
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
        SweepAborted: there is no run, it cannot be read, or a link leads out of it.
    """
    run = read_run(find_run(Path(folder)))
    config, outcome, interval = sweep_json.parse_config(run), read_outcome(run), None
    if outcome is not None:
        with suppress(SweepAborted):  # the rows may be gone by now
            interval = verdicts.find_score_interval(
                run.paths.answers / outcome.winner.run.trial_id,
                run.metric,
                read_facts(run.paths.rows).scoring,
                config.seed,
            )
    return SweepRun(
        **vars(run),
        config=config,
        is_running=find_lock_owner(run.paths).is_driver is True,
        finals=verdicts.read(run),
        outcome=outcome,
        score_interval=interval,
    )
