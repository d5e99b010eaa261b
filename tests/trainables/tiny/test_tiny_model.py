"""The bundled model: small, a Qwen3 with Qwen3's chat template, and fit for NF4."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen3ForCausalLM,
)

from tests.benchmarks.tiny_makers.make_model import (
    KINDS,
    SPECIAL_TOKENS,
    corpus_rows,
    pretrain,
    save,
    train_tokenizer,
)
from trainables.models.layer_kinds import ATTENTION
from trainables.tiny import MODEL_DIR, SAMSUM_DIR

NF4_BLOCK = 64
MAX_BUNDLE_BYTES = 8 * 1024**2
REQUEST = [{"role": "user", "content": "Summarize the following dialogue.\n\nAda: Hi!"}]
RENDERED = (
    "<|im_start|>user\nSummarize the following dialogue.\n\nAda: Hi!<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(MODEL_DIR)


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM.from_pretrained(MODEL_DIR)


def test_bundle_is_at_most_8_mib() -> None:
    files = [path for folder in (MODEL_DIR, SAMSUM_DIR) for path in folder.iterdir()]
    assert len(files) > 6
    assert sum(path.stat().st_size for path in files) <= MAX_BUNDLE_BYTES


def test_model_is_a_small_bf16_qwen3(model: Qwen3ForCausalLM) -> None:
    assert isinstance(model, Qwen3ForCausalLM)
    assert model.dtype == torch.bfloat16
    assert 2e6 < model.num_parameters() < 3.5e6
    assert model.config.tie_word_embeddings


def test_every_linear_dimension_is_a_multiple_of_an_nf4_block(model: Qwen3ForCausalLM) -> None:
    shapes = {
        name: module.weight.shape
        for name, module in model.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert {name.rpartition(".")[2] for name in shapes} == set(ATTENTION.linear_layers)
    assert all(size % NF4_BLOCK == 0 for shape in shapes.values() for size in shape)


def test_chat_template_renders_as_qwen3_does(tokenizer: PreTrainedTokenizerBase) -> None:
    rendered = tokenizer.apply_chat_template(
        REQUEST, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert rendered == RENDERED
    thinking = tokenizer.apply_chat_template(REQUEST, tokenize=False, add_generation_prompt=True)
    assert thinking == RENDERED.removesuffix("<think>\n\n</think>\n\n")


def test_fixed_words_of_a_request_are_single_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = set(tokenizer.tokenize(RENDERED))
    assert tokens >= {"user", "assistant", "Summarize", "Ġfollowing", "Ġdialogue"}
    assert tokens >= set(SPECIAL_TOKENS[1:])


def test_tokenizer_gives_back_any_text(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "Ada: Naïve? Çok güzel! 日本 🙂\nBen: 1984."
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_special_tokens_agree(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.convert_ids_to_tokens(list(range(5))) == list(SPECIAL_TOKENS)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert len(tokenizer) == model.config.vocab_size


def test_untuned_model_answers_with_dialogue(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    inputs = tokenizer(RENDERED, return_tensors="pt")
    generated = model.generate(**inputs, max_new_tokens=48)[0, inputs.input_ids.shape[1] :]
    answer = tokenizer.decode(generated, skip_special_tokens=True).strip()
    assert answer
    assert all(": " in line for line in answer.split("\n")), answer


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_script_writes_a_model_that_loads_and_has_learned(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.benchmarks.tiny_makers.make_model.SHARD_DOCUMENTS", 50)
    tokenizer = train_tokenizer(seed=1)
    rows = corpus_rows(tokenizer, seed=1, shards=1, row_tokens=64, workers=1)
    assert (rows == corpus_rows(tokenizer, seed=1, shards=1, row_tokens=64, workers=1)).all()
    torch.manual_seed(0)
    make_config, _ = KINDS[kind]
    model = AutoModelForCausalLM.from_config(make_config(tokenizer))
    batch = torch.from_numpy(rows[:4].astype("int64"))
    before = model(input_ids=batch, labels=batch).loss.item()
    pretrain(model, rows, steps=6, batch_rows=4, peak=3e-3, seed=0)
    save(model, tokenizer, tmp_path)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(reloaded) is type(model)
    assert reloaded(input_ids=batch, labels=batch).loss.item() < before - 0.5
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()
