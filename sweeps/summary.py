"""What the user reads when a sweep has ended."""

import io
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from sweeps import results
from sweeps.config import SweepConfig
from sweeps.finish import Scores
from sweeps.paths import RunPaths
from sweeps.results import TrialRow
from sweeps.search import without_password
from trainables.packing.ledger import Ledger

NUM_ROWS = 10
PER_CLASS = ("precision", "recall", "f1")
"""Scores of each label, as metrics/classification.py names them."""


def describe(
    config: SweepConfig,
    paths: RunPaths,
    trials: Sequence[TrialRow],
    scores: Scores,
    ledgers: Sequence[Ledger] = (),
) -> str:
    """The best trials, the winner beside the untuned base, and where everything lies."""
    best = results.best(trials)
    assert best is not None
    counts = results.count_by_status(trials)
    storage = config.study_storage or f"sqlite:///{paths.optuna_db}"
    lines = [
        _rendered(_trials_table(trials)),
        f"{len(trials)} trials: " + ", ".join(f"{n} {s}" for s, n in sorted(counts.items())),
        f"best: {best.trial_id} ({', '.join(f'{k} {v}' for k, v in best.params.items())})",
        _rendered(_scores_table(scores)),
        *(_rendered(table) for table in _label_tables(scores["test"])),
        *map(_pack_line, ledgers),
        f"adapter: {paths.best}",
        f"trials:  {paths.trials_csv}",
        f"study:   optuna-dashboard {without_password(storage)}",
        f"publish: python -m sweeps.export {paths.folder} --to hub:USER/NAME",
    ]
    return "\n".join(lines)


def without_best(trials: Sequence[TrialRow]) -> str:
    """What to say when no trial completed: the reasons, most frequent first."""
    reasons: dict[str, int] = {}
    for row in trials:
        if row.status == "failed":
            reasons[row.reason] = reasons.get(row.reason, 0) + 1
    shown = sorted(reasons.items(), key=lambda item: -item[1])[:5]
    return "\n".join(
        ["error: no trial completed", *(f"  {n} failed: {reason}" for reason, n in shown)]
    )


def _pack_line(ledger: Ledger) -> str:
    """E.g. pack on NVIDIA H200: 61 s: train 70%, evaluate 18%; 96% of its tokens were real."""
    total_s = sum(ledger.seconds.values())
    by_share = sorted(ledger.seconds.items(), key=lambda item: -item[1])
    shares = [f"{name} {s / total_s:.0%}" for name, s in by_share if s >= 0.005 * total_s]
    line = f"pack on {ledger.device}: {total_s:.0f} s: {', '.join(shares)}"
    if not ledger.computed_tokens:
        return line
    return f"{line}; {ledger.real_tokens / ledger.computed_tokens:.1%} of its tokens were real"


def _trials_table(trials: Sequence[TrialRow]) -> Table:
    shown = results.ranked(trials)[:NUM_ROWS]
    table = Table(title=f"best {len(shown)} of {len(trials)} trials")
    for name in ("trial", "status", "steps", shown[0].metric.name, *results.PARAMS):
        table.add_column(name)
    for row in shown:
        params = [f"{v:.2e}" if k == "learning_rate" else str(v) for k, v in row.params.items()]
        table.add_row(row.trial_id, row.status, str(row.steps), f"{row.value:.2f}", *params)
    return table


def _scores_table(scores: Scores) -> Table:
    names = [
        name for name in scores["test"]
        if name in scores["validation"] and not name.startswith(tuple(f"{n}_" for n in PER_CLASS))
    ]  # fmt: skip
    table = Table(title="best trial and untuned base")
    table.add_column("scored on")
    for name in names:
        table.add_column(name)
    titles = {
        "validation_base": "validation, untuned base",
        "validation": "validation, best trial",
        "test_base": "test, untuned base",
        "test": "test, best trial",
    }
    for split, title in titles.items():
        table.add_row(title, *(f"{scores[split][name]:.2f}" for name in names))
    return table


def _label_tables(test: Mapping[str, float]) -> list[Table]:
    """Each label's scores on test, where there are labels."""
    first = f"{PER_CLASS[0]}_"
    labels = [name.removeprefix(first) for name in test if name.startswith(first)]
    if not labels:
        return []
    table = Table(title="best trial on test, by label")
    for name in ("label", *PER_CLASS):
        table.add_column(name)
    for label in labels:
        table.add_row(label, *(f"{test[f'{name}_{label}']:.2f}" for name in PER_CLASS))
    return [table]


def _rendered(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=110).print(table)
    return text.getvalue().rstrip()
