"""The bench's measurement of a pack, and of the card that it runs on."""

import time
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from tests.benchmarks.packing.job import Job, read_training_examples, synchronize
from tests.benchmarks.packing.results import Gpu, Row
from trainables.config import TrainingSettings
from trainables.data.batches import Batches
from trainables.data.tokens import Example
from trainables.models.base_model import get_device, load_base
from trainables.models.memory import free_memory, get_gpu_gib
from trainables.models.model_facts import read_model_facts
from trainables.packing.compute.kernels.inputs import BLOCK_TOKENS
from trainables.packing.compute.pack import Pack
from trainables.packing.compute.pass_shapes import round_up_to_bucket
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.choose import choose_capacity
from trainables.packing.sizing.memory_model import predict_pack


def measure_pack(job: Job) -> Row:
    """A pack at the capacity that is chosen for the card.

    A first round over the same steps makes kernels, on a GPU a second one captures what the first
    left to capture; the rounds that follow count.
    """
    facts, settings = read_model_facts(job.settings.model), job.settings
    is_fast = get_device().type == "cuda"
    rank = max(job.lora_ranks)
    capacity = choose_capacity(facts, settings, rank, get_gpu_gib(), job.num_trials)
    job = replace(job, num_trials=capacity.num_slots)
    examples = read_training_examples(settings)
    batches = Batches(examples, settings)
    pack = make_pack(settings, capacity, is_fast)
    first = _time_round(job, pack, examples)
    if is_fast:
        _time_round(job, pack, examples)
    counted = [_time_round(job, pack, examples)]
    while sum(each.seconds for each in counted) < job.least_s:
        counted.append(_time_round(job, pack, examples))
    times = len(counted) * capacity.num_slots
    base = settings.compute_dtype if capacity.is_dequantised else "NF4"
    return job.make_row(
        batches,
        name="pack",
        settings=f"base in {base}, passes of {capacity.max_tokens} tokens",
        steps=times * job.num_steps,
        seconds=sum(each.seconds for each in counted),
        real_frac=counted[-1].real_frac,
        predicted_gib=_predict_gib(job, capacity, batches) if is_fast else None,
        startup_s=first.first_s - job.started_s,
        first_round_steps_per_s=capacity.num_slots * job.num_steps / first.seconds,
    )


def make_pack(settings: TrainingSettings, capacity: Capacity, is_fast: bool) -> Pack:
    """A pack over a base that it alone holds, so that dequantised weights replace NF4's."""
    pack = Pack(
        load_base(settings.model, settings.compute_dtype),
        capacity.num_slots,
        capacity.max_rank,
        capacity.max_tokens,
        is_dequantised=capacity.is_dequantised,
        is_checkpointed=capacity.is_checkpointed,
        is_fast=is_fast,
    )
    free_memory()
    return pack


def measure_gpu() -> Gpu:
    """The card's name and its matrix ceiling; on a CPU, its."""
    place = get_device()
    size, repeats = (8192, 20) if place.type == "cuda" else (512, 3)
    a, b = (torch.randn(size, size, device=place, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    synchronize()
    started_s = time.perf_counter()
    for _ in range(repeats):
        a @ b
    synchronize()
    tflops = repeats * 2 * size**3 / (time.perf_counter() - started_s) / 1e12
    name = torch.cuda.get_device_name() if place.type == "cuda" else "CPU"
    return Gpu(name=name, torch=torch.__version__, ceiling_tflops=tflops)


@dataclass(frozen=True, kw_only=True)
class _Round:
    """One training of all trials."""

    first_s: float
    """time.perf_counter() after the first step."""
    seconds: float
    """Time of the steps after the warm-up, which are those that a solo trial is timed over."""
    real_frac: float
    """Mean of those steps."""


def _time_round(job: Job, pack: Pack, examples: list[Example]) -> _Round:
    for slot in range(job.num_trials):
        pack.join(slot, job.make_trial(slot), examples)
    times_s: list[float] = []
    real_fracs: list[float] = []
    while pack.step():
        real, computed = pack.last_tokens
        real_fracs.append(real / computed)
        if len(real_fracs) in job.settings.rungs:
            synchronize()
            times_s.append(time.perf_counter())
    for slot in range(job.num_trials):
        pack.leave(slot)
    first_s, warm_s, end_s = times_s
    timed = real_fracs[job.num_warm_up_steps :]
    return _Round(first_s=first_s, seconds=end_s - warm_s, real_frac=sum(timed) / len(timed))


def _predict_gib(job: Job, capacity: Capacity, batches: Batches) -> float:
    """The peak that the largest of the passes should have; nothing is evaluated."""
    settings = job.settings
    largest = find_largest_pass(batches, settings.max_steps, job.num_trials, capacity.max_tokens)
    return predict_pack(
        read_model_facts(settings.model),
        settings,
        replace(capacity, max_tokens=largest.tokens, eval_tokens=0),
        num_labels=round_up_to_bucket(largest.labels, BLOCK_TOKENS),
        num_rows=largest.rows,
    ).total_gib


class LargestPass(NamedTuple):
    """Most of each, not always in the same pass."""

    tokens: int
    labels: int
    rows: int


def find_largest_pass(
    batches: Batches, num_steps: int, num_trials: int, max_tokens: int
) -> LargestPass:
    """What a pass has at most, where all trials go the same way in step."""
    passes = []
    for step in range(1, num_steps + 1):
        rows = batches.get_step_rows(step)
        tokens = num_trials * sum(len(row.input_ids) for row in rows)
        labels = num_trials * sum(len(row.target_ids) for row in rows)
        share = min(1.0, max_tokens / tokens)
        of_step = (tokens, labels, num_trials * len(rows))
        passes.append([round(share * count) for count in of_step])
    return LargestPass(*map(max, zip(*passes, strict=True)))
