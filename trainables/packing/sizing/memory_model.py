"""The memory of a pack, predicted before any is used. Imports no torch.

Widths are counted in elements a token: q and kv are the widths of the queries and of the keys,
hidden and wide those of a block's state and of its feed-forward; of Gated DeltaNet, keys and values
are those of all its heads.
"""

from dataclasses import dataclass

from trainables.config import TrainingOptions
from trainables.models.layer_kinds import LAYER_KINDS, DeltaFacts
from trainables.models.model_facts import ModelFacts
from trainables.packing.compute.kernels.inputs import BLOCK_TOKENS, CHUNK_TOKENS
from trainables.packing.compute.pass_shapes import (
    CHUNK_LABELS,
    PROMPT_TOKENS,
    TOKENS_MULTIPLE,
    round_up,
    round_up_to_bucket,
)
from trainables.packing.sizing.capacity import Capacity

NF4_BITS = 4.127
"""Bits of a weight, with its doubly quantised scale (arXiv 2305.14314, section 3)."""
ABSMAX_BITS = 0.5
"""Bits of a weight: the float32 scale of each 64, which lora.freeze makes of a base kept in NF4."""
ADAPTER_BYTES = 16
"""Bytes of a LoRA weight: itself, its gradient and AdamW's two moments in float32."""
SAVED_HIDDEN = 4
"""Kept for the backward pass (model._layer): a block's input and middle, and their norms. Beside
what follows, the inner product of each LoRA module is kept, as wide as the largest rank."""
SAVED_Q = 3
"""Kept: queries before and after they are rotated, and what attention gives."""
SAVED_KV = 3
"""Kept: keys before and after they are rotated; values, which stay where they were made."""
SAVED_WIDE = 3
"""Kept: gate, up, and the product of silu(gate) and up."""
SAVED_GATES = 2
"""Kept of gated attention, as wide as the queries: their gates, and what they let through."""
SAVED_VALUES = 2
"""Kept of Gated DeltaNet, beside its projections and the convolution's output: what the delta rule
gives, and what the gate lets through."""
SAVED_VALUE_HEAD_BYTES = 8
"""Kept a head of values, in float32: how far the memory decays in a chunk, and the step size."""
SAVED_INPUTS = 2
"""Kept by a block whose pass is checkpointed: the two parts of its input."""
SAVED_HEAD_BYTES = 4
"""Kept a head: attention's log-sum-exp."""
GRADIENT_WIDE = 3
"""Held a moment in the backward pass: the gradients of gate and up, and of their product."""
GRADIENT_HIDDEN = 4
"""Held a moment in the backward pass: gradients of a block's state on its two ways."""
GRADIENT_VALUES = 9
"""Held a moment in the backward pass of the delta rule (fla's chunk_gated_delta_rule_bwd): the
gradients of its output and of the gate; the chunks' keys and values as the memory meets them, and
the latter less what it knows, all made again; the first two's gradients; those of keys and values
through the triangular system."""
GRADIENT_KEYS = 2
"""Held then: the gradients of queries and keys outside that system."""
GRADIENT_STATES = 2
"""Held then, of every chunk and head: the memory at its start, made again, and its gradient."""
LOGIT_BYTES = 10
"""Bytes of a labelled position and word: the logit in bf16 and float32, its log-probability."""
DEQUANTISED = 2
"""Held a moment where the base stays in NF4: the largest weights that share an input, each alone
and then as one matrix."""
READ_Q = 7
"""Held while prompts are read, in the attention: queries and their float32 norm."""
READ_GATES = 3
"""Held while prompts are read, in gated attention: the gates, these squashed, and what they let
through."""
READ_VALUES = 7
"""Held while prompts are read, in Gated DeltaNet: the chunks' keys and values as the memory meets
them, the latter less what it knows; what the rule gives for prompts, for targets and for both; and
what the gate lets through."""
READ_STATES = 2
"""Held while prompts are read, of every row and head, in float32: the memory behind its prompt and
behind its target."""
READ_WIDE = 5
"""Held while prompts are read, in the feed-forward: gate and up of the base, their adapted sums,
and a LoRA product."""
READ_HIDDEN = 3
"""Held while prompts are read: a block's input, middle and norm."""
COPIED_ADAPTERS = 1.5
"""Evaluation's adapters in the compute type, and the smaller copy as slots finish."""
WORKSPACE_BYTES = 96 << 20
"""cuBLAS's workspaces (32 MiB a stream on Hopper) and small tables."""

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class PeakBytes:
    """A pack's memory by what takes it, in bytes."""

    base: int
    adapters: int
    """Weights, gradients and moments of all slots."""
    activations: int
    """Kept for the backward pass by the largest training pass."""
    gradients: int
    """Held a moment in the backward pass."""
    logits: int
    """Held while the head is trained through."""
    evaluation: int
    """Cache, adapters' copies, and what reading prompts holds."""
    workspace: int

    @property
    def shared(self) -> int:
        """What training and evaluation both need."""
        return self.base + self.adapters + self.workspace

    @property
    def training(self) -> int:
        """What training needs beside it."""
        return self.activations + max(self.gradients, self.logits)

    @property
    def total_gib(self) -> float:
        """The peak of torch.cuda.max_memory_allocated."""
        return (self.shared + max(self.training, self.evaluation)) / GIB

    @property
    def reserved_gib(self) -> float:
        """What the allocator holds: CUDA graphs keep training's memory from evaluation."""
        return (self.shared + self.training + self.evaluation) / GIB


def predict_pack(
    facts: ModelFacts,
    settings: TrainingOptions,
    capacity: Capacity,
    *,
    num_labels: int | None = None,
    num_rows: int | None = None,
    is_nf4_kept: bool = False,
) -> PeakBytes:
    """The memory of a pack whose passes are as large as they may be.

    Args:
        capacity: no eval_tokens leave evaluation out.
        num_labels: labelled tokens of the largest pass; None for as many as there can be.
        num_rows: rows of the largest pass; None for as many as there can be.
        is_nf4_kept: whether the NF4 weights stay beside the dequantised ones.
    """
    size = get_itemsize(settings)
    outside = size * (facts.num_params - facts.body_params)
    if capacity.is_dequantised:
        nf4 = facts.body_params * NF4_BITS / 8 if is_nf4_kept else 0
        base, anew = outside + size * facts.body_params + round(nf4), 0
    else:
        base = outside + round(facts.body_params * (NF4_BITS + ABSMAX_BITS) / 8)
        shapes = facts.linear_shapes
        groups = {group for kind in set(facts.layer_types) for group in LAYER_KINDS[kind].groups}
        largest = max(sum(shapes[n][0] for n in group) * shapes[group[0]][1] for group in groups)
        anew = DEQUANTISED * size * largest
    # A slot has room for all linear layers, whichever its trial adapts.
    slot_params = capacity.max_rank * facts.count_features(facts.linear_shapes)
    lora_params = capacity.num_slots * slot_params
    labels = min(CHUNK_LABELS, capacity.max_tokens if num_labels is None else num_labels)
    tokens = round_up_to_bucket(capacity.max_tokens, BLOCK_TOKENS)
    rows = capacity.num_slots * settings.batch_size if num_rows is None else num_rows
    evaluation = 0
    if capacity.eval_tokens:
        copies = round(COPIED_ADAPTERS * size * lora_params)
        evaluation = copies + _predict_evaluation(facts, settings, capacity, size, anew)
    return PeakBytes(
        base=base,
        adapters=ADAPTER_BYTES * lora_params,
        activations=tokens * _count_kept_bytes(facts, capacity, size),
        gradients=size * _count_held_elements(facts, tokens, min(rows, tokens)) + anew,
        logits=labels * facts.vocab_size * LOGIT_BYTES,
        evaluation=evaluation,
        workspace=WORKSPACE_BYTES,
    )


def _count_kept_bytes(facts: ModelFacts, capacity: Capacity, size: int) -> int:
    """What a pass keeps of a token for its backward pass."""
    blocks = {
        kind: _count_block_bytes(facts, kind, capacity.max_rank, size)
        for kind in set(facts.layer_types)
    }
    if capacity.is_checkpointed:
        return facts.num_layers * SAVED_INPUTS * facts.hidden_size * size + max(blocks.values())
    return sum(facts.layer_types.count(kind) * block for kind, block in blocks.items())


def _count_block_bytes(facts: ModelFacts, kind: str, max_rank: int, size: int) -> int:
    """What one block keeps of a token."""
    elements = SAVED_HIDDEN * facts.hidden_size + SAVED_WIDE * facts.intermediate_size
    elements += len(LAYER_KINDS[kind].linear_layers) * max_rank
    if kind == "linear_attention" and facts.delta is not None:
        heads = facts.delta.num_value_heads
        elements += facts.delta.projected_size + facts.delta.conv_channels
        elements += SAVED_VALUES * facts.delta.value_size
        elements += CHUNK_TOKENS * heads  # the inverse of each chunk's triangular system
        return size * elements + SAVED_VALUE_HEAD_BYTES * heads
    q, kv = _get_attention_widths(facts)
    elements += (SAVED_Q + SAVED_GATES * facts.is_hybrid) * q + SAVED_KV * kv
    return size * elements + SAVED_HEAD_BYTES * facts.num_heads


def _count_held_elements(facts: ModelFacts, num_tokens: int, num_rows: int) -> int:
    """What the backward pass of a block holds a moment, over all tokens."""
    hidden = GRADIENT_HIDDEN * facts.hidden_size
    feed_forward = num_tokens * (GRADIENT_WIDE * facts.intermediate_size + hidden)
    if facts.delta is None:
        return feed_forward
    keys = facts.delta.num_key_heads * facts.delta.key_head_dim
    gradient = GRADIENT_VALUES * facts.delta.value_size + GRADIENT_KEYS * keys + hidden
    states = GRADIENT_STATES * _count_chunk_elements(facts.delta, num_tokens, num_rows)
    return max(feed_forward, num_tokens * gradient + states)


def _predict_evaluation(
    facts: ModelFacts, settings: TrainingOptions, capacity: Capacity, size: int, anew: int
) -> int:
    """The cache, and the most that is held beside it: by prompts, by labels, or by new tokens."""
    state, longest = facts.count_state_positions(size), _count_longest_row(settings)
    positions = max(capacity.eval_tokens, capacity.num_slots * (longest + state))
    shortest = round_up(settings.max_new_tokens, TOKENS_MULTIPLE)
    most_rows = capacity.num_slots * round_up_to_power_of_two(settings.eval_rows)
    num_rows = min(most_rows, positions // (shortest + state))
    # Of the longest rows the cache has most tokens beside their states.
    most_read = positions * longest // (longest + state)
    num_read = min(most_read, max(PROMPT_TOKENS, capacity.num_slots * longest))
    q, kv = _get_attention_widths(facts)
    attention = (READ_Q + READ_GATES * facts.is_hybrid) * q + 2 * kv + 2 * facts.hidden_size
    feed_forward = READ_WIDE * facts.intermediate_size + READ_HIDDEN * facts.hidden_size
    reading = size * num_read * max(attention, feed_forward)
    if facts.delta is not None:
        rows = min(num_rows, num_read // shortest)
        mixed = facts.delta.projected_size + 2 * facts.delta.conv_channels + 2 * facts.hidden_size
        mixed += READ_VALUES * facts.delta.value_size
        read_bytes = size * (num_read * mixed + _count_chunk_elements(facts.delta, num_read, rows))
        read_bytes += 4 * READ_STATES * rows * facts.delta.value_size * facts.delta.key_head_dim
        reading = max(reading, read_bytes)
    labels = min(CHUNK_LABELS, positions) * facts.vocab_size * LOGIT_BYTES
    decoding = num_rows * facts.vocab_size * size
    cache = positions * facts.count_position_bytes(size)
    return cache + max(reading + anew, labels, decoding)


def _get_attention_widths(facts: ModelFacts) -> tuple[int, int]:
    """Features of all query heads, without gates, and of all key heads."""
    return facts.num_heads * facts.head_dim, facts.num_kv_heads * facts.head_dim


def _count_chunk_elements(delta: DeltaFacts, num_tokens: int, num_rows: int) -> int:
    """The memory at every chunk's start; a row's last chunk need not be full."""
    num_chunks = num_tokens // CHUNK_TOKENS + num_rows
    return num_chunks * delta.value_size * delta.key_head_dim


def count_eval_positions(facts: ModelFacts, settings: TrainingOptions) -> int:
    """What the longest row takes of the cache: its positions, and what its state is worth."""
    return _count_longest_row(settings) + facts.count_state_positions(get_itemsize(settings))


def _count_longest_row(settings: TrainingOptions) -> int:
    """Positions of a prompt that fills the row, and of an answer."""
    return round_up(settings.max_length_tokens + settings.max_new_tokens, TOKENS_MULTIPLE)


def get_itemsize(settings: TrainingOptions) -> int:
    """Bytes of a number of the compute type."""
    return 4 if settings.compute_dtype == "float32" else 2


def round_up_to_power_of_two(count: int) -> int:
    """The power of two of at least so many."""
    return 1 << (count - 1).bit_length()
