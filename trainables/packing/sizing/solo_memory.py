"""The memory of a trial that TRL trains alone, predicted before any is used. Imports no torch."""

from dataclasses import replace

from trainables.config import Hyperparameters, TrainingSettings
from trainables.models.model_facts import ModelFacts
from trainables.packing.compute.kernels.inputs import CHUNK_TOKENS
from trainables.packing.sizing.memory_model import (
    ADAPTER_BYTES,
    GIB,
    NF4_BITS,
    WORKSPACE_BYTES,
    get_itemsize,
)

SOLO_HIDDEN, SOLO_WIDE, SOLO_Q, SOLO_KV = 14, 5, 4, 6
"""Kept of a token by a solo trial, in widths of a layer: fitted to the peaks of TRL 1.16 with Qwen3
0.6B and 4B, 1,206 and 4,096 tokens (tests/benchmarks/h200-qwen3-*.json), which they meet within 3%.
Queries are as wide as q_proj, so with their gates if they have some."""
SOLO_CONV, SOLO_VALUES = 4, 10
"""Kept by a layer of Gated DeltaNet instead of queries, keys and values of attention: what the
convolution takes and gives, unit queries and keys; gates, outputs and their norm, half of it in
float32. Counted in transformers with fla's kernels, not measured; without these it is much more."""
SOLO_TILE = (4096, 32_768)
"""Labels and words of the logits that TRL holds together (trl/kernels/chunked_logprob.py)."""


def predict_solo_gib(
    facts: ModelFacts, params: Hyperparameters, settings: TrainingSettings
) -> float:
    """Peak memory of one solo trial, in GiB, if all rows of a micro-batch are as long as they may
    be. TRL holds the logits of a tile at a time."""
    size, tokens = get_itemsize(settings), settings.micro_batch_size * settings.max_length_tokens
    outside = size * (facts.num_params - facts.body_params)
    body = facts.body_params * (NF4_BITS / 8 if settings.base == "nf4" else size)
    adapter = ADAPTER_BYTES * facts.count_lora_params(params)
    kept = sum(_count_kept_elements(facts, kind) for kind in facts.layer_types)
    tile = min(tokens, SOLO_TILE[0]) * min(facts.vocab_size, SOLO_TILE[1])
    return (outside + body + adapter + size * (tokens * kept + tile) + WORKSPACE_BYTES) / GIB


def find_solo_micro_batch(
    facts: ModelFacts, params: Hyperparameters, settings: TrainingSettings, memory_gib: float
) -> int:
    """The rows of a micro-batch that fit, however long they are, once it was halved as often as
    models.memory.retry_with_smaller_micro_batch does; 0 if not even one row does."""
    rows = settings.micro_batch_size
    while predict_solo_gib(facts, params, replace(settings, micro_batch_size=rows)) > memory_gib:
        if rows == 1:
            return 0
        rows = max(part for part in range(1, rows) if rows % part == 0)
    return rows


def _count_kept_elements(facts: ModelFacts, kind: str) -> int:
    """What stock PEFT and transformers keep of a token in a layer."""
    elements = SOLO_HIDDEN * facts.hidden_size + SOLO_WIDE * facts.intermediate_size
    if facts.experts is not None:
        # what each expert gives, for the gradient of its weight; counted in transformers 5.23
        elements += facts.experts.num_per_token * facts.hidden_size
    if kind == "linear_attention" and facts.delta is not None:
        elements += SOLO_CONV * facts.delta.conv_channels + SOLO_VALUES * facts.delta.value_size
        return elements + CHUNK_TOKENS * facts.delta.num_value_heads
    q, kv = (facts.linear_shapes[name][0] for name in ("q_proj", "k_proj"))
    return elements + SOLO_Q * q + SOLO_KV * kv
