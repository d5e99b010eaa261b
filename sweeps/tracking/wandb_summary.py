"""The end of a sweep as one more W&B run: scores on test, and which label was taken for which."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from sweeps.finals import verdict as verdicts
from sweeps.finals.final_test import Outcome
from sweeps.finals.verdict import Verdict
from sweeps.tracking.wandb_runs import WandbTracker
from trainables.metrics.classification import Confusion

NAME = "summary"
"""Of the run, and what its id holds in the place of a trial's."""
CONFUSION = "confusion"
"""Key of the confusion matrix."""


def write_summary(
    tracker: WandbTracker, outcome: Outcome, verdict: Verdict | None, confusion: Confusion | None
) -> None:
    """Adds the run, in the sweep's group.

    Args:
        tracker: that has been told that the sweep has ended.
        confusion: of the winner on test; None of texts.
    """
    tracker.add_run(NAME, partial(_write, summary_values(outcome, verdict), confusion))


def summary_values(outcome: Outcome, verdict: Verdict | None) -> dict[str, object]:
    """What the run's summary shows: the winner, its scores by split, and what the finals found."""
    scores = {
        f"{split}/{name}": value
        for split, metrics in outcome.scores.items()
        for name, value in metrics.items()
    }
    winner = {"winner": outcome.winner.trial_id, "adapter": outcome.winner.run.trial_id}
    finals = {} if verdict is None else {f"finals/{k}": v for k, v in _finals(verdict).items()}
    return scores | winner | finals


def _finals(verdict: Verdict) -> dict[str, object]:
    """The verdict in numbers, as far as there are any."""
    told = verdicts.summarize(verdict)
    names = ("mean", "deviation", "probability_best", "lead")
    found = {name: told[name] for name in names if told[name] is not None}
    if verdict.interval is not None:
        found["lead_low"], found["lead_high"] = verdict.interval
    return found


def _write(values: Mapping[str, object], confusion: Confusion | None, run: Any) -> None:
    if confusion is not None:
        run.log({CONFUSION: _chart(confusion)})
    run.summary.update(values)


def _chart(confusion: Confusion) -> Any:
    """What wandb.plot.confusion_matrix makes, from counts instead of from every row again."""
    import wandb  # half a second, which a sweep without W&B is spared

    rows = [
        [target, prediction, count]
        for target, counts in zip(confusion.labels, confusion.counts, strict=True)
        for prediction, count in zip(confusion.labels, counts, strict=True)
    ]
    columns = ["Actual", "Predicted", "nPredictions"]
    return wandb.plot_table(
        vega_spec_name="wandb/confusion_matrix/v1",
        data_table=wandb.Table(columns=columns, data=rows),
        fields={name: name for name in columns},
        string_fields={"title": "winner on test: what was taken for what"},
    )
