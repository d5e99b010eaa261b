"""Splits made by content: complete, alike in length, and moved by nothing but the texts."""

import random
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainables.data.rows import SPLITS, Document
from trainables.data.splitting import divide_documents, make_document, split_by_content

TEXTS = st.lists(st.text("abc ", min_size=1, max_size=9).filter(str.strip), min_size=3, max_size=80)


def documents_of(texts: list[str]) -> list[Document]:
    return [Document(id=str(n), source=text, target="t") for n, text in enumerate(texts)]


@given(TEXTS, st.randoms())
@example([*map(str, range(9)), "ba", " ba", "a  a", "a a", "abc"], random.Random(0))
def test_order_of_the_rows_moves_no_text(texts: list[str], shuffler: random.Random) -> None:
    documents = documents_of(texts)
    splits = split_by_content(documents, {})
    shuffler.shuffle(documents)
    again = split_by_content(documents, {})
    assert {s: [d.source for d in splits[s]] for s in SPLITS} == {
        s: [d.source for d in again[s]] for s in SPLITS
    }


@given(TEXTS)
def test_every_text_is_in_one_split_once(texts: list[str]) -> None:
    counts: dict[str, int] = {}
    splits = split_by_content(documents_of(texts), counts)
    placed = [" ".join(d.source.split()) for split in SPLITS for d in splits[split]]
    assert sorted(placed) == sorted({" ".join(text.split()) for text in texts})
    assert counts["all duplicates"] == len(texts) - len(placed)


def test_a_tenth_is_held_out_for_each_and_lengths_are_alike() -> None:
    rng = random.Random(0)
    texts = [f"{n} " + "x" * int(rng.lognormvariate(6, 1)) for n in range(500)]
    splits = split_by_content(documents_of(texts), {})
    assert [len(splits[split]) for split in SPLITS] == [400, 50, 50]
    medians = [
        sorted(len(d.source) for d in splits[split])[len(splits[split]) // 2] for split in SPLITS
    ]
    assert max(medians) < 1.15 * min(medians)


@pytest.mark.parametrize("num_rows", [3, 9, 10, 11, 14, 15, 16, 27])
def test_small_tables_fill_every_split(num_rows: int) -> None:
    splits = split_by_content(documents_of([f"text {n}" for n in range(num_rows)]), {})
    assert all(splits.values())
    assert len(splits["train"]) >= num_rows - 2 * max(1, round(num_rows / 10))


@pytest.mark.parametrize("value", ["half a character: \ud83d", None, float("nan"), ["a"]])
def test_cell_without_text_is_blank(value: object) -> None:
    made = make_document({"text": value, "summary": value}, source="text", columns=("text",))
    assert (made.source, made.target) == ("", "")


def test_documents_of_one_mark_count_as_one() -> None:
    documents = [replace(d, keys=frozenset({"video 1"})) for d in documents_of(["a", "b", "c"])]
    counts: dict[str, int] = {}
    assert sum(map(len, split_by_content(documents, counts).values())) == 1
    assert counts["all duplicates"] == 2


def test_complete_splits_are_kept_and_said_nothing_of() -> None:
    documents = {s: documents_of([f"{s} {n}" for n in range(4)]) for s in SPLITS}
    kept, notes = divide_documents(documents, {})
    assert (kept, notes) == (documents, ())
