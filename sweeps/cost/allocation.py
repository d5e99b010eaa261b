"""How many trials run at once, and what each takes: GPUs, packs and slots. Loads neither torch nor
Ray."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from sweeps.checks.preflight import check_generation, make_no_gpu_error
from sweeps.config import SweepConfig
from sweeps.cost.hardware import Hardware
from sweeps.finals.finalists import count_final_runs
from trainables.config import Hyperparameters
from trainables.errors import SweepAborted
from trainables.models.model_facts import ModelFacts
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.choose import (
    CPU_SLOTS,
    MOST_SLOTS,
    choose_capacity,
    choose_known_capacity,
    make_too_large_error,
)
from trainables.packing.sizing.solo_memory import predict_solo_gib

if TYPE_CHECKING:  # loads Ray, which a dry run does without
    from cluster.connect import Cluster

MAX_AUTO_SLOTS = 8
"""Solo trials at once on one GPU: each is a process that wants a CPU core to launch kernels."""
PACKED_TRIAL_CPUS = 0.01
"""Cores that Ray reserves for a trial in a pack: it waits for its reports, whatever the cores."""
PROCESS_GIB = 1.0
"""A CUDA context with its libraries, beside what torch allocates."""


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """How many trials run at once, and where."""

    num_slots: int
    """Places for trials of all GPUs together, as the sweep begins."""
    most_trials: int
    """Trials of the search at once, however many places there are."""
    most_runs: int
    """Runs of the finals at once: nothing is learnt from one for another, so all of them."""
    num_cpus: int
    """Cores, on which the processes of trials start."""
    num_gpus: int
    """GPUs in use; 0 for this machine's CPUs."""
    slots_per_gpu: int
    """The most trials of one GPU, in the search or in the finals; without a GPU, of this
    machine."""
    capacities: tuple[Capacity, ...] = ()
    """What the pack of each GPU, or of the CPUs, holds, the smallest first; empty where trials
    train alone."""
    most_packs: int = 1
    """On a cluster that gets more GPUs while the sweep runs; each has a trial then."""
    choose_pack: Callable[[float], Capacity] | None = None
    """Chooses the pack for a GPU of so many GiB, also one that comes later; None without GPUs, and
    where trials train alone."""

    @property
    def concurrency(self) -> int:
        """Trials of the search at once, as the sweep begins."""
        return min(self.num_slots, self.most_trials)

    @property
    def final_concurrency(self) -> int:
        """Runs of the finals at once, likewise."""
        return min(self.num_slots, self.most_runs)

    @property
    def max_concurrency(self) -> int:
        """Trials of the search, or runs of the finals, whichever are more, with however many GPUs
        there will be."""
        most = max(self.most_trials, self.most_runs)
        return most if self.most_packs > self.num_packs else min(most, self.num_slots)

    @property
    def num_packs(self) -> int:
        """Packs: one a GPU, or one on the CPUs; 0 where trials train alone."""
        return len(self.capacities)

    @property
    def trial_resources(self) -> dict[str, float]:
        """What Ray reserves for one trial."""
        if self.capacities:
            return {"CPU": PACKED_TRIAL_CPUS}
        return {"CPU": 1, "GPU": 1 / self.slots_per_gpu if self.num_gpus else 0.0}


def allocate_slots(config: SweepConfig, model: ModelFacts, hardware: Hardware) -> Allocation:
    """Divides the GPUs into slots; a tiny sweep without one, this machine's CPUs.

    Raises:
        SweepAborted: a real sweep without a GPU, one too old, or not even one trial fits.
    """
    if hardware.num_gpus == 0 and not config.tiny:
        raise make_no_gpu_error()
    check_generation(config, hardware.oldest_gpu)
    num_gpus = min(config.gpus or hardware.num_gpus, hardware.num_gpus)
    if config.engine == "solo":
        slots_per_gpu = _count_solo_slots(config, model, hardware, num_gpus)
        num_slots = min(max(1, num_gpus) * slots_per_gpu, hardware.num_cpus)
        return Allocation(
            num_slots=num_slots,
            most_trials=config.num_trials,
            most_runs=count_final_runs(config),
            num_cpus=hardware.num_cpus,
            num_gpus=num_gpus,
            slots_per_gpu=slots_per_gpu,
            most_packs=0,
        )
    most = find_max_concurrency(config)
    num_packs = min(max(1, num_gpus), most)
    capacities, choose_new = _plan_packs(config, model, hardware, num_packs)
    slots = [capacity.num_slots for capacity in capacities]
    most_packs = min(sum(slots), most)
    if num_gpus == 0 or config.gpu_hours is not None:
        most_packs = len(capacities)  # a budget is divided among the GPUs that there are
    return Allocation(
        num_slots=sum(slots),
        most_trials=most,
        most_runs=count_final_runs(config),
        num_cpus=hardware.num_cpus,
        num_gpus=min(num_gpus, len(slots)),
        slots_per_gpu=max(slots),
        capacities=capacities,
        most_packs=min(config.gpus or most_packs, most_packs),
        choose_pack=partial(choose_known_capacity, tuple(set(capacities)), choose_new)
        if num_gpus
        else None,
    )


def describe_place(cluster: "Cluster", allocation: Allocation) -> str:
    """Where a sweep runs, e.g. cluster 10.0.0.1:6379, 2 nodes, 8 of 16 GPUs."""
    num, num_all = allocation.num_gpus, cluster.num_gpus
    place = "this machine"
    if not cluster.is_local:
        place = f"cluster {cluster.address}, {cluster.num_nodes} node"
        place += "s" * (cluster.num_nodes != 1)
    if not num:
        return f"{place}, {allocation.num_cpus} CPU core{'s' * (allocation.num_cpus != 1)}"
    return f"{place}, {f'{num} of ' * (num != num_all)}{num_all} GPU{'s' * (num_all != 1)}"


def describe_packs(slots: Sequence[int]) -> str:
    """E.g. 8 packs of 16 slots, or 1 pack of 4 and 2 packs of 16 slots; "" without packs.

    Args:
        slots: of each pack.
    """
    counts = sorted(Counter(slots).items())
    parts = [f"{num} pack{'s' * (num > 1)} of {of_each}" for of_each, num in counts]
    return " and ".join(parts) + " slots" if parts else ""


def find_largest_point(config: SweepConfig, model: ModelFacts) -> Hyperparameters:
    """The point of the space that needs the most memory."""
    points = (
        Hyperparameters(
            lora_rank=max(config.space.lora_ranks),
            lora_alpha=1.0,
            learning_rate=config.space.learning_rates[0],
            target_modules=(names,),
        )
        for names in config.space.target_modules
    )
    return max(points, key=model.count_lora_params)


def find_max_concurrency(config: SweepConfig) -> int:
    """Trials of the search that may run at once, whatever the hardware.

    What runs at once is proposed without knowing of each other's results: a third of the trials
    leaves two thirds to learn.
    """
    if config.slots_per_gpu != "auto":
        return config.num_trials
    return min(config.num_trials, max(2, math.ceil(config.num_trials / 3)))


def _plan_packs(
    config: SweepConfig, model: ModelFacts, hardware: Hardware, num_packs: int
) -> tuple[tuple[Capacity, ...], Callable[[float | None], Capacity]]:
    """The packs of the GPUs, that of the smallest first, and what chooses one for any other GPU.

    They have slots for the search or all of the finals, whichever are more, in equal shares; what
    of its share a small GPU does not hold falls to the larger ones. One that does not hold a single
    trial has no pack, unless none does, which is an error.
    """
    if hardware.num_gpus and not hardware.gpu_gibs:
        raise SweepAborted(
            "the GPUs' memory is not known: nvidia-smi tells nothing on their nodes",
            "install nvidia-smi there, or add --engine solo",
        )
    most = MOST_SLOTS if hardware.num_gpus else CPU_SLOTS
    if config.slots_per_gpu != "auto":
        most = config.slots_per_gpu
    most_search = find_max_concurrency(config)
    most_together = max(most_search, count_final_runs(config))
    choose_for = partial(choose_capacity, model, config.settings, max(config.space.lora_ranks))

    def choose_share(num_packs: int, num_placed: int = 0) -> Callable[[float | None], Capacity]:
        """Chooses one of so many packs, which share what is not placed yet."""
        share = math.ceil((most_together - num_placed) / num_packs)
        # The search is not slowed for the sake of the finals.
        enough = math.ceil((most_search - num_placed) / num_packs)
        return partial(choose_for, num_slots=max(1, min(most, share)), num_enough=max(1, enough))

    def holds_one(gib: float | None) -> bool:
        try:
            choose_for(gib, num_slots=1)
        except SweepAborted:
            return False
        return True

    all_gibs: tuple[float | None, ...] = hardware.gpu_gibs or (None,)
    useful = {gib for gib in set(all_gibs) if holds_one(gib)} or set(all_gibs[-1:])
    gibs = [gib for gib in all_gibs if gib in useful][:num_packs]
    capacities: list[Capacity] = []
    for gib in dict.fromkeys(gibs):
        num_placed = sum(capacity.num_slots for capacity in capacities)
        chosen = choose_share(len(gibs) - len(capacities), num_placed)(gib)
        capacities += [chosen] * gibs.count(gib)
    return tuple(capacities), choose_share(len(gibs))


def _count_solo_slots(
    config: SweepConfig, model: ModelFacts, hardware: Hardware, num_gpus: int
) -> int:
    """Trials that fit on the smallest GPU; 1 where its memory is not known."""
    largest = find_largest_point(config, model)

    def needed_gib(rank: int, rows: int) -> float:
        params = replace(largest, lora_rank=rank)
        settings = replace(config.settings, micro_batch_size=rows)
        return predict_solo_gib(model, params, settings) + PROCESS_GIB

    of_one_row, rank = partial(needed_gib, rows=1), largest.lora_rank
    if num_gpus and hardware.gpu_gib is not None and of_one_row(rank) > hardware.gpu_gib:
        raise make_too_large_error(config.settings, rank, hardware.gpu_gib, of_one_row)
    if config.slots_per_gpu != "auto":
        return config.slots_per_gpu
    if num_gpus == 0:
        return MAX_AUTO_SLOTS
    if hardware.gpu_gib is None:
        return 1
    num_fitting = int(0.9 * hardware.gpu_gib / needed_gib(rank, config.micro_batch_size))
    return max(1, min(MAX_AUTO_SLOTS, hardware.num_cpus // num_gpus - 1, num_fitting))
