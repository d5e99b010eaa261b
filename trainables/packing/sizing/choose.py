"""How many trials a GPU's pack holds, and how large its passes are. Imports no torch."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from trainables.config import TrainingOptions
from trainables.errors import SweepAborted
from trainables.models.model_facts import ModelFacts
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.memory_model import (
    count_eval_positions,
    predict_pack,
    round_up_to_power_of_two,
)

MOST_SLOTS = 64
"""Trials of one pack unless more are asked for; Optuna learns little from more at once."""
ENOUGH_SLOTS = 8
"""Trials for whose sake a pass may be smaller, or the base stay in NF4; else half, or a quarter."""
BUSY_TOKENS = 8192
"""Tokens of a pass that keep a GPU busy (measured on an H200 with the 0.6B shape)."""
MOST_TOKENS = 32768
"""Tokens of a pass beyond which nothing is gained."""
USABLE_FRAC = 0.92
"""Share of a GPU's memory that is planned with: the rest is for CUDA's context and for gaps."""
SAME_MEMORY_FRAC = 0.05
"""By which a GPU's memory by nvidia-smi and what CUDA has free of it, unused, differ at most."""
CPU_SLOTS = 4
CPU_EVAL_TOKENS = 1 << 15

_TOKENS_STEP = 1024
_RANKS = (64, 32, 16, 8, 4)
"""The first of them that fits is named where a larger one does not."""


def choose_capacity(
    facts: ModelFacts,
    settings: TrainingOptions,
    max_rank: int,
    memory_gib: float | None,
    num_slots: int | None = None,
    num_enough: int = ENOUGH_SLOTS,
) -> Capacity:
    """The pack for a GPU.

    First a pass that keeps the GPU busy, with the base in the compute type if enough trials fit
    beside it; then as many trials as fit; then larger passes and a larger evaluation, half of
    what is left each. Only where that leaves too few trials are passes smaller; and only where not
    even one trial fits are activations computed again instead of kept, at a third more work.

    Args:
        max_rank: the largest LoRA rank of the sweep's search space.
        memory_gib: of the GPU; None for a CPU.
        num_slots: the most trials; fewer if they do not fit.
        num_enough: trials for whose sake a pass may be smaller, or the base stay in NF4, if they
            are fewer than ENOUGH_SLOTS.

    Raises:
        SweepAborted: not even one trial fits.
    """
    limit = num_slots or (CPU_SLOTS if memory_gib is None else MOST_SLOTS)
    if memory_gib is None:
        return Capacity(
            num_slots=limit,
            max_rank=max_rank,
            max_tokens=max(BUSY_TOKENS, settings.max_length_tokens),
            eval_tokens=max(CPU_EVAL_TOKENS, limit * count_eval_positions(facts, settings)),
            is_dequantised=True,
            predicted_gib=0.0,
        )
    usable_gib = USABLE_FRAC * memory_gib
    counts = sorted({min(limit, num_enough, ENOUGH_SLOTS >> n) for n in range(4)}, reverse=True)
    for is_checkpointed, fewest in product((False, True), counts):
        for least in _list_smallest(facts, settings, max_rank, is_checkpointed):
            capacity = _fit_slots(facts, settings, least, limit, usable_gib)
            if capacity is not None and capacity.num_slots >= fewest:
                grown = _grow_passes(facts, settings, capacity, usable_gib)
                return replace(grown, gpu_gib=memory_gib)

    def needed_gib(rank: int) -> float:
        *_, smallest = _list_smallest(facts, settings, rank, is_checkpointed=True)
        return predict_pack(facts, settings, smallest).reserved_gib / USABLE_FRAC

    raise make_too_large_error(settings, max_rank, memory_gib, needed_gib)


def choose_known_capacity(
    known: Sequence[Capacity], choose_new: Callable[[float], Capacity], memory_gib: float
) -> Capacity:
    """The pack for a GPU that is there: one that was chosen before for as much memory, else a new
    one.

    Args:
        known: packs for GPUs of nvidia-smi's memory, of which CUDA tells 0.4 to 2% less and its
            context takes half a GiB.
        memory_gib: of the GPU, as far as it is free.

    Raises:
        SweepAborted: not even one trial fits.
    """

    def difference(capacity: Capacity) -> float:
        assert capacity.gpu_gib is not None, "a CPU's pack is not asked for"
        return abs(capacity.gpu_gib - memory_gib)

    nearest = min(known, key=difference)
    is_same = difference(nearest) < SAME_MEMORY_FRAC * memory_gib
    return nearest if is_same else choose_new(memory_gib)


def make_too_large_error(
    settings: TrainingOptions,
    max_rank: int,
    memory_gib: float,
    needed_gib: Callable[[int], float],
) -> SweepAborted:
    """The error for a GPU that does not hold one trial; it names a largest rank that fits, if a
    smaller one helps.

    Args:
        needed_gib: by one trial of a rank.
    """
    fitting = [f"{rank}" for rank in _RANKS if rank < max_rank and needed_gib(rank) <= memory_gib]
    remedies = ["leave out --base bf16"] if settings.base == "bf16" else []
    remedies += [f"give --lora-ranks of {fitting[0]} at most"] if fitting else []
    remedies += ["choose a smaller model", "lower --max-length-tokens"]
    return SweepAborted(
        f"one trial of rank {max_rank} with rows of {settings.max_length_tokens} tokens needs "
        f"{needed_gib(max_rank):.1f} GiB; the GPU has {memory_gib:.1f} GiB",
        f"{', '.join(remedies[:-1])}, or {remedies[-1]}",
    )


def _list_smallest(
    facts: ModelFacts, settings: TrainingOptions, max_rank: int, is_checkpointed: bool
) -> Iterator[Capacity]:
    """Packs of one trial, the most wanted first; the last needs least."""
    longest = settings.max_length_tokens
    max_tokens = max(BUSY_TOKENS, longest)
    while True:
        for is_dequantised in (True, False) if settings.base == "nf4" else (True,):
            yield Capacity(
                num_slots=1,
                max_rank=max_rank,
                max_tokens=max_tokens,
                eval_tokens=count_eval_positions(facts, settings),
                is_dequantised=is_dequantised,
                predicted_gib=0.0,
                is_checkpointed=is_checkpointed,
            )
        if max_tokens == longest:
            return
        max_tokens = max(max_tokens // 2, longest)


def _fit_slots(
    facts: ModelFacts, settings: TrainingOptions, least: Capacity, limit: int, usable_gib: float
) -> Capacity | None:
    """As many trials as fit; no pass is larger than a step of all of them."""

    def with_slots(num_slots: int) -> Capacity:
        return replace(
            least,
            num_slots=num_slots,
            max_tokens=min(least.max_tokens, _count_step_tokens(settings, num_slots)),
            eval_tokens=num_slots * least.eval_tokens,
        )

    def is_too_large(num_slots: int) -> bool:
        return predict_pack(facts, settings, with_slots(num_slots)).reserved_gib > usable_gib

    most = bisect_left(range(1, limit + 1), True, key=is_too_large)
    return with_slots(most) if most else None


def _grow_passes(
    facts: ModelFacts, settings: TrainingOptions, capacity: Capacity, usable_gib: float
) -> Capacity:
    """With what is left of the memory used, and the peak that follows."""

    def needed_gib(**sizes: Any) -> float:
        changed = replace(capacity, **sizes)
        return predict_pack(facts, settings, changed).reserved_gib

    half_gib = (usable_gib + needed_gib()) / 2
    most = min(MOST_TOKENS, _count_step_tokens(settings, capacity.num_slots))
    max_tokens = _find_largest(
        capacity.max_tokens, most, lambda tokens: needed_gib(max_tokens=tokens) <= half_gib
    )
    capacity = replace(capacity, max_tokens=max_tokens)
    most = capacity.eval_tokens * round_up_to_power_of_two(settings.eval_rows)
    eval_tokens = _find_largest(
        capacity.eval_tokens, most, lambda tokens: needed_gib(eval_tokens=tokens) <= usable_gib
    )
    capacity = replace(capacity, eval_tokens=eval_tokens)
    return replace(capacity, predicted_gib=predict_pack(facts, settings, capacity).total_gib)


def _find_largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The largest size that fits, in whole steps above low, which is known to."""
    larger = range(low + _TOKENS_STEP, high + 1, _TOKENS_STEP)
    return low + _TOKENS_STEP * bisect_left(larger, True, key=lambda size: not fits(size))


def _count_step_tokens(settings: TrainingOptions, num_slots: int) -> int:
    """The most tokens that one step of all trials can have."""
    return num_slots * settings.batch_size * settings.max_length_tokens
