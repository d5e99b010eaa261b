"""The bundled models: small, with Qwen3's chat template, and fit for NF4."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3_5ForCausalLM,
    Qwen3ForCausalLM,
)

from tests.benchmarks.tiny_makers.make_model import (
    KINDS,
    SPECIAL_TOKENS,
    make_corpus,
    pretrain,
    save_model,
    train_tokenizer,
)
from trainables.models.layer_kinds import LAYER_KINDS
from trainables.tiny import HYBRID_DIR, MODEL_DIR, SAMSUM_DIR

NF4_BLOCK = 64
MAX_BUNDLE_BYTES = 8 * 1024**2
MAX_HYBRID_BYTES = 3 * 10**6
REQUEST = [{"role": "user", "content": "Summarize the following dialogue.\n\nAda: Hi!"}]
RENDERED = (
    "<|im_start|>user\nSummarize the following dialogue.\n\nAda: Hi!<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


@pytest.fixture(scope="module", params=[MODEL_DIR, HYBRID_DIR], ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder)


def test_bundle_is_at_most_8_mib() -> None:
    files = [path for folder in (MODEL_DIR, SAMSUM_DIR) for path in folder.iterdir()]
    assert len(files) > 6
    assert sum(path.stat().st_size for path in files) <= MAX_BUNDLE_BYTES


def test_hybrid_takes_3_mb_with_the_same_tokenizer_as_the_other() -> None:
    files = {path.name: path.read_bytes() for path in HYBRID_DIR.iterdir()}
    assert sum(map(len, files.values())) <= MAX_HYBRID_BYTES
    assert files.keys() == {path.name for path in MODEL_DIR.iterdir()}
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert files[name] == (MODEL_DIR / name).read_bytes()


def test_models_are_small_in_bf16_and_of_the_types_that_they_stand_for(
    folder: Path, model: PreTrainedModel
) -> None:
    assert isinstance(model, Qwen3ForCausalLM if folder == MODEL_DIR else Qwen3_5ForCausalLM)
    assert model.dtype == torch.bfloat16
    assert 1e6 < model.num_parameters() < 3.5e6
    assert model.config.tie_word_embeddings


def test_hybrid_has_each_kind_of_layer_with_grouped_heads_and_partial_rotation() -> None:
    config = AutoConfig.from_pretrained(HYBRID_DIR)
    assert config.layer_types == ["linear_attention"] * 3 + ["full_attention"]
    assert config.linear_num_value_heads == 2 * config.linear_num_key_heads > 2
    assert config.num_attention_heads == 2 * config.num_key_value_heads > 2
    assert config.rope_parameters["partial_rotary_factor"] == 0.25


def test_every_linear_dimension_is_a_multiple_of_an_nf4_block(model: PreTrainedModel) -> None:
    shapes = {
        name: module.weight.shape
        for name, module in model.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    kinds = set(model.config.layer_types)
    names = {name.rpartition(".")[2] for name in shapes}
    assert names == {name for kind in kinds for name in LAYER_KINDS[kind].linear_layers}
    per_head = {"in_proj_a", "in_proj_b"}
    for name, (size_out, size_in) in shapes.items():
        assert size_in % NF4_BLOCK == 0
        assert size_out % NF4_BLOCK == 0 or name.rpartition(".")[2] in per_head


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


def test_special_tokens_agree(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.convert_ids_to_tokens(list(range(5))) == list(SPECIAL_TOKENS)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert len(tokenizer) == model.config.vocab_size


def test_untuned_model_answers_with_dialogue(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
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
    rows = make_corpus(tokenizer, seed=1, shards=1, row_tokens=64, workers=1)
    assert (rows == make_corpus(tokenizer, seed=1, shards=1, row_tokens=64, workers=1)).all()
    torch.manual_seed(0)
    make_config, _ = KINDS[kind]
    model = AutoModelForCausalLM.from_config(make_config(tokenizer))
    batch = torch.from_numpy(rows[:4].astype("int64"))
    before = model(input_ids=batch, labels=batch).loss.item()
    pretrain(model, rows, steps=6, batch_rows=4, peak=3e-3, seed=0)
    save_model(model, tokenizer, tmp_path)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(reloaded) is type(model)
    assert reloaded(input_ids=batch, labels=batch).loss.item() < before - 0.5
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()
