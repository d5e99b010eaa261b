"""What a sweep will take, with a band: the mean of simulated sweeps. No torch, no Ray."""

import statistics
from dataclasses import dataclass

from sweeps.config import SweepConfig
from sweeps.cost.allocation import Allocation
from sweeps.cost.simulation import State, simulate
from sweeps.cost.workload import Workload
from sweeps.finals import finalists
from trainables.packing.sizing.pace import Speed

NUM_SEEDS = 32
PACE_ERROR_FRAC = 0.15
"""What the pace of a few steps may be off by, to either side: added to the band of the seeds."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a sweep will take, and the band in which 9 of 10 simulated sweeps lie, widened by
    what the pace may be off by."""

    wall_s: float
    wall_low_s: float
    wall_high_s: float
    finals_s: float
    """Of wall_s, what comes after the search: finals, test and closing."""
    num_gpus: float
    num_completed: float
    """Trials of the search that reach the last rung."""

    @property
    def gpu_hours(self) -> float:
        """All GPUs for all of wall_s."""
        return self.wall_s * self.num_gpus / 3600


def workload(
    config: SweepConfig, allocation: Allocation, num_validation: int, num_test: int
) -> Workload:
    """What this sweep has to do."""
    last = min(config.eval_rows, num_validation)
    low = min(config.low_rung_eval_rows or last, last)
    num_runs = finalists.num_runs(config)
    is_packed = allocation.capacity is not None
    return Workload(
        num_trials=config.num_trials,
        rungs=config.rungs,
        eval_rows=(low,) * (len(config.rungs) - 1) + (last,),
        reduction_factor=config.reduction_factor,
        num_packs=allocation.num_packs if is_packed else allocation.concurrency,
        num_gpus=max(1, allocation.num_gpus),
        concurrency=allocation.concurrency,
        final_concurrency=allocation.final_concurrency,
        num_cpus=allocation.num_cpus,
        num_final_runs=num_runs,
        num_tested=config.num_final_seeds + 1 if num_runs else 1,
        test_rows=num_test,
        num_testing=allocation.num_packs if is_packed else 1,
    )


def estimate(
    load: Workload,
    speed: Speed,
    state: State | None = None,
    *,
    elapsed_s: float = 0.0,
    num_seeds: int = NUM_SEEDS,
) -> Estimate:
    """The mean and the band of several simulated sweeps.

    Args:
        state: where the sweep stands; its beginning if not given.
        elapsed_s: what has passed already, which wall_s includes.
    """
    found = [simulate(load, speed, seed, state) for seed in range(num_seeds)]
    walls_s = sorted(one.wall_s for one in found)
    cut = max(0, round(0.05 * num_seeds) - 1) if num_seeds > 1 else 0
    return Estimate(
        wall_s=elapsed_s + statistics.fmean(walls_s),
        wall_low_s=elapsed_s + walls_s[cut] * (1 - PACE_ERROR_FRAC),
        wall_high_s=elapsed_s + walls_s[-1 - cut] * (1 + PACE_ERROR_FRAC),
        finals_s=statistics.fmean(one.finals_s + one.test_s for one in found),
        num_gpus=load.num_gpus,
        num_completed=statistics.fmean(one.num_reached[load.rungs[-1]] for one in found),
    )
