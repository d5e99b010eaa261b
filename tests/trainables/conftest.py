"""A test-sized Qwen3 model with its tokenizer, and a small SAMSum-shaped dataset."""

import csv
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    set_seed,
)

from tests.trainables.hybrid_model import save_hybrid
from tests.trainables.prepared import prepare_rows
from trainables.config import Hyperparameters, TrainingSettings

NAMES = ("Ann", "Bob", "Cem", "Duda")
THINGS = ("tickets", "a cake", "the report", "some flowers", "a map", "two chairs")
TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{{- message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of some 400 tokens; like Qwen's base models it names another eos."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([" ".join(row) for row in _rows(0, 200)], trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> str:
    """Folder of a Qwen3 model with random weights: 2 layers, hidden 64."""
    folder = tmp_path_factory.mktemp("model")
    set_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def hybrid_dir(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> str:
    """Folder of a test-sized Qwen3.5 model."""
    return save_hybrid(tmp_path_factory.mktemp("hybrid"), tokenizer)


@pytest.fixture(scope="session")
def rows_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared rows of train, validation and test CSV files of 40, 12 and 6 rows."""
    folder = tmp_path_factory.mktemp("data")
    for seed, (split, num_rows) in enumerate({"train": 40, "validation": 12, "test": 6}.items()):
        write_split(folder / f"{split}.csv", _rows(seed, num_rows))
    return prepare_rows(folder, folder)


@pytest.fixture
def settings(model_dir: str, rows_dir: Path) -> TrainingSettings:
    """Four steps of four rows, with reports at 2 and 4."""
    return TrainingSettings(
        rows_dir=rows_dir,
        model=model_dir,
        max_steps=4,
        rungs=(2, 4),
        batch_size=4,
        micro_batch_size=4,
        max_length_tokens=192,
        warmup_frac=0.25,
        eval_rows=6,
        eval_batch_size=4,
        max_new_tokens=8,
        compute_dtype="float32",
        seed=7,
    )


@pytest.fixture
def params() -> Hyperparameters:
    """A small adapter with dropout."""
    return Hyperparameters(lora_rank=4, lora_alpha=8, lora_dropout=0.3, learning_rate=5e-3)


def write_split(path: Path, rows: list[tuple[str, str]]) -> None:
    """Write dialogues and summaries as the CSV file of a split."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "dialogue", "summary"])
        writer.writerows([str(place), *row] for place, row in enumerate(rows))


def _rows(seed: int, num_rows: int) -> list[tuple[str, str]]:
    generator = random.Random(seed)
    return [_row(generator, seed * 1000 + place) for place in range(num_rows)]


def _row(generator: random.Random, number: int) -> tuple[str, str]:
    asker, helper = generator.sample(NAMES, 2)
    thing = generator.choice(THINGS)
    lines = [f"{asker}: Can you bring {thing} at {number}?", f"{helper}: Sure!"]
    lines += [f"{asker}: Thanks", f"{helper}: No problem"] * generator.randrange(3)
    return "\n".join(lines), f"{helper} will bring {thing} for {asker}."
