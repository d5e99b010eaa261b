"""From a judge's replies to verdicts on rows, and from verdicts to scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainables.metrics.judge_prompts import read_choice, read_grade
from trainables.metrics.judge_rows import JudgedRow

Mode = Literal["pairwise", "graded"]
Winner = Literal["a", "b", "tie"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the judge said of one row; None where its reply could not be read."""

    id: str
    winner: Winner | None = None
    is_split: bool = False
    """The two orders disagreed, so the tie is ours."""
    grade_a: int | None = None
    grade_b: int | None = None


def compared(row: JudgedRow, replies: Sequence[str]) -> Verdict:
    """The verdict of two replies: to the answers in order, and swapped."""
    choice, swapped = map(read_choice, replies)
    if choice is None or swapped is None:
        return Verdict(id=row.id)
    names: dict[str, Winner] = {"1": "a", "2": "b", "TIE": "tie"}
    other: dict[str, Winner] = {"1": "b", "2": "a", "TIE": "tie"}
    is_split = names[choice] != other[swapped]
    return Verdict(id=row.id, winner="tie" if is_split else names[choice], is_split=is_split)


def graded(row: JudgedRow, replies: Sequence[str]) -> Verdict:
    """The grades of each answer's reply."""
    grades = [read_grade(reply) for reply in replies]
    return Verdict(id=row.id, grade_a=grades[0], grade_b=grades[1] if len(grades) > 1 else None)


def scores_of(verdicts: Sequence[Verdict], mode: Mode) -> dict[str, float]:
    """Counts, and over the rows that could be read the win rate of A (0 to 100) or mean grades.

    A tie is half a win. A score without a row behind it is left out.
    """
    if mode == "graded":
        return {
            "rows": len(verdicts),
            **_mean_grade("a", [verdict.grade_a for verdict in verdicts]),
            **_mean_grade("b", [verdict.grade_b for verdict in verdicts]),
        }
    winners = [verdict.winner for verdict in verdicts]
    wins, losses, ties = (winners.count(name) for name in ("a", "b", "tie"))
    num_read = wins + losses + ties
    return {
        "rows": len(verdicts),
        "wins_a": wins,
        "wins_b": losses,
        "ties": ties,
        "ties_by_disagreement": sum(verdict.is_split for verdict in verdicts),
        "unreadable": winners.count(None),
        **({"win_rate_a": 100 * (wins + ties / 2) / num_read} if num_read else {}),
    }


def _mean_grade(name: str, grades: Sequence[int | None]) -> dict[str, float]:
    read = [grade for grade in grades if grade is not None]
    mean = {f"grade_{name}": sum(read) / len(read)} if read else {}
    return {**mean, f"graded_{name}": len(read)}
