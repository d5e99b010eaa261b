"""The card's script makes the prompt as training did; test_card_answers.py runs the whole of it."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sweeps.publish.usage_code import is_hub_id, usage_code
from trainables.config import TrainingOptions
from trainables.data.rows import Message, Row, Scoring
from trainables.data.tokens import encode_rows
from trainables.models.base_model import load_tokenizer
from trainables.tiny import MODEL_DIR

LABELS = Scoring(kind="classify", labels=("a{b}", "c'd\n"))


def script(
    base_model: str = "Qwen/Qwen3-0.6B",
    prompt_template: str = "{text}",
    scoring: Scoring = LABELS,
) -> str:
    return usage_code(
        base_model=base_model,
        prompt_template=prompt_template,
        source="text",
        scoring=scoring,
        options=TrainingOptions(max_new_tokens=8),
    )


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{title}: {text} ({title})", "TEXT: TEXT (TEXT)"),
        ("{class} {my column}", "TEXT TEXT"),
        ("Answer in JSON, {{}}: {text}", "Answer in JSON, {}: TEXT"),
        ("no column", "no column"),
        ("an open { brace", "an open { brace"),
        ("{0} {text:d} {a.b} {}", "{0} {text:d} {a.b} {}"),
    ],
)
def test_prompt_is_made_as_training_makes_it(template: str, prompt: str) -> None:
    code = script(prompt_template=template)
    columns = eval(re.search(r"^probabilities = answer\((.*)\)$", code, re.M)[1])
    assert set(columns.values()) <= {"Put your text here."}
    texts = [
        eval(re.search(rf"^    {name} = (.*)$", code, re.M)[1], {"columns": columns})
        for name in ("before", "text", "after")
    ]
    assert "".join(texts) == prompt.replace("TEXT", "Put your text here.")
    assert texts[1] == ("Put your text here." if "{text}" in template else "")


@pytest.mark.parametrize("repeats", [1, 200])
def test_turns_before_the_prompt_are_those_of_training(repeats: int) -> None:
    system = Message(role="system", content="Be 'brief'.")
    turns = (Message(role="user", content="Hi"), Message(role="assistant", content="Hello!"))
    text = "Tell of MESSAGE. " * repeats
    row = Row(id="1", prompt=text.strip(), target="", history=(system,))
    code = usage_code(
        base_model="Qwen/Qwen3-0.6B",
        prompt_template="{input}",
        source="input",
        scoring=Scoring(kind="chat"),
        options=TrainingOptions(max_length_tokens=128, max_new_tokens=8),
        system_prompt=system.content,
    )
    tokenizer = load_tokenizer(str(MODEL_DIR))
    encoding, _, answering = code[code.index("def encode(") :].partition("def answer(")
    names = {"tokenizer": tokenizer}
    exec(encoding, names)
    history = eval(re.search(r"history=(.*)\):$", answering, re.M)[1])
    (expected,) = encode_rows(tokenizer, [row], 120)
    assert expected.is_cut == (repeats > 1)
    assert names["encode_prompt"]({"input": text}, history) == expected.prompt_ids
    (chat,) = encode_rows(tokenizer, [replace(row, prompt="Who?", history=(system, *turns))], 120)
    said = [*history, *({"role": turn.role, "content": turn.content} for turn in turns)]
    assert names["encode_prompt"]({"input": "Who?"}, said) == chat.prompt_ids


@settings(deadline=None)
@given(base_model=st.text(max_size=40), prompt_template=st.text(max_size=40))
@example(base_model="a'b", prompt_template="{'\"\n")
def test_no_text_breaks_the_script(base_model: str, prompt_template: str) -> None:
    for scoring in (LABELS, Scoring()):
        assert ast.parse(script("./" + base_model, prompt_template, scoring)).body
        assert ast.parse(script(base_model, prompt_template, scoring)).body


def test_a_base_of_the_hub_is_named_and_a_folder_is_not() -> None:
    assert "base = 'Qwen/Qwen3-0.6B'" in script()
    assert "secret" not in script("/secret/place")


def test_a_folder_that_looks_like_a_hub_id_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models/qwen").mkdir(parents=True)
    assert is_hub_id("models/qwen")
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("models/qwen")
