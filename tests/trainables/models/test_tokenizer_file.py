"""The tokenizer read without transformers gives what transformers' gives."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.examples import max_examples
from trainables.errors import SweepAborted
from trainables.models.base_model import load_tokenizer
from trainables.models.chat_template import find_end_of_turn_id, render_template
from trainables.models.tokenizer_file import TokenizerFile
from trainables.tiny import MODEL_DIR


@pytest.fixture(scope="module")
def both() -> tuple[TokenizerFile, PreTrainedTokenizerFast]:
    return TokenizerFile(str(MODEL_DIR)), load_tokenizer(str(MODEL_DIR))


@max_examples(200)
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
    assert find_end_of_turn_id(light) == find_end_of_turn_id(full)


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


QWEN = {"tokenizer_class": "Qwen2Tokenizer"}


def _split_tokenizer(folder: Path, **config: object) -> Path:
    """The bundled tokenizer as older Qwen folders have it: a vocabulary, merges, added tokens."""
    model = _copy_tokenizer(folder)
    whole = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").unlink()
    added = {token.pop("id"): token for token in whole["added_tokens"]}
    vocabulary = whole["model"]["vocab"] | {token["content"]: n for n, token in added.items()}
    (model / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [m if isinstance(m, str) else " ".join(m) for m in whole["model"]["merges"]]
    (model / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    own = {"eos_token": "<|im_end|>", "added_tokens_decoder": added} | config
    (model / "tokenizer_config.json").write_text(json.dumps(own))
    return model


TEXTS = [
    *(
        "It's 12 o'clock,\n\n I'LL go  home!\t",
        "Güle güle, e\u0301te\u0301 <|im_start|>user",
        "日本語 🙂",
    ),
    *(" x" * 3, "", "a<|endoftext|>b <think>\n</think> <tool_call>"),
]


@pytest.mark.parametrize("config", [QWEN, {}, {**QWEN, "pad_token": "<|pad|>", "unk_token": None}])
def test_a_vocabulary_with_merges_gives_what_transformers_gives(
    config: dict[str, object], tmp_path: Path
) -> None:
    model = str(_split_tokenizer(tmp_path, **config))
    light, full = TokenizerFile(model), load_tokenizer(model)
    bundled = load_tokenizer(str(MODEL_DIR))
    expected = full(TEXTS, add_special_tokens=False)["input_ids"]
    assert light(TEXTS, add_special_tokens=False)["input_ids"] == expected
    assert expected == bundled(TEXTS, add_special_tokens=False)["input_ids"]
    assert light.vocab_size == len(full)
    names = ("eos_token_id", "pad_token_id", "unk_token_id")
    assert [getattr(light, name) for name in names] == [getattr(full, name) for name in names]
    assert find_end_of_turn_id(light) == find_end_of_turn_id(full)


def test_a_vocabulary_of_another_class_is_answered_with_what_converts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my model").mkdir()
    model = _split_tokenizer(tmp_path / "my model", tokenizer_class="GPT2Tokenizer")
    with pytest.raises(SweepAborted, match="is of a GPT2Tokenizer") as told:
        TokenizerFile(str(model))
    command = shlex.split(told.value.fix.partition(": ")[2])
    monkeypatch.setattr(sys, "argv", command[2:])
    exec(command[2])
    assert TokenizerFile(str(model))(["a b"], add_special_tokens=False)["input_ids"]
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").write_text("{}")
    (model / "merges.txt").write_text("no merges of it\n")
    with pytest.raises(SweepAborted, match="cannot be read"):
        TokenizerFile(str(model))
    (model / "merges.txt").unlink()
    with pytest.raises(SweepAborted, match=r"has no tokenizer\.json"):
        TokenizerFile(str(model))
