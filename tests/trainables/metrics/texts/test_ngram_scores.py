"""BLEU and chrF against sacrebleu's, digit by digit."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU as SACREBLEU
from sacrebleu.metrics import CHRF as SACRECHRF

from trainables.metrics.texts.ngram_scores import BLEU, CHRF, SummedScore

WORDS = st.sampled_from(
    [
        *("the", "The", "cat", "sat.", "3.5", "1,000", "3-4", "well-", "&quot;", "&amp;lt;"),
        *("(so)", "don't", "çok", "a.b", "<skipped>", "-\n", "\n", "x,", "¿qué?", "e\u0301", "&"),
    ]
)
TEXTS = st.lists(WORDS, max_size=12).map(" ".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=20
)
ROWS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=5)
THEIRS = {"bleu": (BLEU, SACREBLEU()), "chrf": (CHRF, SACRECHRF())}


def score(metric: SummedScore, rows: list[tuple[str, list[str]]]) -> float:
    counts = [metric.count_row(answer, references) for answer, references in rows]
    return metric.score_sums([sum(column) for column in zip(*counts, strict=True)])


@pytest.mark.parametrize("name", THEIRS)
@given(rows=ROWS)
@example(rows=[("the cat sat on the mat today", ["the cat sat on a mat today", "a cat sat"])])
@example(rows=[("", ["the cat"]), ("the cat sat on the", ["the cat sat on the"])])
@example(rows=[("a b c d e", ["a b c x e"])])
def test_scores_are_sacrebleus(name: str, rows: list[tuple[str, list[str]]]) -> None:
    ours, theirs = THEIRS[name]
    most = max(len(references) for _, references in rows)
    # sacrebleu takes a list a reference number; None where a row has fewer
    streams = [[r[number] if number < len(r) else None for _, r in rows] for number in range(most)]
    expected = theirs.corpus_score([answer for answer, _ in rows], streams).score
    assert score(ours, rows) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_the_examples_do_give_scores_between_the_ends() -> None:
    rows = [("the cat sat on the mat today", ["the cat sat on a mat today"])]
    assert 20 < score(BLEU, rows) < 80 and 20 < score(CHRF, rows) < 95
