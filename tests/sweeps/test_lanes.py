"""How a cluster is divided into lanes: by engine, memory, and what Optuna needs to learn."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.config import SweepConfig
from sweeps.lanes import Hardware, divide, most_at_once
from sweeps.recipes import samsum
from sweeps.search.study import num_startup_trials
from trainables import tiny
from trainables.errors import SweepAborted
from trainables.model_facts import read_model_facts

MODEL = read_model_facts(str(tiny.MODEL_DIR))
CPUS = Hardware(num_cpus=2, num_gpus=0, gpu_gib=None)


def gpus(num_gpus: int, gpu_gib: float | None = 80.0) -> Hardware:
    return Hardware(num_cpus=16 * num_gpus, num_gpus=num_gpus, gpu_gib=gpu_gib)


def config_of(**values: Any) -> SweepConfig:
    return replace(samsum(is_tiny=True), **values)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300), st.integers(1, 8))
def test_most_trials_are_proposed_with_results_known(num_trials: int, num_gpus: int) -> None:
    lanes = divide(config_of(num_trials=num_trials), MODEL, gpus(num_gpus))
    assert lanes.concurrency <= max(2, -(-num_trials // 3))
    assert lanes.concurrency >= min(num_trials, 2)
    assert lanes.num_packs * lanes.slots_per_gpu >= lanes.concurrency
    assert lanes.num_packs == min(num_gpus, lanes.concurrency)
    if num_trials >= 5:
        assert num_startup_trials(num_trials) < num_trials


@pytest.mark.parametrize(
    ("values", "hardware", "num_packs", "slots", "concurrency"),
    [
        ({"num_trials": 12}, CPUS, 1, 4, 4),
        ({"num_trials": 64}, gpus(1), 1, 22, 22),
        ({"num_trials": 64}, gpus(2), 2, 11, 22),
        ({"num_trials": 64, "gpus": 1}, gpus(2), 1, 22, 22),
        ({"num_trials": 64, "slots_per_gpu": 8}, gpus(2), 2, 8, 16),
        ({"num_trials": 12, "slots_per_gpu": 64}, gpus(2), 2, 6, 12),
        ({"num_trials": 3}, gpus(8), 2, 1, 2),
        ({"num_trials": 1}, gpus(8), 1, 1, 1),
    ],
)
def test_packs_and_slots(
    values: dict[str, Any], hardware: Hardware, num_packs: int, slots: int, concurrency: int
) -> None:
    lanes = divide(config_of(**values), MODEL, hardware)
    assert (lanes.num_packs, lanes.slots_per_gpu, lanes.concurrency) == (
        num_packs, slots, concurrency,
    )  # fmt: skip
    assert lanes.capacity is not None and lanes.capacity.num_slots == slots
    assert lanes.capacity.max_rank == 64
    assert lanes.num_gpus == (num_packs if hardware.num_gpus else 0)


def test_trials_of_packs_fit_on_few_cores() -> None:
    lanes = divide(config_of(num_trials=300, slots_per_gpu=64), MODEL, gpus(4))
    assert lanes.concurrency == 256
    assert lanes.concurrency * lanes.trial_resources["CPU"] < 4
    assert "GPU" not in lanes.trial_resources


@pytest.mark.parametrize(
    ("values", "hardware", "concurrency", "gpu_share"),
    [
        ({}, CPUS, 2, 0.0),
        ({"slots_per_gpu": 4}, gpus(2), 8, 1 / 4),
        ({}, gpus(1), 8, 1 / 8),
        ({}, gpus(1, gpu_gib=2.0), 1, 1.0),
        ({}, gpus(1, gpu_gib=None), 1, 1.0),
    ],
)
def test_solo_trials_take_a_core_and_a_share_of_a_gpu(
    values: dict[str, Any], hardware: Hardware, concurrency: int, gpu_share: float
) -> None:
    lanes = divide(config_of(engine="solo", **values), MODEL, hardware)
    assert (lanes.num_packs, lanes.capacity) == (0, None)
    assert lanes.concurrency == concurrency
    assert lanes.trial_resources == {"CPU": 1, "GPU": pytest.approx(gpu_share)}


def test_explicit_slots_are_not_capped() -> None:
    assert most_at_once(config_of(num_trials=30, slots_per_gpu=30)) == 30


@pytest.mark.parametrize("engine", ["packed", "solo"])
def test_real_sweep_needs_a_gpu(engine: str) -> None:
    with pytest.raises(SweepAborted, match="no GPU found"):
        divide(config_of(tiny=False, engine=engine), MODEL, CPUS)


def test_unknown_memory_of_gpus_is_told() -> None:
    with pytest.raises(SweepAborted, match="nvidia-smi") as told:
        divide(config_of(), MODEL, gpus(1, gpu_gib=None))
    assert "--engine solo" in told.value.fix
