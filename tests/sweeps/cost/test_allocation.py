"""How a cluster is divided into allocation: by engine, memory, and what Optuna needs to learn."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.config import SweepConfig
from sweeps.cost.allocation import (
    PROCESS_GIB,
    allocate_slots,
    find_largest_point,
    find_max_concurrency,
)
from sweeps.cost.hardware import Hardware
from sweeps.recipes import samsum
from sweeps.search.study import choose_num_startup_trials
from tests.examples import max_examples
from trainables import tiny
from trainables.errors import SweepAborted
from trainables.models.model_facts import read_model_facts
from trainables.packing.sizing.solo_memory import predict_solo_gib

MODEL = read_model_facts(str(tiny.MODEL_DIR))
CPUS = Hardware(num_cpus=2, num_gpus=0)
WIDE = {"num_finalists": 4, "num_final_seeds": 3}


LARGE = replace(
    MODEL, layer_types=("full_attention",) * 28, hidden_size=1024, intermediate_size=3072
)


def mixed(*gpu_gibs: float) -> Hardware:
    return Hardware(num_cpus=64, num_gpus=len(gpu_gibs), gpu_gibs=gpu_gibs)


def gpus(num_gpus: int, gpu_gib: float | None = 80.0) -> Hardware:
    gibs = () if gpu_gib is None else (gpu_gib,) * num_gpus
    return Hardware(num_cpus=16 * num_gpus, num_gpus=num_gpus, gpu_gibs=gibs)


def config_of(**values: Any) -> SweepConfig:
    return replace(samsum(is_tiny=True), **values)


@max_examples(30)
@given(st.integers(1, 300), st.integers(1, 8))
def test_most_trials_are_proposed_with_results_known(num_trials: int, num_gpus: int) -> None:
    allocation = allocate_slots(config_of(num_trials=num_trials), MODEL, gpus(num_gpus))
    assert allocation.concurrency <= max(2, -(-num_trials // 3))
    assert allocation.concurrency >= min(num_trials, 2)
    assert allocation.num_packs * allocation.slots_per_gpu >= allocation.concurrency
    assert allocation.num_packs == min(num_gpus, allocation.concurrency)
    if num_trials >= 5:
        assert choose_num_startup_trials(num_trials) < num_trials


@pytest.mark.parametrize(
    ("values", "hardware", "num_packs", "slots", "concurrency", "final_concurrency"),
    [
        ({"num_trials": 12}, CPUS, 1, 4, 4, 4),
        ({"num_trials": 64}, gpus(1), 1, 22, 22, 5),
        ({"num_trials": 64}, gpus(2), 2, 11, 22, 5),
        ({"num_trials": 64, "gpus": 1}, gpus(2), 1, 22, 22, 5),
        ({"num_trials": 64, "slots_per_gpu": 8}, gpus(2), 2, 8, 16, 5),
        ({"num_trials": 12, "slots_per_gpu": 64}, gpus(2), 2, 6, 12, 5),
        ({"num_trials": 12, **WIDE}, gpus(1), 1, 13, 4, 13),
        ({"num_trials": 12, **WIDE}, gpus(2), 2, 7, 4, 13),
        ({"num_trials": 12, "slots_per_gpu": 2, **WIDE}, gpus(2), 2, 2, 4, 4),
        ({"num_trials": 12, "finals": False, **WIDE}, gpus(1), 1, 4, 4, 0),
        ({"num_trials": 12, **WIDE}, CPUS, 1, 4, 4, 4),
        ({"num_trials": 3}, gpus(8), 2, 3, 2, 5),
        ({"num_trials": 1}, gpus(8), 1, 2, 1, 2),
    ],
)
def test_packs_and_slots(
    values: dict[str, Any],
    hardware: Hardware,
    num_packs: int,
    slots: int,
    concurrency: int,
    final_concurrency: int,
) -> None:
    """Slots for all runs of the finals, however few trials the search has at once."""
    allocation = allocate_slots(config_of(**values), MODEL, hardware)
    assert (allocation.num_packs, allocation.slots_per_gpu) == (num_packs, slots)
    assert (allocation.concurrency, allocation.final_concurrency) == (
        concurrency,
        final_concurrency,
    )
    assert {(pack.num_slots, pack.max_rank) for pack in allocation.capacities} == {(slots, 64)}
    assert allocation.num_gpus == (num_packs if hardware.num_gpus else 0)


def slots_of(hardware: Hardware, **values: Any) -> list[tuple[float | None, int]]:
    allocation = allocate_slots(config_of(num_trials=90, **values), LARGE, hardware)
    assert allocation.num_slots == sum(pack.num_slots for pack in allocation.capacities)
    assert allocation.slots_per_gpu == max(pack.num_slots for pack in allocation.capacities)
    return [(pack.gpu_gib, pack.num_slots) for pack in allocation.capacities]


def test_mixed_gpus_have_slots_by_their_own_memory() -> None:
    """What of its share a small one does not hold, the larger ones take."""
    ((_, few),) = slots_of(gpus(1, 8.0))
    assert 0 < few < 10
    left = 30 - 2 * few
    assert slots_of(mixed(8.0, 8.0, 80.0)) == [(8.0, few), (8.0, few), (80.0, left)]
    assert slots_of(mixed(8.0, 80.0, 80.0))[1:] == [(80.0, -(-(30 - few) // 2))] * 2
    assert slots_of(gpus(3)) == [(80.0, 10)] * 3
    assert slots_of(mixed(8.0, 80.0), gpus=1) == [(8.0, few)]  # whichever Ray gives


def test_gpu_that_holds_no_trial_is_left_out_if_another_does() -> None:
    assert slots_of(mixed(1.0, 80.0)) == [(80.0, 30)]
    with pytest.raises(SweepAborted, match=r"the GPU has 1\.0 GiB"):
        slots_of(mixed(0.8, 1.0))


def test_pack_chooses_its_slots_once_it_knows_its_gpu() -> None:
    """CUDA tells a little less than nvidia-smi; a GPU of another kind joins later."""
    allocation = allocate_slots(config_of(num_trials=90), LARGE, mixed(8.0, 80.0))
    small, large = allocation.capacities
    assert allocation.choose_pack is not None
    assert allocation.choose_pack(78.9) == large
    assert allocation.choose_pack(7.8) == small
    late = allocation.choose_pack(24.0)
    assert late.gpu_gib == 24.0 and small.num_slots < late.num_slots <= 15
    assert late.predicted_gib < 24.0
    with pytest.raises(SweepAborted, match=r"the GPU has 1\.0 GiB"):
        allocation.choose_pack(1.0)


@pytest.mark.parametrize(
    ("values", "hardware", "most_packs"),
    [
        ({"num_trials": 64}, gpus(1), 22),
        ({"num_trials": 64, "gpus": 4}, gpus(1), 4),
        ({"num_trials": 64, "slots_per_gpu": 4}, gpus(1), 4),
        ({"num_trials": 64, "slots_per_gpu": 4}, gpus(3), 12),
        ({"num_trials": 64, "gpu_hours": 9.0}, gpus(2), 2),
        ({"num_trials": 1}, gpus(8), 1),
        ({"num_trials": 64}, CPUS, 1),
        ({"num_trials": 64, "engine": "solo"}, gpus(1), 0),
    ],
)
def test_packs_grow_with_the_cluster_up_to_one_for_each_trial_at_once(
    values: dict[str, Any], hardware: Hardware, most_packs: int
) -> None:
    assert allocate_slots(config_of(**values), MODEL, hardware).most_packs == most_packs


def test_trials_of_packs_fit_on_few_cores() -> None:
    allocation = allocate_slots(config_of(num_trials=300, slots_per_gpu=64), MODEL, gpus(4))
    assert allocation.concurrency == 256
    assert allocation.concurrency * allocation.trial_resources["CPU"] < 4
    assert "GPU" not in allocation.trial_resources


@pytest.mark.parametrize(
    ("values", "hardware", "concurrency", "final_concurrency", "gpu_share"),
    [
        ({}, CPUS, 2, 2, 0.0),
        ({"slots_per_gpu": 4}, gpus(2), 8, 5, 1 / 4),
        ({"num_trials": 3}, gpus(1), 3, 5, 1 / 8),
        ({}, gpus(1), 8, 5, 1 / 8),
        ({}, gpus(1, gpu_gib=2.0), 1, 1, 1.0),
        ({}, gpus(1, gpu_gib=None), 1, 1, 1.0),
    ],
)
def test_solo_trials_take_a_core_and_a_share_of_a_gpu(
    values: dict[str, Any],
    hardware: Hardware,
    concurrency: int,
    final_concurrency: int,
    gpu_share: float,
) -> None:
    allocation = allocate_slots(config_of(engine="solo", **values), MODEL, hardware)
    assert (allocation.num_packs, allocation.capacities) == (0, ())
    assert (allocation.concurrency, allocation.final_concurrency) == (
        concurrency,
        final_concurrency,
    )
    assert allocation.trial_resources == {"CPU": 1, "GPU": pytest.approx(gpu_share)}


@pytest.mark.parametrize("gpu_gib", [6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 24.0, 80.0])
def test_finals_take_what_memory_is_left_but_not_the_searchs_base(gpu_gib: float) -> None:
    """More slots are planned for with the base and the activations as the search alone has them."""
    searching = config_of(num_trials=12, finals=False)
    (alone,) = allocate_slots(searching, LARGE, gpus(1, gpu_gib)).capacities
    allocation = allocate_slots(config_of(num_trials=12, **WIDE), LARGE, gpus(1, gpu_gib))
    (wide,) = allocation.capacities
    assert alone.num_slots == allocation.concurrency == 4
    assert wide.num_slots == allocation.final_concurrency
    assert (wide.is_dequantised, wide.is_checkpointed) == (
        alone.is_dequantised, alone.is_checkpointed,
    )  # fmt: skip
    assert wide.num_slots == 13 if gpu_gib >= 16 else 4 <= wide.num_slots < 13
    assert wide.predicted_gib <= 0.92 * gpu_gib


@pytest.mark.parametrize("slots_per_gpu", ["auto", 4])
def test_solo_trial_of_which_one_row_does_not_fit_is_refused(slots_per_gpu: Any) -> None:
    """Micro-batches are halved by themselves, so one row is what must fit."""
    config = config_of(engine="solo", slots_per_gpu=slots_per_gpu)
    one_row = replace(config.settings, micro_batch_size=1)
    needed_gib = predict_solo_gib(MODEL, find_largest_point(config, MODEL), one_row) + PROCESS_GIB
    assert allocate_slots(config, MODEL, gpus(1, needed_gib + 0.01)).slots_per_gpu >= 1
    with pytest.raises(SweepAborted) as told:
        allocate_slots(config, MODEL, gpus(1, needed_gib - 0.1))
    assert told.value.error == (
        f"one trial of rank 64 with rows of {config.max_length_tokens} tokens needs "
        f"{needed_gib:.1f} GiB; the GPU has {needed_gib - 0.1:.1f} GiB"
    )
    assert "choose a smaller model" in told.value.fix


def test_explicit_slots_are_not_capped() -> None:
    assert find_max_concurrency(config_of(num_trials=30, slots_per_gpu=30)) == 30


@pytest.mark.parametrize("engine", ["packed", "solo"])
def test_real_sweep_needs_a_gpu(engine: str) -> None:
    with pytest.raises(SweepAborted, match="no GPU found"):
        allocate_slots(config_of(tiny=False, engine=engine), MODEL, CPUS)


def test_unknown_memory_of_gpus_is_told() -> None:
    with pytest.raises(SweepAborted, match="nvidia-smi") as told:
        allocate_slots(config_of(), MODEL, gpus(1, gpu_gib=None))
    assert "--engine solo" in told.value.fix
