"""What augmentation adds to train, and that it leaves all else as it was."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.config import TaskOptions
from trainables.data.augmentation import add_noise, augment, oversample
from trainables.data.rows import Message, Row, Scoring, Splits, TableColumns
from trainables.data.tasks import TASKS
from trainables.errors import SweepAborted

BEFORE, AFTER = "Mood of <", "> please?"


def make_row(number: int, text: str, target: str = "good") -> Row:
    begin = len(BEFORE)
    return Row(
        id=f"row-{number}",
        prompt=BEFORE + text + AFTER,
        target=target,
        cut_from=begin,
        cut_to=begin + len(text),
    )


def text_of(row: Row) -> str:
    assert row.prompt.startswith(BEFORE) and row.prompt.endswith(AFTER)
    return row.prompt[row.cut_from : row.cut_to]


SPLITS = Splits(
    train=tuple(make_row(n, f"Some plain words about subject {n}") for n in range(20)),
    validation=(make_row(30, "A sentence for validation"),),
    test=(make_row(40, "Another one for testing"),),
    counts={"train": 20},
    scoring=Scoring(kind="classify", labels=("good", "bad")),
    prompt_template=BEFORE + "{tweet}" + AFTER,
    source="tweet",
    columns=TableColumns(prompt={"tweet": "tweet"}),
)
NOISE = TaskOptions(augment_copies=4, augment_noise=0.3)


def paraphrase(folder: Path, *lines: str, splits: Splits = SPLITS) -> Splits:
    path = folder / "more.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return augment(splits, TaskOptions(paraphrases=str(path)), seed=0)


def test_nothing_is_added_unless_it_is_asked_for() -> None:
    assert augment(SPLITS, TaskOptions(), seed=0) == SPLITS and SPLITS.added == {}


def test_noisy_copies_are_added_to_train_alone_and_change_the_text_alone() -> None:
    grown = augment(SPLITS, NOISE, seed=0)
    assert grown.train[:20] == SPLITS.train
    assert (grown.validation, grown.test) == (SPLITS.validation, SPLITS.test)
    copies = grown.train[20:]
    assert 40 < len(copies) <= 80
    assert grown.added == {"noisy": len(copies)}
    assert grown.counts["noisy copies like other rows"] == 80 - len(copies)
    originals = {row.id: row for row in SPLITS.train}
    for copy in copies:
        original = originals[copy.id.partition("#")[0]]
        assert text_of(copy) != text_of(original) and copy.target == original.target
        assert text_of(copy) and text_of(copy).strip() == text_of(copy)
    assert len({row.id for row in grown.train}) == len(grown.train)


def test_copies_depend_on_the_seed_and_their_own_row_alone() -> None:
    grown = augment(SPLITS, NOISE, seed=0)
    assert augment(SPLITS, NOISE, seed=0) == grown != augment(SPLITS, NOISE, seed=1)
    random.seed(7)
    fewer = augment(replace(SPLITS, train=SPLITS.train[5:]), NOISE, seed=0)
    by_id = {row.id: row for row in grown.train}
    alike = [row for row in fewer.train[15:] if row.id in by_id]
    assert len(alike) > 30 and all(row == by_id[row.id] for row in alike)


def test_copy_like_a_held_out_row_is_left_out_and_counted() -> None:
    train = (make_row(1, "not good"),)
    held = (make_row(2, "good"), make_row(3, "NOT!"))
    grown = augment(replace(SPLITS, train=train, validation=held), NOISE, seed=0)
    assert {text_of(row) for row in grown.train} == {"not good", "good not"}
    assert grown.counts["noisy copies like other rows"] == 3


def test_conversation_keeps_its_turns_and_is_noisy_in_its_last_question() -> None:
    history = (Message(role="user", content="First"), Message(role="assistant", content="Yes"))
    row = Row(id="1", prompt="What about the second one then", target="No", history=history)
    grown = augment(replace(SPLITS, train=(row,)), NOISE, seed=0)
    assert len(grown.train) > 2
    for copy in grown.train[1:]:
        assert copy.history == history and copy.target == "No" and copy.prompt != row.prompt


@given(st.text(), st.floats(0.01, 0.99), st.randoms(use_true_random=False))
def test_noise_keeps_all_letters_but_of_words_left_out(
    text: str, frac: float, draw: random.Random
) -> None:
    noisy, words = add_noise(text, frac, draw), text.split()
    assert bool(noisy) == bool(words)
    assert Counter("".join(noisy.split())) <= Counter("".join(words))
    assert len(words) - len(noisy.split()) <= max(1, round(frac * (len(words) + 2)))


def test_lines_stay_lines_and_numbers_stay_numbers() -> None:
    text = "Ann: call 5551234 now\nBob: certainly, yesterday\nAnn: goodbye"
    for seed in range(40):
        noisy = add_noise(text, 0.2, random.Random(seed))
        assert noisy.count("\n") == 2
        assert "5551234" in noisy or len(noisy.split()) < 9


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40))
def test_oversampling_makes_all_labels_equally_common_and_loses_none(labels: list[str]) -> None:
    rows = tuple(make_row(i, f"text {i}", label) for i, label in enumerate(labels))
    balanced = oversample(rows)
    assert balanced[: len(rows)] == rows
    assert len(set(Counter(row.target for row in balanced).values())) == 1
    assert len({row.id for row in balanced}) == len(balanced)
    for label in set(labels):
        times = Counter(row.prompt for row in balanced if row.target == label)
        assert max(times.values()) - min(times.values()) <= 1
    assert all(row.added == "repeated" for row in balanced[len(rows) :])
    assert oversample(rows) == balanced


def test_rare_labels_are_balanced_and_each_repetition_has_noise_of_its_own(tmp_path: Path) -> None:
    lines = [f"This is the text number {n},{'bad' if n % 5 else 'good'}" for n in range(100)]
    (tmp_path / "a.csv").write_text("\n".join(["text,mood", *lines]))
    options = TaskOptions(input="text", target="mood", kind="classify", balance="oversample")
    splits = TASKS["table"](options).load(str(tmp_path / "a.csv"))
    balanced = augment(splits, options, seed=0)
    assert balanced.validation == splits.validation and balanced.test == splits.test
    assert sum(row.target == "good" for row in balanced.train) * 2 == len(balanced.train) == 96
    assert balanced.added == {"repeated": 36}
    noisy = augment(splits, replace(options, augment_copies=1), seed=0)
    assert noisy.train[:96] == balanced.train
    assert len({row.prompt for row in noisy.train[96:]}) == noisy.added["noisy"] > 80


@pytest.mark.parametrize(
    "name", ["any", "tweet", "id"], ids=["a text", "the input column", "a row's id"]
)
def test_paraphrases_become_rows_and_those_of_held_out_rows_do_not(
    name: str, tmp_path: Path
) -> None:
    known, held, other = (
        ("row-3", "row-40", "row-99")
        if name == "id"
        else ("Some plain  words about subject 3", "another one, for TESTING", "Unheard of")
    )
    third = "" if name == "any" else ";third"  # a column more, so that the name tells the original
    lines = (
        f"{name};paraphrase",
        f"{known};Of subject 3 in other words",
        f"{known};Said in a third way",
        f"{known};of subject 3, in other words",
        f"{known};a sentence for validation!",
        f"{known};",
        f"{held};A leak",
        f"{other};Of nothing",
    )
    grown = paraphrase(tmp_path, *(line + third for line in lines))
    assert grown.train[:20] == SPLITS.train
    added = grown.train[20:]
    assert [text_of(row) for row in added] == [
        "Of subject 3 in other words",
        "Said in a third way",
    ]
    assert all(row.target == "good" and row.id.startswith("row-3#") for row in added)
    assert grown.added == {"paraphrased": 2}
    assert (grown.validation, grown.test) == (SPLITS.validation, SPLITS.test)
    assert {name: n for name, n in grown.counts.items() if name != "train"} == {
        "paraphrases blank": 1,
        "paraphrases of validation or test rows": 2,
        "paraphrases of no training row": 1,
        "paraphrases like other rows": 1,
    }
    assert f"no training row has the {name} {other!r}" in grown.notes[-1]


@pytest.mark.parametrize(
    ("lines", "error", "fix"),
    [
        (["", ""], "--paraphrases: cannot read more.csv", "save it as UTF-8 CSV with two columns"),
        (["text,other", "a,b"], "no column 'paraphrase'", "two columns: the original text"),
        (["a,b,paraphrase", "a,b,c"], "no column 'text'", "two columns: the original text"),
        (
            ["text,paraphrase", "a,b", "Another one for testing,c"],
            "adds no row: paraphrases of validation or test rows 1, paraphrases of no training row",
            "rows/train.parquet",
        ),
    ],
)
def test_file_that_adds_nothing_is_refused(
    lines: list[str], error: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(SweepAborted) as told:
        paraphrase(tmp_path, *lines)
    assert error in told.value.error and fix in told.value.fix


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepAborted, match=r"--paraphrases .*none\.csv is no file"):
        augment(SPLITS, TaskOptions(paraphrases=str(tmp_path / "none.csv")), seed=0)


def test_prompt_with_the_text_twice_is_refused(tmp_path: Path) -> None:
    twice = replace(
        SPLITS,
        prompt_template="{tweet} or {input}",
        columns=TableColumns(prompt={"tweet": "tweet", "input": "tweet"}),
    )
    for refused in (lambda: augment(twice, NOISE, 0), lambda: paraphrase(tmp_path, splits=twice)):
        with pytest.raises(SweepAborted, match="the prompt names the column tweet 2 times"):
            refused()
    assert augment(twice, TaskOptions(), seed=0) == twice
