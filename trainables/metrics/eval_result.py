"""What an evaluation gives: the metrics, and each row's answer with its own scores. No torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainables.checkpoint import ANSWERS_NAME
from trainables.data.rows import Row
from trainables.files import read_json_lines


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """One model's scores on some rows."""

    metrics: dict[str, float]
    """By name, over all rows."""
    answers: tuple[str, ...]
    """What the model said to each row: a text, or the label that it chose."""
    row_scores: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Each row's own value of those metrics that are means over the rows."""
    row_losses: tuple[tuple[float, int], ...] = ()
    """Each target's loss, summed over its tokens, and their number; none where no model spoke."""
    probabilities: tuple[dict[str, float], ...] = ()
    """Each row's likeliest labels with theirs, the chosen one first; none for texts."""
    failure: str | None = None
    """Why a metric of the user's own gave no score, which fails the trial."""


@dataclass(frozen=True, kw_only=True)
class SavedAnswers:
    """The answers of one evaluation as they were kept: enough to score any resample of the rows."""

    ids: tuple[str, ...]
    """Ids of the rows, in the order in which they were scored."""
    targets: tuple[str, ...]
    answers: tuple[str, ...]
    row_scores: dict[str, tuple[float, ...]]
    probabilities: tuple[dict[str, float], ...] = ()
    references: tuple[tuple[str, ...], ...] = ()
    """Other right answers to each row."""
    row_losses: tuple[tuple[float, int], ...] = ()


def write_answers(folder: Path, rows: Sequence[Row], scored: EvalResult) -> None:
    """Keep the answers in a checkpoint's folder, a line a row.

    Raises:
        OSError: the disk is full or gone.
    """
    lines = []
    for index, (row, answer) in enumerate(zip(rows, scored.answers, strict=True)):
        own = {name: values[index] for name, values in scored.row_scores.items()}
        line: dict[str, object] = {"id": row.id, "target": row.target, "answer": answer}
        line["scores"] = own
        if scored.probabilities:
            of_row = scored.probabilities[index]
            line |= {"probability": of_row[answer], "probabilities": of_row}
        if scored.row_losses:
            line["loss"] = scored.row_losses[index]
        if row.references:
            line["references"] = row.references
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    (folder / ANSWERS_NAME).write_text("".join(lines), encoding="utf-8")


def read_answers(folder: Path) -> SavedAnswers:
    """Read what write_answers wrote.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged.
    """
    lines = read_json_lines(folder / ANSWERS_NAME)
    try:
        scores = [line["scores"] for line in lines]
        names = scores[0] if scores else ()
        return SavedAnswers(
            ids=tuple(line["id"] for line in lines),
            targets=tuple(line["target"] for line in lines),
            answers=tuple(line["answer"] for line in lines),
            row_scores={name: tuple(float(own[name]) for own in scores) for name in names},
            probabilities=tuple(line["probabilities"] for line in lines if "probabilities" in line),
            references=tuple(tuple(line.get("references", ())) for line in lines),
            row_losses=tuple(tuple(line["loss"]) for line in lines if "loss" in line),
        )
    except (KeyError, TypeError) as damaged:
        raise ValueError(f"{folder / ANSWERS_NAME} is damaged: {damaged!r}") from None
