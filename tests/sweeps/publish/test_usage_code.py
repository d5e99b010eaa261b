"""The card's script makes the prompt as training did; test_card_answers.py runs the whole of it."""

import ast
import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import GenerationConfig

from sweeps.publish.usage_code import is_hub_id, write_usage_script
from tests.trainables.expert_model import save_experts
from trainables.config import TrainingOptions
from trainables.data.rows import Message, Row, Scoring
from trainables.data.tokens import encode_rows, encode_targets
from trainables.models.base_model import load_base, load_tokenizer
from trainables.models.chat_template import make_greedy_config
from trainables.solo.evaluate import compute_label_log_probs, inference
from trainables.tiny import MODEL_DIR

LABELS = Scoring(kind="classify", labels=("a{b}", "c'd\n"))


def script(
    base_model: str = "Qwen/Qwen3-0.6B",
    prompt_template: str = "{text}",
    scoring: Scoring = LABELS,
) -> str:
    return write_usage_script(
        base_model=base_model,
        prompt_template=prompt_template,
        source="text",
        scoring=scoring,
        options=TrainingOptions(max_new_tokens=8, compute_dtype="float32"),
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


LIMIT = 120
SYSTEM = Message(role="system", content="Be 'brief'.")


def chat_functions(system_prompt: str | None = SYSTEM.content) -> dict[str, Any]:
    """What a conversation's script defines before answer, with the bundled tokenizer."""
    code = write_usage_script(
        base_model="Qwen/Qwen3-0.6B",
        prompt_template="{input}",
        source="input",
        scoring=Scoring(kind="chat"),
        options=TrainingOptions(max_length_tokens=LIMIT + 8, max_new_tokens=8),
        system_prompt=system_prompt,
    )
    encoding, _, _ = code[code.index("def encode(") :].partition("def answer(")
    names: dict[str, Any] = {"tokenizer": load_tokenizer(str(MODEL_DIR))}
    exec(encoding, names)
    return names


@pytest.mark.parametrize("repeats", [1, 200])
def test_prompt_is_cut_as_in_training(repeats: int) -> None:
    text = "Tell of MESSAGE. " * repeats
    row = Row(id="1", prompt=text.strip(), target="", history=(SYSTEM,))
    names = chat_functions()
    (expected,) = encode_rows(names["tokenizer"], [row], LIMIT)
    assert expected.is_cut == (repeats > 1)
    assert names["encode_prompt"]({"input": text}, ()) == expected.prompt_ids


@pytest.mark.parametrize("num_turns", [0, 1, 2, 6, 9])
@pytest.mark.parametrize("repeats", [1, 200])
@pytest.mark.parametrize("system", ["card's", "own", "none"])
def test_conversation_loses_its_turns_as_in_training(
    num_turns: int, repeats: int, system: str
) -> None:
    own = Message(role="system", content="Answer in French.")
    turns = tuple(
        Message(role=("user", "assistant")[n % 2], content=f"What of MESSAGE {n}? \n\nI ask again.")
        for n in range(num_turns)
    )
    names = chat_functions(None if system == "none" else SYSTEM.content)
    first = {"card's": (SYSTEM,), "own": (own,), "none": ()}[system]
    row = Row(id="1", prompt=("Who? " * repeats).strip(), target="", history=(*first, *turns))
    (expected,) = encode_rows(names["tokenizer"], [row], LIMIT)
    assert expected.is_cut == (repeats > 1 or num_turns > 4)
    said = [
        {"role": turn.role, "content": f" {turn.content}\n".replace("\n", "\r\n")}
        for turn in ((own,) if system == "own" else ()) + turns
    ]
    assert names["encode_prompt"]({"input": row.prompt}, said) == expected.prompt_ids


@pytest.mark.parametrize("kind", ["qwen3", "qwen3_moe", "qwen3_5_moe"])
def test_labels_are_read_together_and_as_likely_as_when_they_are_scored(
    kind: str, tmp_path: Path
) -> None:
    words = ["of", "the", "answer", "we", "gave", "to", "all", "who", "had", "asked", "home"]
    labels = tuple(" ".join(words[n % 7 : n % 7 + 1 + n // 7]) for n in range(49))
    code = script(scoring=Scoring(kind="classify", labels=labels))
    tokenizer = load_tokenizer(str(MODEL_DIR))
    folder = str(MODEL_DIR) if kind == "qwen3" else save_experts(tmp_path, tokenizer, kind)
    model = load_base(folder, "float32")
    model.generation_config = GenerationConfig(**make_greedy_config(tokenizer, 8))
    calls = []

    def count(**inputs: Any) -> Any:
        calls.append(inputs["input_ids"].shape)
        return model(**inputs)

    count.generation_config = model.generation_config
    names = {"tokenizer": tokenizer, "model": count, "torch": torch, "copy": copy, "device": "cpu"}
    exec(code[code.index("def encode(") : code.index("probabilities =")], names)
    probabilities = names["answer"]({"text": "Well?"})
    prompt = names["encode_prompt"]({"text": "Well?"}, ())
    assert [shape[0] for shape in calls] == [1, 32, 17]
    with inference(model):
        log_probs = compute_label_log_probs(model, [prompt], encode_targets(tokenizer, labels), 1)
    expected = dict(zip(labels, log_probs[0].softmax(dim=0).tolist(), strict=True))
    assert probabilities == pytest.approx(expected, rel=1e-3)


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
