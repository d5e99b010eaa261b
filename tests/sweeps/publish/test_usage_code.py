"""The card's script makes the prompt as training did; test_export.py runs the whole of it."""

import ast
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sweeps.publish.usage_code import is_hub_id, usage_code


def script(base_model: str = "Qwen/Qwen3-0.6B", prompt_template: str = "{text}") -> str:
    return usage_code(
        base_model=base_model,
        prompt_template=prompt_template,
        compute_dtype="bfloat16",
        max_new_tokens=8,
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
    lines = script(prompt_template=template).splitlines()
    (line,) = [line for line in lines if line.startswith("prompt = ")]
    found = eval(line.removeprefix("prompt = "))
    assert found == prompt.replace("TEXT", "Put your text here.")


@given(base_model=st.text(max_size=40), prompt_template=st.text(max_size=40))
@example(base_model="a'b", prompt_template="{'\"\n")
def test_no_text_breaks_the_script(base_model: str, prompt_template: str) -> None:
    assert ast.parse(script("./" + base_model, prompt_template)).body
    assert ast.parse(script(base_model, prompt_template)).body


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
