"""Pretrain a bundled tiny model, of Qwen3 or a hybrid, and its tokenizer on the tiny corpus.

The weights in trainables/tiny/model/ were made by `python -m tests.benchmarks.tiny_makers model`:
3,000 steps of 192 rows of 512 tokens, from 124M tokens of corpus, in 104 s on one NVIDIA H200 with
16 CPU cores (torch 2.11, transformers 5.17). Another GPU or version gives the same corpus and
slightly different weights.
Those in trainables/tiny/hybrid/ are of `hybrid --steps 2000 --shards 110`: 113 s there, with fla.
The chat template, an input of this script, is Qwen3's own (Apache-2.0). Hidden sizes are multiples
of 64, NF4's block, so that no quantisation block straddles two rows.
"""

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3_5TextConfig,
    Qwen3Config,
)

from tests.benchmarks.tiny_makers.corpus import generate_documents
from trainables.tiny import HYBRID_DIR, MODEL_DIR

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
VOCAB_SIZE = 2048
SHARD_DOCUMENTS = 10_000
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizer splits text before BPE (its tokenizer.json)."""

Tokens = NDArray[np.uint16]


def main(argv: Sequence[str], prog: str, kind: str) -> None:
    """Trains a tokenizer, makes the corpus, pretrains the model and writes its files."""
    make_config, folder = KINDS[kind]
    args = _parse_args(argv, prog, folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    begun = time.monotonic()
    tokenizer = train_tokenizer(args.seed)
    rows = make_corpus(tokenizer, args.seed, args.shards, args.row_tokens, args.workers)
    print(f"{rows.size / 1e6:.0f}M tokens, {time.monotonic() - begun:.0f} s", flush=True)
    torch.manual_seed(args.seed)
    model = AutoModelForCausalLM.from_config(make_config(tokenizer)).to(device)
    pretrain(model, rows, args.steps, args.batch_rows, args.learning_rate, args.seed)
    save_model(model, tokenizer, args.out)
    print(f"{model.num_parameters() / 1e6:.2f}M parameters, {time.monotonic() - begun:.0f} s")


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE with Qwen's special tokens and chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_generate_tokenizer_texts(seed), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=2048,
        chat_template=(MODEL_DIR / "chat_template.jinja").read_text("utf-8"),
    )


def _generate_tokenizer_texts(seed: int) -> Iterator[str]:
    """Corpus text, and the words of a summarising request, which the corpus lacks."""
    yield from islice(generate_documents(f"{seed}-tokenizer"), 10_000)
    yield from ("user\nSummarize the following dialogue.\n\nassistant\n",) * 500


def make_corpus(
    tokenizer: PreTrainedTokenizerFast, seed: int, shards: int, row_tokens: int, workers: int
) -> Tokens:
    """Documents laid end to end and cut into rows: (rows, row_tokens)."""
    seeds = [f"{seed}-{shard}" for shard in range(shards)]
    encode = partial(_encode_shard, tokenizer.backend_tokenizer.to_str())
    with multiprocessing.Pool(workers) as pool:
        tokens = np.concatenate(pool.map(encode, seeds, chunksize=1))
    return tokens[: len(tokens) // row_tokens * row_tokens].reshape(-1, row_tokens)


def _encode_shard(tokenizer_json: str, seed: str) -> Tokens:
    tokenizer = Tokenizer.from_str(tokenizer_json)
    end = tokenizer.token_to_id("<|endoftext|>")
    encoded = (
        tokenizer.encode(text).ids for text in islice(generate_documents(seed), SHARD_DOCUMENTS)
    )
    return np.array([token for ids in encoded for token in (*ids, end)], dtype=np.uint16)


def make_dense_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """A tiny Qwen3: about 2.9 million parameters."""
    return Qwen3Config(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        intermediate_size=512,
        rope_theta=10_000.0,
        **_list_common_config(tokenizer),
    )


def make_hybrid_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3_5TextConfig:
    """A tiny Qwen3.5: about 1.4 million parameters; gated attention after three Gated DeltaNets."""
    return Qwen3_5TextConfig(
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=32,
        linear_value_head_dim=32,
        intermediate_size=256,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.25,
        },
        **_list_common_config(tokenizer),
    )


def _list_common_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    }


KINDS: dict[str, tuple[Callable[[PreTrainedTokenizerFast], PreTrainedConfig], Path]] = {
    "model": (make_dense_config, MODEL_DIR),
    "hybrid": (make_hybrid_config, HYBRID_DIR),
}
"""The architecture of each bundled model, and its committed folder."""


def pretrain(
    model: PreTrainedModel, rows: Tokens, steps: int, batch_rows: int, peak: float, seed: int
) -> None:
    """Next-token training with AdamW, a warm-up and a cosine down to a tenth of the peak."""
    device = model.device
    data = torch.from_numpy(rows.astype(np.int32)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_scale_rate, steps=steps))
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for step in range(steps):
        picked = torch.randint(len(data), (batch_rows,), generator=generator).to(device)
        batch = data[picked].long()  # (batch_rows, row_tokens)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(input_ids=batch, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.4f}", flush=True)


def _scale_rate(step: int, steps: int) -> float:
    warmup = min(1.0, (step + 1) / max(1, steps // 20))
    return warmup * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """The model in bf16, its tokenizer and its greedy generation settings."""
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _parse_args(argv: Sequence[str], prog: str, folder: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and weights")
    parser.add_argument("--out", type=Path, default=folder, help="folder of the model")
    parser.add_argument("--shards", type=int, default=160, help="shards of 10,000 documents")
    parser.add_argument("--row-tokens", type=int, default=512, help="tokens of a packed row")
    parser.add_argument("--batch-rows", type=int, default=192, help="rows of a step")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="AdamW's peak")
    parser.add_argument("--workers", type=int, default=16, help="processes that make the corpus")
    return parser.parse_args(argv)
