"""Answers are read back as they were kept, whatever a model wrote."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainables.checkpoint import ANSWERS_NAME
from trainables.data.rows import Row
from trainables.metrics.eval_result import EvalResult, read_answers, write_answers

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS, st.floats(0, 100)), max_size=5))
@example([("1\u2028", "a\x85b", "\u2029\x0c\r\n", 1.0), ("2", "", "\x1c", 0.5)])
def test_answers_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[str, str, str, float]]
) -> None:
    folder = tmp_path_factory.mktemp("answers")
    rows = [Row(id=row_id, prompt="?", target=target) for row_id, target, _, _ in told]
    answers = tuple(answer for _, _, answer, _ in told)
    values = tuple(value for *_, value in told)
    row_scores = {"rouge1": values, "rougeL": values[::-1]}
    write_answers(folder, rows, EvalResult(metrics={}, answers=answers, row_scores=row_scores))
    found = read_answers(folder)
    assert found.ids == tuple(row.id for row in rows)
    assert found.targets == tuple(row.target for row in rows)
    assert found.answers == answers
    assert found.row_scores == (row_scores if told else {})
    assert found.probabilities == ()
    shares = tuple({answer: 0.75, f"{answer}?": 0.25} for answer in answers)
    losses = tuple((value, len(answer)) for value, answer in zip(values, answers, strict=True))
    scored = EvalResult(metrics={}, answers=answers, probabilities=shares, row_losses=losses)
    write_answers(folder, rows, scored)
    again = read_answers(folder)
    assert again.probabilities == shares and again.row_losses == losses


def test_answers_of_other_rows_than_were_asked_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        write_answers(tmp_path, [], EvalResult(metrics={}, answers=("a",)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ['{"id": "1"}', "[1]", "{", '{"id": "1", "target": "", '])
def test_damaged_file_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / ANSWERS_NAME).write_text(f"{line}\n")
    with pytest.raises(ValueError):
        read_answers(tmp_path)
