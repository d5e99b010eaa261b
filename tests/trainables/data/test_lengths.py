"""Rows that do not fit, and what is cut, are counted before anything is trained."""

from dataclasses import replace

import pytest

from trainables.config import TrainingOptions
from trainables.data.lengths import fit_splits
from trainables.data.rows import Message, Row, Scoring, Splits
from trainables.data.tokens import encode_training_rows
from trainables.errors import SweepAborted
from trainables.models.base_model import load_tokenizer
from trainables.models.tokenizer_file import TokenizerFile
from trainables.tiny import MODEL_DIR

TOKENIZER = TokenizerFile(str(MODEL_DIR))
OPTIONS = TrainingOptions(max_length_tokens=96, max_new_tokens=16, batch_size=2, micro_batch_size=1)
SHORT = Row(id="1", prompt="Ann: Hi Bob", target="Ann greets Bob.")
LONG_PROMPT = replace(SHORT, id="2", prompt="Ann: Hi Bob. " * 60)
LONG_TARGET = replace(SHORT, id="3", target="Ann greets Bob. " * 60)


def splits(*rows: Row, kind: str = "summarize") -> Splits:
    scoring = Scoring(kind=kind)  # type: ignore[arg-type]
    counts = {"train": len(rows), "train blank": 2}
    return Splits(
        train=rows, validation=rows, test=rows, counts=counts, scoring=scoring, prompt_template=""
    )


def test_rows_that_fit_are_as_they_were() -> None:
    same = splits(SHORT, SHORT)
    assert fit_splits(TOKENIZER, same, OPTIONS) == replace(
        same, counts=same.counts | {"train too long": 0}
    )


def test_training_rows_without_room_for_their_prompt_are_left_out_and_counted() -> None:
    fitted = fit_splits(TOKENIZER, splits(SHORT, LONG_TARGET, LONG_PROMPT), OPTIONS)
    assert fitted.train == (SHORT, LONG_PROMPT)
    assert fitted.validation == fitted.test == (SHORT, LONG_TARGET, LONG_PROMPT)
    assert fitted.counts == {"train": 2, "train blank": 2, "train too long": 1}
    cut, longer, left_out = fitted.notes
    assert "cut to 80 tokens: train 1 of 2, validation 1 of 3, test 1 of 3" in cut
    assert "--max-length-tokens" in cut and "--max-length-tokens" in left_out
    assert "left out of train: 1 of 3 rows" in left_out
    assert "longer than the 16 tokens" in longer
    assert "validation 1 of 3, test 1 of 3: --max-new-tokens" in longer
    trained = encode_training_rows(load_tokenizer(str(MODEL_DIR)), fitted.train, 96, 16)
    assert len(trained) == len(fitted.train)  # what the engines read leaves nothing else out


def test_prompts_that_no_cutting_makes_short_enough_are_told() -> None:
    """The system prompt is no text that may be cut."""
    system = Message(role="system", content="Say it briefly. " * 30)
    long_words = replace(SHORT, id="4", history=(system,))
    fitted = fit_splits(TOKENIZER, splits(SHORT, long_words), OPTIONS)
    (note,) = [note for note in fitted.notes if "scored" in note]
    assert "longer than 80 tokens" in note
    assert "validation 1 of 2, test 1 of 2: --max-length-tokens" in note


def test_labels_are_not_generated_so_their_length_is_not_told() -> None:
    fitted = fit_splits(TOKENIZER, splits(SHORT, LONG_TARGET, kind="classify"), OPTIONS)
    assert not any("--max-new-tokens" in note for note in fitted.notes)


def test_steps_larger_than_the_training_rows_that_fit_are_told() -> None:
    fitted = fit_splits(TOKENIZER, splits(SHORT, LONG_TARGET), OPTIONS)
    assert fitted.notes[-1] == "every step repeats rows: it has 2, and train 1: --batch-size"


def test_no_row_that_fits_is_refused() -> None:
    with pytest.raises(SweepAborted, match="no training row fits in 96 tokens"):
        fit_splits(TOKENIZER, splits(LONG_TARGET), OPTIONS)
