"""A solo trial's memory is predicted as it was measured, and what halving makes fit is known."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.sizes import list_facts
from trainables.config import Hyperparameters, TrainingSettings
from trainables.models.layer_kinds import ExpertFacts
from trainables.models.memory import retry_with_smaller_micro_batch
from trainables.models.model_facts import ModelFacts, read_model_facts
from trainables.packing.sizing.memory_model import NF4_BITS
from trainables.packing.sizing.solo_memory import find_solo_micro_batch, predict_solo_gib
from trainables.tiny import MODEL_DIR

FACTS = list_facts()
QWEN3_06B, QWEN3_4B = (FACTS[f"Qwen3-{size}"] for size in ("0.6B", "4B"))
PARAMS = Hyperparameters(lora_rank=16, lora_alpha=32, learning_rate=1e-4)
TRIAL = TrainingSettings(rows_dir=Path("/rows"), model="m", max_steps=9, rungs=(9,))


@pytest.mark.parametrize(
    ("facts", "num_tokens", "measured_gib"),
    [
        (QWEN3_06B, 1206, 3.501),
        (QWEN3_06B, 4096, 10.101),
        (QWEN3_4B, 1206, 11.739),
        (QWEN3_4B, 4096, 32.475),
    ],
)
def test_peaks_of_solo_trials_are_those_measured_on_an_h200(
    facts: ModelFacts, num_tokens: int, measured_gib: float
) -> None:
    """tests/benchmarks/h200-qwen3-0.6b.json and h200-qwen3-4b.json: TRL solo, whose largest batches
    of 2 and 8 rows have so many tokens with their padding, few of them labels."""
    settings = dataclasses.replace(
        TRIAL, batch_size=2, micro_batch_size=2, max_length_tokens=num_tokens // 2
    )
    assert 1 < predict_solo_gib(facts, PARAMS, settings) / measured_gib < 1.03


@given(
    facts=st.sampled_from(list(FACTS.values())),
    memory_gib=st.floats(2, 200),
    rows=st.sampled_from((1, 2, 9, 12, 16)),
    max_length_tokens=st.sampled_from((256, 1000, 12_000)),
)
def test_micro_batches_are_halved_until_their_longest_rows_fit(
    facts: ModelFacts, memory_gib: float, rows: int, max_length_tokens: int
) -> None:
    settings = dataclasses.replace(
        TRIAL, batch_size=rows, micro_batch_size=rows, max_length_tokens=max_length_tokens
    )

    def fits(num_rows: int) -> bool:
        smaller = dataclasses.replace(settings, micro_batch_size=num_rows)
        return predict_solo_gib(facts, PARAMS, smaller) <= memory_gib

    tried: list[int] = []

    def attempt(num_rows: int) -> None:
        tried.append(num_rows)
        if not fits(num_rows):
            raise torch.OutOfMemoryError

    found = find_solo_micro_batch(facts, PARAMS, settings, memory_gib)
    if found:
        retry_with_smaller_micro_batch(attempt, rows)
        assert found == tried[-1]
    else:
        assert not fits(1)


def test_memory_of_a_solo_trial_rises_with_all_that_takes_it() -> None:
    facts = read_model_facts(str(MODEL_DIR))
    params, settings = dataclasses.replace(PARAMS, lora_rank=8), TRIAL
    least = predict_solo_gib(facts, params, settings)
    assert least * 2**30 > facts.body_params * 4 / 8
    assert predict_solo_gib(facts, dataclasses.replace(params, lora_rank=64), settings) > least
    assert (
        predict_solo_gib(facts, params, dataclasses.replace(settings, max_length_tokens=2048))
        > least
    )
    smaller = dataclasses.replace(settings, batch_size=8, micro_batch_size=2)
    assert predict_solo_gib(facts, params, smaller) < least
    one_more = predict_solo_gib(facts, dataclasses.replace(params, lora_rank=9), settings) - least
    extra = facts.count_lora_params(
        dataclasses.replace(params, lora_rank=9)
    ) - facts.count_lora_params(params)
    assert one_more * 2**30 == pytest.approx(16 * extra, rel=1e-3)
    plain = predict_solo_gib(facts, params, dataclasses.replace(settings, base="bf16")) - least
    assert plain * 2**30 == pytest.approx(facts.body_params * (16 - NF4_BITS) / 8, rel=1e-3)


def test_solo_trial_has_experts_in_the_compute_type_and_keeps_what_each_gives() -> None:
    experts = ExpertFacts(num_experts=8, num_per_token=2, width=16)
    facts = dataclasses.replace(read_model_facts(str(MODEL_DIR)), experts=experts)
    twice, more = (
        dataclasses.replace(facts, experts=dataclasses.replace(experts, **changed))
        for changed in ({"num_experts": 16}, {"num_per_token": 4})
    )
    least = predict_solo_gib(facts, PARAMS, TRIAL)
    assert twice.expert_params == 2 * facts.expert_params
    beside = (predict_solo_gib(twice, PARAMS, TRIAL) - least) * 2**30
    assert beside == pytest.approx(2 * facts.expert_params)
    outputs = 2 * facts.hidden_size * facts.num_layers
    num_tokens = TRIAL.micro_batch_size * TRIAL.max_length_tokens
    kept = (predict_solo_gib(more, PARAMS, TRIAL) - least) * 2**30
    assert kept == pytest.approx(2 * num_tokens * outputs)
