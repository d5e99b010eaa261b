"""What the tuned model and the untuned base said to each test row, as files of the run.

They are saved before the log says that test was looked at, so a sweep whose process ends in between
has them at its resume. What a model wrote is only ever data here: a string in JSON.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sweeps.records.paths import RunPaths, abort_if_unwritable
from trainables.config import TrainingSettings
from trainables.data.rows import Row, Splits, select_fixed_slice, select_rung_rows
from trainables.errors import SweepAborted
from trainables.files import read_json_lines, to_strict_json
from trainables.metrics.classification import Confusion, confusion
from trainables.metrics.eval_result import EvalResult, read_answers, write_answers

PREDICTIONS_FILE = "test_predictions.jsonl"
"""In best/; it holds rows of the data, so no export takes it along."""
CONFUSION_CSV = "confusion.csv"
LABEL_SCORES_CSV = "label_scores.csv"
VALIDATION_BASE, TEST_BASE = "validation_base", "test_base"
"""Keys of the untuned base's scores; see trainables.final_test.score_final_test."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One test row, with the answers of the tuned model and of the untuned base."""

    id: str
    prompt: str
    target: str
    prediction: str
    base_prediction: str
    scores: dict[str, float]
    """Metrics of the prediction, as far as they are means over rows; 0 to 100."""
    base_scores: dict[str, float]
    probability: float | None = None
    """That the predicted label has; None of a text."""
    probabilities: dict[str, float] | None = None
    """Those of the likeliest labels, of all if they are few."""


def save(
    paths: RunPaths, splits: Splits, settings: TrainingSettings, scores: Mapping[str, EvalResult]
) -> None:
    """Writes what each model said, a folder a model.

    Args:
        scores: by the name of what was scored, as score_final_test gives them.

    Raises:
        SweepAborted: the disk is full or gone.
    """
    test = select_fixed_slice(splits.test, len(splits.test))
    validation = select_rung_rows(splits.validation, settings, settings.max_steps)
    with abort_if_unwritable(paths.answers):
        for name, scored in scores.items():
            folder = paths.answers / name
            folder.mkdir(parents=True, exist_ok=True)
            write_answers(folder, validation if name == VALIDATION_BASE else test, scored)


def load(paths: RunPaths, rows: Sequence[Row], name: str) -> list[Prediction]:
    """Each test row with its answers, in the order in which rows are scored.

    [] where none were kept, or where they are damaged or of other rows: a picture of the wrong rows
    would be worse than none.

    Args:
        rows: the test split, in any order.
        name: of the tuned adapter, as save was told.
    """
    try:
        tuned, base = (read_answers(paths.answers / folder) for folder in (name, TEST_BASE))
    except (OSError, ValueError):
        return []
    ordered = select_fixed_slice(rows, len(rows))
    ids = tuple(row.id for row in ordered)
    if not ids == tuned.ids == base.ids:
        return []
    probabilities = tuned.probabilities or (None,) * len(ordered)
    return [
        Prediction(
            id=row.id,
            prompt=row.prompt,
            target=row.target,
            prediction=tuned.answers[index],
            base_prediction=base.answers[index],
            scores={name: values[index] for name, values in tuned.row_scores.items()},
            base_scores={name: values[index] for name, values in base.row_scores.items()},
            probability=of_row[tuned.answers[index]] if of_row else None,
            probabilities=of_row,
        )
        for index, (row, of_row) in enumerate(zip(ordered, probabilities, strict=True))
    ]


def count_confusions(predictions: Sequence[Prediction], splits: Splits) -> Confusion | None:
    """The winner's confusion matrix on test; None of texts, or without predictions."""
    if splits.scoring.kind != "classify" or not predictions:
        return None
    answers = [prediction.prediction for prediction in predictions]
    targets = [prediction.target for prediction in predictions]
    return confusion(answers, targets, splits.scoring.labels)


def make_files(predictions: Sequence[Prediction], table: Confusion | None) -> dict[str, str]:
    """Names and contents of the files for best/."""
    rows = [{k: v for k, v in asdict(row).items() if v is not None} for row in predictions]
    lines = [json.dumps(to_strict_json(row), ensure_ascii=False) + "\n" for row in rows]
    files = {PREDICTIONS_FILE: "".join(lines)} if lines else {}
    if table is None:
        return files
    return files | {CONFUSION_CSV: table.as_csv(), LABEL_SCORES_CSV: table.scores_as_csv()}


def read(best: Path) -> list[Prediction]:
    """The predictions of a finished run's best/.

    Raises:
        SweepAborted: the file is missing or damaged.
    """
    path = best / PREDICTIONS_FILE
    try:
        return [Prediction(**line) for line in read_json_lines(path)]
    except FileNotFoundError:
        fix = "name a run whose sweep has ended; one of an older version has none"
        raise SweepAborted(f"{best} has no {PREDICTIONS_FILE}", fix) from None
    except (OSError, ValueError, TypeError) as damaged:
        fix = "remove best/ and repeat the sweep's command with --resume"
        raise SweepAborted(f"{path} cannot be read: {damaged}", fix) from None
