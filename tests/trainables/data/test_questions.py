"""Rows of a table become the prompts that the sweep made of them, to the letter."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainables import tiny
from trainables.config import TaskOptions
from trainables.data.conversations import Unusable
from trainables.data.prepared_rows import read_facts, write_rows
from trainables.data.questions import check_columns, make_question
from trainables.data.rows import Row, Splits
from trainables.data.tables.read_tables import read_table
from trainables.data.tasks import TASKS
from trainables.errors import SweepAborted

CLASSIFY = TaskOptions(
    input="message", target="intent", kind="classify", prompt="{intent_of} {input}: which?"
)
CHAT = TaskOptions(input="messages", kind="chat", system_prompt="Be brief.", train_on="last")
GENERATE = TaskOptions(
    input="message", target="intent", kind="generate", system_prompt="Say it {well}."
)


def write_chats(folder: Path) -> Path:
    path = folder / "chats.jsonl"
    chats = []
    for n in range(40):
        said = [f"{n}?", f" {n}! ", f"Really {n}?", "Yes."]
        chat = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(said)]
        chats.append([{"from": "system", "value": "Be kind."}][: n % 2] + chat)
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    return path


def load(task: str, options: TaskOptions, data: Path, folder: Path) -> tuple[Splits, Splits]:
    """The rows, and the facts that the run's folder keeps of them."""
    splits = TASKS[task](options).load((str(data),))
    write_rows(folder / "rows", splits)
    return splits, read_facts(folder / "rows")


def ask(path: Path, facts: Splits) -> list[Row]:
    table = read_table(str(path), TaskOptions())
    assert facts.columns is not None
    check_columns(table, facts.columns)
    records = table.frame.to_dict("records")
    return [make_question(record, facts, "same") for record in records]


@pytest.mark.parametrize("case", ["samsum", "youtube", "tweets", "classify", "generate", "chat"])
def test_questions_are_the_rows_that_were_scored(case: str, tmp_path: Path) -> None:
    messages = tmp_path / "messages.csv"
    lines = (tiny.MESSAGES_DIR / "messages.csv").read_text().splitlines()
    assert lines[0] == "message,intent"
    messages.write_text("\n".join([f"{lines[0]},intent_of", *(f"{x},Mail" for x in lines[1:])]))
    task, options, data = {
        "samsum": ("samsum", TaskOptions(), tiny.SAMSUM_DIR),
        "youtube": ("turkish_youtube", TaskOptions(), tiny.TURKISH_YOUTUBE_DIR),
        "tweets": ("turkish_tweets", TaskOptions(), tiny.TURKISH_TWEETS_DIR / "tweets.csv"),
        "classify": ("table", CLASSIFY, messages),
        "generate": ("table", GENERATE, messages),
        "chat": ("table", CHAT, write_chats(tmp_path)),
    }[case]
    splits, facts = load(task, options, data, tmp_path)
    asked = {*ask(data, facts)}
    rows = {replace(row, id="same") for row in (*splits.train, *splits.validation, *splits.test)}
    assert len(rows) > 20
    assert rows <= asked


@pytest.mark.parametrize(
    ("value", "label"),
    [("2", "iyi"), (2.0, "iyi"), ("OLUMLU", "iyi"), ("iyi", "iyi"), ("-1", ""), (None, "")],
)
def test_target_is_the_label_or_unknown(value: object, label: str, tmp_path: Path) -> None:
    options = TaskOptions(label_names=("0=orta", "1=kötü", "2=iyi"))
    _, facts = load("turkish_tweets", options, tiny.TURKISH_TWEETS_DIR, tmp_path)
    assert make_question({"Tweets": "a", "Duygu": value}, facts, "1").target == label
    assert make_question({"Tweets": "a"}, facts, "1").target == ""


def test_conversation_that_waits_for_an_answer_is_asked_in_full(tmp_path: Path) -> None:
    _, facts = load("table", CHAT, write_chats(tmp_path), tmp_path)
    turns: list[Any] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    question = make_question(
        {"messages": [*turns, {"role": "user", "content": "Who?"}]}, facts, "1"
    )
    assert (question.prompt, question.target) == ("Who?", "")
    assert [m.content for m in question.history] == ["Be brief.", "Hi", "Yes?"]
    for unusable in ([], "text", [{"role": "user", "content": ""}], None):
        with pytest.raises(Unusable):
            make_question({"messages": unusable}, facts, "1")


def test_what_cannot_be_asked_has_a_reason(tmp_path: Path) -> None:
    _, facts = load("samsum", TaskOptions(), tiny.SAMSUM_DIR, tmp_path)
    for value, reason in ((" ", "blank input"), (None, "blank input"), ([1], "not text")):
        with pytest.raises(Unusable, match=reason):
            make_question({"dialogue": value}, facts, "1")
    (tmp_path / "a.csv").write_text("text\na\n")
    with pytest.raises(SweepAborted, match="has no column 'dialogue'; found text"):
        ask(tmp_path / "a.csv", facts)


def test_rows_of_all_splits_are_read_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,split\n1,test\n2,train\n3,other\n")
    table = read_table(str(tmp_path / "a.csv"), TaskOptions())
    assert list(table.frame["n"]) == ["1", "2", "3"]
    (tmp_path / "b.json").write_text('{"test": [{"n": 1}], "train": [{"n": 2}, {"n": 3}]}')
    table = read_table(str(tmp_path / "b.json"), TaskOptions())
    assert sorted(table.frame["n"]) == [1, 2, 3]


def test_files_of_a_folder_that_are_not_read_are_told(tmp_path: Path) -> None:
    for name in ("train", "others"):
        (tmp_path / f"{name}.csv").write_text("n\n1\n")
    assert read_table(str(tmp_path), TaskOptions()).note.endswith("; not read: others.csv")
