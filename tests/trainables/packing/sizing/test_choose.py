"""A pack's memory is predicted from its real parts, and a chosen pack fits its GPU."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tests.benchmarks.sizes import list_facts
from tests.examples import max_examples
from trainables.config import TrainingOptions
from trainables.errors import SweepAborted
from trainables.models.base_model import load_base
from trainables.models.model_facts import ModelFacts, read_model_facts
from trainables.packing.compute.adapters import Adapters
from trainables.packing.evaluation.generate import group_rows
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.choose import BUSY_TOKENS, MOST_TOKENS, USABLE_FRAC, choose_capacity
from trainables.packing.sizing.memory_model import (
    PeakBytes,
    count_eval_positions,
    predict_pack,
)
from trainables.tiny import MODEL_DIR

FACTS = list_facts()
QWEN3_06B, QWEN3_4B, QWEN3_32B = (FACTS[f"Qwen3-{size}"] for size in ("0.6B", "4B", "32B"))
HYBRIDS = tuple(FACTS[f"Qwen3.5-{size}"] for size in ("0.8B", "4B", "27B"))
SHAPES = (QWEN3_06B, QWEN3_4B, QWEN3_32B, *HYBRIDS)
OPTIONS = TrainingOptions()
H200_GIB = 139.8


def parts(
    facts: ModelFacts,
    capacity: Capacity,
    settings: TrainingOptions = OPTIONS,
    is_nf4_kept: bool = False,
) -> PeakBytes:
    return predict_pack(facts, settings, capacity, is_nf4_kept=is_nf4_kept)


def tensor_bytes(model: PreTrainedModel) -> int:
    """Bytes of a loaded base, NF4's scales included."""
    tensors = list(model.parameters())
    states = [p.quant_state for p in tensors if getattr(p, "quant_state", None) is not None]
    for state in states:
        tensors += [state.absmax, state.state2.absmax]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float32"])
def test_base_is_as_large_as_the_loaded_one(compute_dtype: str) -> None:
    facts = read_model_facts(str(MODEL_DIR))
    options = dataclasses.replace(OPTIONS, compute_dtype=compute_dtype)
    one = Capacity(
        num_slots=1,
        max_rank=8,
        max_tokens=1024,
        eval_tokens=0,
        is_dequantised=True,
        predicted_gib=0.0,
    )
    real = tensor_bytes(load_base(str(MODEL_DIR), options.compute_dtype))
    plain = tensor_bytes(load_base(str(MODEL_DIR), options.compute_dtype, "bf16"))
    assert plain > 1.2 * real
    with_copy = parts(facts, one, options, is_nf4_kept=True).base
    copy_only = parts(facts, one, options).base
    size = getattr(torch, compute_dtype).itemsize
    assert with_copy - size * facts.body_params == pytest.approx(real, rel=0.01)
    outside = size * (facts.num_params - facts.body_params)
    assert copy_only == outside + size * facts.body_params == pytest.approx(plain, rel=0.01)
    nf4 = parts(facts, dataclasses.replace(one, is_dequantised=False), options).base
    assert nf4 == pytest.approx(real + facts.body_params * 4 / 64, rel=0.01)


def test_adapters_are_as_large_as_the_packs(base: PreTrainedModel) -> None:
    facts = read_model_facts(base.config.name_or_path)
    held = Adapters(base.config, 3, 16, base.device)
    three = Capacity(
        num_slots=3,
        max_rank=16,
        max_tokens=64,
        eval_tokens=0,
        is_dequantised=True,
        predicted_gib=0.0,
    )
    assert parts(facts, three).adapters == 4 * held.params_KP.numel() * 4


def test_memory_rises_with_each_size_of_a_pack() -> None:
    pack = Capacity(
        num_slots=8,
        max_rank=16,
        max_tokens=8192,
        eval_tokens=200_000,
        is_dequantised=False,
        predicted_gib=0.0,
    )
    least = parts(QWEN3_06B, pack)
    for changed, grown in {
        "num_slots": ("adapters", "evaluation"),
        "max_rank": ("adapters", "activations", "evaluation"),
        "max_tokens": ("activations", "gradients"),
        "eval_tokens": ("evaluation",),
        "is_dequantised": ("base",),
    }.items():
        value = getattr(pack, changed)
        larger = dataclasses.replace(pack, **{changed: True if value is False else 2 * value})
        found = dataclasses.asdict(parts(QWEN3_06B, larger))
        rising = {name for name, size in dataclasses.asdict(least).items() if found[name] > size}
        assert rising == set(grown), changed


@pytest.mark.parametrize(
    ("facts", "num_slots", "max_tokens", "measured_gib"),
    [(QWEN3_06B, 32, 32768, 47.86), (QWEN3_4B, 16, 16384, 78.58)],
)
def test_peaks_of_training_are_those_measured_on_an_h200(
    facts: ModelFacts, num_slots: int, max_tokens: int, measured_gib: float
) -> None:
    """tests/benchmarks/h200-qwen3-0.6b.json and h200-qwen3-4b-batch8.json."""
    pack = Capacity(
        num_slots=num_slots,
        max_rank=16,
        max_tokens=max_tokens,
        eval_tokens=0,
        is_dequantised=True,
        predicted_gib=0.0,
    )
    assert parts(facts, pack).total_gib == pytest.approx(measured_gib, rel=0.01)


@given(
    facts=st.sampled_from(HYBRIDS),
    kinds=st.lists(st.sampled_from(("linear_attention", "full_attention")), min_size=2),
    cut=st.integers(1, 99),
    max_rank=st.integers(1, 64),
    max_tokens=st.integers(1, 40_000),
)
def test_a_pass_keeps_the_sum_of_what_its_layers_keep(
    facts: ModelFacts, kinds: list[str], cut: int, max_rank: int, max_tokens: int
) -> None:
    pack = Capacity(
        num_slots=2,
        max_rank=max_rank,
        max_tokens=max_tokens,
        eval_tokens=0,
        is_dequantised=True,
        predicted_gib=0.0,
    )
    checkpointed = dataclasses.replace(pack, is_checkpointed=True)

    def kept(kinds: list[str], capacity: Capacity = pack) -> int:
        facts_of_kinds = dataclasses.replace(facts, layer_types=tuple(kinds))
        return parts(facts_of_kinds, capacity).activations

    cut = 1 + cut % (len(kinds) - 1)
    assert kept(kinds) == kept(kinds[:cut]) + kept(kinds[cut:])
    assert max(kept([kind]) for kind in kinds) < kept(kinds, checkpointed)


@given(
    facts=st.sampled_from(HYBRIDS),
    max_tokens=st.integers(1000, 40_000),
    num_rows=st.integers(1, 500),
    more=st.integers(1, 500),
)
def test_rows_of_a_hybrid_have_chunks_of_their_own(
    facts: ModelFacts, max_tokens: int, num_rows: int, more: int
) -> None:
    """Each row ends with a chunk that need not be full, whose memory the backward pass holds."""
    pack = Capacity(
        num_slots=8,
        max_rank=8,
        max_tokens=max_tokens,
        eval_tokens=0,
        is_dequantised=True,
        predicted_gib=0.0,
    )

    def held(facts: ModelFacts, num_rows: int) -> int:
        return predict_pack(facts, OPTIONS, pack, num_rows=num_rows).gradients

    assert facts.delta is not None
    state = facts.delta.num_value_heads * 128 * 128 * 2  # bytes of bfloat16
    assert held(facts, num_rows + more) - held(facts, num_rows) == 2 * state * more
    assert held(QWEN3_4B, num_rows + more) == held(QWEN3_4B, num_rows)


@pytest.mark.parametrize(("facts", "mib"), zip(HYBRIDS, (18, 48, 144), strict=True))
def test_a_row_of_a_hybrid_keeps_its_state_whatever_its_length(facts: ModelFacts, mib: int) -> None:
    """Nearly all of it are the memories, in float32."""
    found = facts.count_state_positions(itemsize=2) * facts.count_position_bytes(itemsize=2)
    assert mib < found / 2**20 < 1.15 * mib
    assert QWEN3_4B.count_state_positions(itemsize=2) == 0


def test_peak_is_the_larger_of_training_and_evaluation() -> None:
    pack = Capacity(
        num_slots=8,
        max_rank=16,
        max_tokens=8192,
        eval_tokens=0,
        is_dequantised=True,
        predicted_gib=0.0,
    )
    training = parts(QWEN3_06B, pack)
    assert training.evaluation == 0
    assert training.total_gib == training.reserved_gib
    both = parts(QWEN3_06B, dataclasses.replace(pack, eval_tokens=3_000_000))
    assert both.evaluation > both.training
    assert both.total_gib * 2**30 == both.shared + both.evaluation
    assert both.reserved_gib * 2**30 == both.shared + both.training + both.evaluation


@given(
    facts=st.sampled_from(SHAPES),
    memory_gib=st.floats(8, 200),
    max_rank=st.sampled_from((8, 64)),
    batch_size=st.sampled_from((1, 2, 8)),
    max_length_tokens=st.sampled_from((256, 1000, 12_000)),
    num_slots=st.none() | st.integers(1, 100),
)
def test_chosen_pack_fits_and_holds_the_longest_row(
    facts: ModelFacts,
    memory_gib: float,
    max_rank: int,
    batch_size: int,
    max_length_tokens: int,
    num_slots: int | None,
) -> None:
    options = TrainingOptions(
        batch_size=batch_size, micro_batch_size=1, max_length_tokens=max_length_tokens
    )
    try:
        found = choose_capacity(facts, options, max_rank, memory_gib, num_slots)
    except SweepAborted as refused:
        assert f"{memory_gib:.1f} GiB" in refused.error
        return
    assert parts(facts, found, options).reserved_gib <= USABLE_FRAC * memory_gib
    assert found.predicted_gib == parts(facts, found, options).total_gib
    assert 1 <= found.num_slots <= (num_slots or 64)
    assert found.max_tokens >= max_length_tokens
    step_tokens = found.num_slots * batch_size * max_length_tokens
    assert found.max_tokens <= min(step_tokens, max(MOST_TOKENS, max_length_tokens))
    assert found.eval_tokens >= found.num_slots * count_eval_positions(facts, options)
    assert found.max_rank == max_rank


@max_examples(50)
@given(
    facts=st.sampled_from(SHAPES),
    memory_gib=st.floats(20, 200),
    lengths=st.lists(st.integers(1, OPTIONS.max_length_tokens), min_size=1, max_size=60),
)
def test_caches_of_all_batches_are_within_what_is_predicted(
    facts: ModelFacts, memory_gib: float, lengths: list[int]
) -> None:
    """Whatever rows there are: each has its positions, an answer, and maybe a state."""
    try:
        found = choose_capacity(facts, OPTIONS, 8, memory_gib)
    except SweepAborted:
        return
    predicted, state = parts(facts, found).evaluation, facts.count_state_positions(itemsize=2)
    lengths = [length + OPTIONS.max_new_tokens for length in lengths]
    for indices in group_rows(lengths, found.num_slots, found.eval_tokens, state):
        num_rows = found.num_slots * (1 << (len(indices) - 1).bit_length())
        row_bytes = (lengths[indices[0]] + state) * facts.count_position_bytes(itemsize=2)
        assert num_rows * row_bytes < predicted


def test_every_shape_has_a_gpu_that_fits_it() -> None:
    for facts in SHAPES:
        assert choose_capacity(facts, OPTIONS, 16, 80).num_slots >= 1


def test_large_gpu_gets_full_passes_of_many_trials_in_the_compute_type() -> None:
    found = choose_capacity(QWEN3_06B, OPTIONS, 16, H200_GIB)
    assert (found.num_slots, found.max_tokens, found.is_dequantised) == (64, MOST_TOKENS, True)
    asked = choose_capacity(QWEN3_06B, OPTIONS, 16, H200_GIB, num_slots=100)
    assert (asked.num_slots, asked.is_dequantised) == (100, True)
    assert choose_capacity(QWEN3_4B, OPTIONS, 16, H200_GIB).max_tokens > BUSY_TOKENS


def test_base_stays_in_nf4_where_it_would_take_the_trials_places() -> None:
    found = choose_capacity(QWEN3_4B, OPTIONS, 16, 24)
    assert not found.is_dequantised
    assert found.num_slots >= 8


def test_unquantised_base_never_stays_in_nf4() -> None:
    plain = dataclasses.replace(OPTIONS, base="bf16")
    found = choose_capacity(QWEN3_06B, plain, 16, H200_GIB)
    assert found == choose_capacity(QWEN3_06B, OPTIONS, 16, H200_GIB)
    found = choose_capacity(QWEN3_4B, plain, 16, 24)
    assert found.is_dequantised
    assert found.max_tokens < choose_capacity(QWEN3_4B, OPTIONS, 16, 24).max_tokens
    with pytest.raises(SweepAborted) as told:
        choose_capacity(QWEN3_32B, plain, 16, 48)
    assert told.value.fix.startswith("leave out --base bf16, choose a smaller model, or")
    assert choose_capacity(QWEN3_32B, OPTIONS, 16, 48).num_slots == 1


def test_passes_shrink_before_the_trials_become_few() -> None:
    found = choose_capacity(QWEN3_4B, OPTIONS, 64, 24)
    assert found.num_slots >= 4
    assert found.max_tokens < BUSY_TOKENS


def test_more_trials_than_fit_become_as_many_as_fit() -> None:
    free = choose_capacity(QWEN3_4B, OPTIONS, 64, 80)
    assert choose_capacity(QWEN3_4B, OPTIONS, 64, 80, num_slots=64) == free
    assert free.num_slots < 64


def test_gpu_too_small_for_one_trial_is_refused_with_its_need() -> None:
    with pytest.raises(SweepAborted, match=r"rank 16 .* 1024 tokens needs \d+\.\d GiB") as told:
        choose_capacity(QWEN3_32B, OPTIONS, 16, 16)
    assert "the GPU has 16.0 GiB" in told.value.error
    assert told.value.fix == "choose a smaller model, or lower --max-length-tokens"


@max_examples(20)
@example(memory_gib=28, max_rank=64)
@given(memory_gib=st.floats(12, 36), max_rank=st.sampled_from((8, 64, 256)))
def test_refusal_names_a_largest_rank_that_fits_if_one_does(
    memory_gib: float, max_rank: int
) -> None:
    def fits(rank: int) -> bool:
        try:
            return bool(choose_capacity(QWEN3_32B, OPTIONS, rank, memory_gib))
        except SweepAborted:
            return False

    try:
        choose_capacity(QWEN3_32B, OPTIONS, max_rank, memory_gib)
    except SweepAborted as refused:
        found = re.search(r"give --lora-ranks of (\d+) at most, choose a smaller", refused.fix)
        assert found or memory_gib != 28
        if found:
            assert fits(int(found[1])) and not fits(min(2 * int(found[1]), max_rank))
        else:
            assert not fits(4)


def test_refused_pack_fits_with_the_memory_that_the_refusal_names() -> None:
    with pytest.raises(SweepAborted) as told:
        choose_capacity(QWEN3_4B, OPTIONS, 16, 4)
    needed_gib = float(told.value.error.split(" needs ")[1].split()[0])
    assert choose_capacity(QWEN3_4B, OPTIONS, 16, needed_gib + 0.1).num_slots == 1


def test_long_rows_on_a_small_gpu_are_trained_with_checkpoints() -> None:
    long = TrainingOptions(max_length_tokens=9728, max_new_tokens=1536)
    assert not choose_capacity(QWEN3_4B, long, 32, H200_GIB).is_checkpointed
    found = choose_capacity(QWEN3_4B, long, 32, 24)
    assert found.is_checkpointed
    assert found.max_tokens >= 9728
    kept = dataclasses.replace(found, is_checkpointed=False)
    assert parts(QWEN3_4B, kept, long).total_gib > 24


def test_cpu_gets_few_trials_and_small_passes() -> None:
    found = choose_capacity(QWEN3_06B, OPTIONS, 16, None)
    assert (found.num_slots, found.max_tokens, found.is_dequantised) == (4, BUSY_TOKENS, True)
    assert found.eval_tokens >= 4 * count_eval_positions(QWEN3_06B, OPTIONS)
    assert choose_capacity(QWEN3_06B, OPTIONS, 16, None, num_slots=9).num_slots == 9


def test_choosing_loads_no_torch() -> None:
    code = (
        "import json, sys, trainables.packing.sizing.choose;"
        "print(json.dumps(sorted({'torch', 'transformers'} & set(sys.modules))))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout) == []
