"""Labels: cleaned, named, counted where they contradict, and refused where they are none."""

import pytest

from trainables.data.labels import (
    check_label_count,
    clean_label,
    drop_contradictory,
    find_labels,
    read_names,
    rename_labels,
)
from trainables.data.rows import Document
from trainables.errors import SweepAborted


def documents(*pairs: tuple[str, str]) -> list[Document]:
    return [Document(id=str(i), source=s, target=t) for i, (s, t) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("text", "label"),
    [("1.0", "1"), (" -1,00 ", "-1"), ("1.5", "1.5"), ("very  good ", "very good")],
)
def test_label_is_one_line_and_a_whole_number_has_no_fraction(text: str, label: str) -> None:
    assert clean_label(text) == label


def test_names_are_read_and_given() -> None:
    names = read_names(["0=neutral", "1 = bad", "2=bad"])
    assert names == {"0": "neutral", "1": "bad", "2": "bad"}
    named = rename_labels(documents(("a", "0"), ("b", "2")), names, "mood")
    assert [d.target for d in named] == ["neutral", "bad"]


@pytest.mark.parametrize("pairs", [["neutral"], ["=x"], ["0="], ["0=a", "0=b"]])
def test_names_that_are_no_pairs_are_refused(pairs: list[str]) -> None:
    with pytest.raises(SweepAborted, match="no VALUE=NAME"):
        read_names(pairs)


def test_value_without_a_name_is_told() -> None:
    with pytest.raises(SweepAborted, match=r"column mood holds '3', '10', which .*\(0\)") as told:
        rename_labels(documents(("a", "10"), ("b", "0"), ("c", "3")), {"0": "neutral"}, "mood")
    assert "3=NAME" in told.value.fix


def test_all_rows_of_a_contradicted_text_go_and_are_counted() -> None:
    counts: dict[str, int] = {}
    rows = documents(("a", "x"), ("b", "x"), (" a ", "y"), ("b", "x"), ("a", "x"))
    assert [d.id for d in drop_contradictory(rows, "train", counts)] == ["1", "3"]
    assert counts == {"train contradictory": 3}


def test_texts_in_place_of_labels_are_refused_with_the_remedy() -> None:
    many = documents(*((f"text {i}", f"label {i % 1001}") for i in range(3000)))
    with pytest.raises(SweepAborted, match=r"1,001 different values in 3,000 rows") as told:
        check_label_count(many, "topic")
    assert "--kind summarize" in told.value.fix
    check_label_count(
        documents(*((f"text {i}", f"label {i % 1000}") for i in range(3000))), "topic"
    )
    with pytest.raises(SweepAborted, match="9 different values in 12 rows"):
        check_label_count(
            documents(*((f"text {i}", f"summary {i % 9}") for i in range(12))), "topic"
        )


def test_labels_that_differ_only_in_case_are_refused_with_the_remedy() -> None:
    labels = ("Good", "good", "bad", "bad", "x", "x", "x", "x")
    rows = documents(*((f"text {i}", label) for i, label in enumerate(labels)))
    with pytest.raises(SweepAborted, match="only in case: Good, good") as told:
        check_label_count(rows, "mood")
    assert "'Good=Good' 'good=Good'" in told.value.fix


def test_labels_are_sorted_by_number_or_stand_as_they_were_named() -> None:
    train = documents(("a", "10"), ("b", "9"), ("c", "none"))
    splits = {"train": train, "validation": train, "test": train}
    assert find_labels(splits, {}, "mood") == ("9", "10", "none")
    assert find_labels(splits, {"1": "none", "2": "10", "3": "9", "4": "unused"}, "mood") == (
        "none",
        "10",
        "9",
    )


def test_label_that_train_lacks_and_a_single_label_are_refused() -> None:
    train, other = documents(("a", "x"), ("b", "y")), documents(("c", "z"))
    with pytest.raises(SweepAborted, match="the test split has the label 'z'") as told:
        find_labels({"train": train, "validation": train, "test": other}, {}, "mood")
    assert "remove them from test" in told.value.fix
    one = documents(("a", "x"))
    with pytest.raises(SweepAborted, match="one label only, 'x'"):
        find_labels({"train": one, "validation": one, "test": one}, {}, "mood")


def test_composed_and_decomposed_letters_are_one_label() -> None:
    assert clean_label("cafe\u0301") == clean_label("caf\u00e9") == "caf\u00e9"
