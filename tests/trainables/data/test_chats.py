"""Files of conversations become rows with their turns; several texts kinds share one reader."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trainables.config import TaskOptions
from trainables.data.rows import Message, Splits
from trainables.data.tasks.table import TableTask
from trainables.errors import SweepAborted


def turns(number: int, *, thought: str = "") -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"Where is number {number}?"},
        {"role": "assistant", "content": f"In row {number}."},
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": f"{thought}Gladly, {number}."},
    ]


def load(folder: Path, rows: list[Any], column: str = "messages", **options: Any) -> Splits:
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps({column: row}) + "\n" for row in rows))
    task = TableTask(TaskOptions(input=column, kind="chat", **options))
    return task.load((str(path),))


def test_rows_are_the_conversations_split_so_that_every_one_is_in_one_split(tmp_path: Path) -> None:
    splits = load(tmp_path, [turns(n) for n in range(100)])
    rows = [*splits.train, *splits.validation, *splits.test]
    assert splits.scoring.kind == "chat"
    assert sorted(int(row.target[8:-1]) for row in rows) == list(range(100))
    for row in rows:
        number = int(row.target[8:-1])
        assert row.prompt == "Thanks."
        assert row.history == (
            Message(role="user", content=f"Where is number {number}?"),
            Message(role="assistant", content=f"In row {number}.", is_trained=True),
        )


def test_what_is_left_out_is_counted_and_what_is_not_used_is_told(tmp_path: Path) -> None:
    tools = [*turns(7)[:1], {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]
    asked = [*turns(8), {"role": "user", "content": "Still there?"}]
    thinks = turns(9, thought="<think>Nine.</think>")
    rows = [turns(n) for n in range(20, 60)] + [tools, ["a text"], asked, thinks]
    splits = load(tmp_path, rows)
    assert splits.counts["table tool calls"] == splits.counts["table not a conversation"] == 1
    assert sum(splits.counts[split] for split in ("train", "validation", "test")) == 42
    assert any("1 conversations end before" in note for note in splits.notes)
    assert any("1 answers hold a thought" in note and "--thinking" in note for note in splits.notes)


def test_system_prompt_is_for_conversations_without_their_own(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "Be kind."}]
    rows = [own * (n % 2) + turns(n) for n in range(60)]
    splits = load(tmp_path, rows, system_prompt="Be brief.", train_on="last")
    for row in splits.train:
        is_odd = int(row.target[8:-1]) % 2
        assert row.history[0] == Message(
            role="system", content="Be kind." if is_odd else "Be brief."
        )
        assert not any(message.is_trained for message in row.history)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"target": "x"}, "--target"),
        ({"prompt": "{x}"}, "--prompt"),
        ({"balance": "oversample"}, "--balance"),
    ],
)
def test_what_conversations_have_no_use_for_is_refused(
    options: dict[str, Any], word: str, tmp_path: Path
) -> None:
    with pytest.raises(SweepAborted, match=f"no use for {word}"):
        load(tmp_path, [turns(n) for n in range(40)], **options)


def test_file_without_one_conversation_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(
        SweepAborted, match="none of the 30 rows can be used by text: table not a conv"
    ) as no:
        load(tmp_path, ["a text"] * 30, column="text")
    assert "role and content" in no.value.fix


SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hi!"}]


@pytest.mark.parametrize(
    ("row", "flags"),
    [
        ({"id": 3, "the chat": SHAREGPT}, "--input 'the chat' --kind chat"),
        (
            {"instruction": "Name a planet near {n}.", "output": "Mars, {n}."},
            "--input instruction --target output --kind generate",
        ),
        (
            {"article": "Long news about {n}. " * 9, "summary": "News {n}."},
            "--input article --target summary --kind summarize",
        ),
    ],
)
def test_hint_names_the_kind(row: dict[str, Any], flags: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row).replace("{n}", str(n)) + "\n" for n in range(60)))
    with pytest.raises(SweepAborted) as refused:
        TableTask(TaskOptions()).load((str(path),))
    assert flags in refused.value.fix


def test_generated_texts_have_no_question_of_ours_and_may_have_a_system_prompt(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"q": f"Name planet {n}.", "a": f"Planet {n}."} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = TaskOptions(input="q", target="a", kind="generate", system_prompt="Be brief.")
    row = TableTask(options).load((str(path),)).test[0]
    assert row.prompt.startswith("Name planet ")
    assert row.history == (Message(role="system", content="Be brief."),)


def test_conversations_that_begin_alike_are_in_one_split(tmp_path: Path) -> None:
    longer = [
        [*turns(n), {"role": "user", "content": f"And {n}?"}, {"role": "assistant", "content": "b"}]
        for n in range(40)
    ]
    rows = [some[:length] for some in longer for length in (2, 4, 6)]
    splits = load(tmp_path, rows)
    firsts = {
        split: {(row.history[0].content if row.history else row.prompt) for row in some}
        for split, some in vars(splits).items()
        if split in ("train", "validation", "test")
    }
    assert not firsts["train"] & firsts["test"] and not firsts["train"] & firsts["validation"]
    assert sum(map(len, firsts.values())) == 40


def test_thought_of_a_generated_text_is_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"q": f"Add {n}.", "a": f"<think>hmm {n}</think> {n + 1}"} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = TaskOptions(input="q", target="a", kind="generate")
    row = TableTask(options).load((str(path),)).train[0]
    assert (row.target, row.thought) == (str(int(row.thought[4:]) + 1), row.thought)


def test_prompt_that_shows_the_answer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(60)))
    options = TaskOptions(
        input="text", target="label", kind="classify", prompt="Text: {text} Label: {label}"
    )
    with pytest.raises(SweepAborted, match="names the target label") as refused:
        TableTask(options).load((str(path),))
    assert "{label}" in refused.value.fix


def write_csv(path: Path, cells: list[str]) -> str:
    """As pandas.DataFrame({"messages": cells}).to_csv(path, index=False) does."""
    pd.DataFrame({"messages": cells}).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("as_array", [False, True])
def test_conversations_that_pandas_wrote_are_read(tmp_path: Path, as_array: bool) -> None:
    chats: list[Any] = [turns(n) for n in range(40)]
    chats[3][1]["content"] = "It's \"3\":\n} {\n[None] {'role': 1} 😀"
    cells = [np.array(chat, dtype=object) for chat in chats] if as_array else chats
    path = write_csv(tmp_path / "chats.csv", cells)
    splits = TableTask(TaskOptions(input="messages", kind="chat")).load((path,))
    rows = [*splits.train, *splits.validation, *splits.test]
    said = {(r.history[0].content, r.history[1].content, r.prompt, r.target) for r in rows}
    assert said == {tuple(turn["content"] for turn in chat) for chat in chats}


@pytest.mark.parametrize(
    "cell", ["[", "[1, 2]", "[open('x')]", "['a', ", "[" * 5000, "{'role': 1}"]
)
def test_what_is_no_conversation_in_python_either_is_counted(tmp_path: Path, cell: str) -> None:
    path = write_csv(tmp_path / "chats.csv", [cell, *(str(turns(n)) for n in range(40))])
    splits = TableTask(TaskOptions(input="messages", kind="chat")).load((path,))
    assert splits.counts["table not a conversation"] == 1


def test_given_splits_share_no_beginnings(tmp_path: Path) -> None:
    """A conversation that another split's begins with shows its answers, and so does the whole."""
    greeting = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    other_answer = [turns(5)[0], {"role": "assistant", "content": "Elsewhere."}]
    given = {
        "train": [turns(n) for n in range(20, 40)] + [turns(1)[:2], turns(2), other_answer],
        "validation": [turns(n) for n in range(3, 6)] + [turns(2)[:2], greeting],
        "test": [turns(0), [*greeting, *turns(7)], [*turns(1), *turns(8)]],
    }
    for split, chats in given.items():
        lines = "".join(json.dumps({"messages": chat}) + "\n" for chat in chats)
        (tmp_path / f"{split}.jsonl").write_text(lines)
    splits = TableTask(TaskOptions(input="messages", kind="chat")).load((str(tmp_path),))
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [21, 4, 3]
    assert splits.counts["train shares its turns with test"] == 1
    assert splits.counts["train shares its turns with validation"] == 1
    assert splits.counts["validation shares its turns with test"] == 1
    assert "Elsewhere." in [row.target for row in splits.train]
