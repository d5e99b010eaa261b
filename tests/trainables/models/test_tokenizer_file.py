"""The tokenizer read without transformers gives what transformers' gives."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from trainables.data.tokens import end_of_turn_id, render_template
from trainables.errors import SweepAborted
from trainables.models.base_model import load_tokenizer
from trainables.models.tokenizer_file import TokenizerFile
from trainables.tiny import MODEL_DIR


@pytest.fixture(scope="module")
def both() -> tuple[TokenizerFile, PreTrainedTokenizerFast]:
    return TokenizerFile(str(MODEL_DIR)), load_tokenizer(str(MODEL_DIR))


@settings(max_examples=200)
@given(st.lists(st.text(), max_size=3))
def test_texts_become_the_same_tokens(
    both: tuple[TokenizerFile, PreTrainedTokenizerFast], texts: list[str]
) -> None:
    light, full = both
    special = ["<|im_start|>user\nHi<|im_end|>", *texts]
    assert (
        light(special, add_special_tokens=False)["input_ids"]
        == full(special, add_special_tokens=False)["input_ids"]
    )


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("roles", [("user",), ("system", "user", "assistant", "user")])
def test_conversations_are_written_the_same(
    both: tuple[TokenizerFile, PreTrainedTokenizerFast], roles: tuple[str, ...], thinking: bool
) -> None:
    light, full = (render_template(tokenizer, roles, thinking=thinking) for tokenizer in both)
    assert light == full


def test_tokens_have_the_same_names(both: tuple[TokenizerFile, PreTrainedTokenizerFast]) -> None:
    light, full = both
    assert light.eos_token_id == full.eos_token_id
    assert light.unk_token_id == full.unk_token_id
    assert light.vocab_size == len(full)
    assert end_of_turn_id(light) == end_of_turn_id(full)


@pytest.mark.parametrize("form", ["config", "named"])
def test_template_in_the_config_is_found(form: str, tmp_path: Path) -> None:
    model = _copy_tokenizer(tmp_path)
    template = TokenizerFile(str(MODEL_DIR)).template_text
    config = json.loads((model / "tokenizer_config.json").read_text())
    others = [{"name": "tool_use", "template": ""}, {"name": "default", "template": template}]
    config["chat_template"] = template if form == "config" else others
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    (model / "chat_template.jinja").unlink(missing_ok=True)
    assert TokenizerFile(str(model)).template_text == template


@pytest.mark.parametrize("damage", ["none", "no default", "not a tokenizer"])
def test_what_lacks_is_one_clear_error(damage: str, tmp_path: Path) -> None:
    model = _copy_tokenizer(tmp_path)
    (model / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["chat_template"] = [{"name": "rag", "template": "x"}] if damage == "no default" else None
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    if damage == "not a tokenizer":
        (model / "tokenizer.json").write_text("{}")
    with pytest.raises(SweepAborted, match="tokenizer"):
        render_template(TokenizerFile(str(model)), ["user"])


def _copy_tokenizer(folder: Path) -> Path:
    for path in MODEL_DIR.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder)
    return folder
