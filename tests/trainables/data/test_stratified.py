"""Splits that are made: nothing on two sides, every label in train, the same for every order."""
# ruff: noqa: RUF001 - Turkish has a dotless i

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.rows import Document
from trainables.data.stratified import MIN_ROWS, hold_out, make_near_key
from trainables.errors import SweepAborted

MISSING = ("validation", "test")


def documents(labels: list[str]) -> list[Document]:
    return [Document(id=str(i), source=f"text {i}", target=t) for i, t in enumerate(labels)]


def divided(rows: list[Document], missing: tuple[str, ...] = MISSING) -> dict[str, list[Document]]:
    return hold_out(rows, missing, lambda d: make_near_key(d.source), lambda d: d.target)


@given(
    labels=st.lists(st.sampled_from("abcde"), min_size=MIN_ROWS, max_size=120),
    missing=st.sampled_from([MISSING, ("test",), ("validation",), ()]),
    shuffle=st.randoms(use_true_random=False),
)
def test_every_row_is_in_one_split_and_every_label_in_train(
    labels: list[str], missing: tuple[str, ...], shuffle: Random
) -> None:
    rows = documents(labels)
    splits = divided(rows, missing)
    assert list(splits) == ["train", *missing]
    assert sorted(d.id for some in splits.values() for d in some) == sorted(d.id for d in rows)
    assert {d.target for d in splits["train"]} == set(labels)
    for label in set(labels):
        if labels.count(label) > len(missing):
            assert all(any(d.target == label for d in some) for some in splits.values())
    shuffle.shuffle(rows)
    again = divided(rows, missing)
    for split, some in splits.items():
        assert {d.id for d in some} == {d.id for d in again[split]}


def test_held_out_splits_are_a_tenth_with_the_labels_shares() -> None:
    splits = divided(documents(["a"] * 800 + ["b"] * 200))
    assert [len(some) for some in splits.values()] == [800, 100, 100]
    assert [sum(d.target == "b" for d in some) for some in splits.values()] == [160, 20, 20]


def test_small_tables_give_more_than_a_tenth() -> None:
    assert [len(some) for some in divided(documents(["a"] * 60)).values()] == [36, 12, 12]
    assert [len(some) for some in divided(documents(["a"] * 150)).values()] == [110, 20, 20]


def test_order_within_a_split_is_that_of_the_table() -> None:
    for some in divided(documents(["a", "b"] * 40)).values():
        assert [int(d.id) for d in some] == sorted(int(d.id) for d in some)


def test_new_rows_move_few_of_the_others() -> None:
    before, after = divided(documents(["a"] * 500)), divided(documents(["a"] * 520))
    train = {d.id for d in after["train"]}
    assert sum(d.id not in train for d in before["train"]) < 20


def test_texts_of_one_key_stay_together() -> None:
    rows = [
        Document(id=f"{i}-{j}", source=text.format(i), target="a")
        for i in range(60)
        for j, text in enumerate(["İyi {}!", "@ali iyi {} https://t.co/x{}".replace("x{}", "x")])
    ]
    for some in divided(rows).values():
        ids = {d.id.partition("-")[0] for d in some}
        assert len(some) == 2 * len(ids) > 0


@pytest.mark.parametrize(
    "text",
    [
        "RT @ben: Işık güzel!",
        "ışık  GÜZEL",
        "IŞIK güzel https://t.co/a",
        "ışık güzel 🙂 @sen",
        "www.x.org/y ışıkgüzel",
    ],
)
def test_addresses_case_and_spaces_hide_no_copy(text: str) -> None:
    assert make_near_key(text) == make_near_key("Işık güzel")


def test_texts_without_letters_are_told_apart() -> None:
    assert make_near_key("🙂") != make_near_key("🙁")
    assert make_near_key("@ali") != make_near_key("@veli")


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(SweepAborted, match=r"9 usable rows .* takes 10"):
        divided(documents(["a"] * 9))
    assert divided(documents(["a"] * 9), ()) == {"train": documents(["a"] * 9)}
