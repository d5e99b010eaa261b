"""The flags that are suggested: by names and fill, then by length, never the target as input."""

import pandas as pd
import pytest

from trainables.config import TaskOptions
from trainables.data.hints import Columns
from trainables.data.tables.table import Table

LONG = "a text that is rather long "


def suggest(options: TaskOptions | None = None, **columns: list[object]) -> str:
    table = Table(pd.DataFrame(columns, dtype=object), "")
    return Columns(table).suggest(options or TaskOptions())


def texts(word: str, times: int = 1) -> list[object]:
    return [f"{word} {i} " * times for i in range(40)]


def labels(*names: object) -> list[object]:
    return [names[i % len(names)] for i in range(40)]


@pytest.mark.parametrize(
    ("columns", "flags"),
    [
        ({"output": texts("x", 9), "instruction": texts("y")}, "instruction output generate"),
        ({"completion": texts("x", 9), "prompt": texts("y")}, "prompt completion generate"),
        ({"answer": labels("yes", "no"), "question": texts("y")}, "question answer classify"),
        ({"review": texts(LONG), "sentiment": labels("a", "b")}, "review sentiment classify"),
        ({"label": labels(*range(30)), "tweet": texts("t")}, "tweet label summarize"),
        ({"summary": texts("s", 9), "article": texts("a", 3)}, "article summary summarize"),
        ({"v1": labels("ham", "spam"), "v2": texts("t")}, "v2 v1 classify"),
        ({"en": texts("hello"), "fr": texts("salut")}, "en fr summarize"),
        (
            {"url": texts("http", 9), "body": texts("b"), "topic": labels(1, 2)},
            "body topic classify",
        ),
        (
            {"ClassIndex": labels(1, 2), "Description": texts("d")},
            "Description ClassIndex classify",
        ),
        (
            {
                "sentiment_gold": ["a", "b", *[""] * 38],
                "text": texts("t"),
                "mood": labels("x", "y"),
            },
            "text mood classify",
        ),
    ],
)
def test_columns_are_chosen_by_name_and_fill(columns: dict[str, list[object]], flags: str) -> None:
    source, target, kind = flags.split()
    assert suggest(**columns) == f"try --input {source} --target {target} --kind {kind}"


def test_target_that_was_given_is_never_the_input() -> None:
    for name in ("text", "note"):
        fix = suggest(TaskOptions(target=name), text=texts(LONG), note=texts("n"))
        other = {"text": "note", "note": "text"}[name]
        assert fix == f"try --input {other} --target {name} --kind summarize"


def test_what_belongs_to_an_instruction_gets_into_the_prompt() -> None:
    columns = {"instruction": texts("do"), "input": labels("", "this"), "output": texts("o")}
    assert suggest(**columns).endswith("--kind generate --prompt '{instruction} {input}'")
    assert suggest(TaskOptions(prompt="{instruction}"), **columns).endswith("--kind generate")


def test_a_first_row_that_is_no_header_is_told_with_names_to_give() -> None:
    columns = {"good": labels("good", "bad"), "A first text": texts(LONG)}
    assert suggest(**columns) == (
        "the first row seems to be no row of names: try --columns label text --input text "
        "--target label --kind classify"
    )


def test_columns_without_text_are_not_suggested() -> None:
    assert suggest(boxes=[[{"x": 1}]] * 40) == (
        "give it a column of texts to read, and one of texts or labels to answer with"
    )
    table = Table(pd.DataFrame({"messages": [[1]], "x": ["y"]}), "")
    assert Columns(table).describe() == "messages (no text), x (1 different values)"
