"""A throughput, what there is to do, and a clock, for the tests of estimates and budgets."""

import dataclasses
from typing import Any

from sweeps.cost.allocation import Allocation
from sweeps.cost.estimate import CostModel
from sweeps.cost.eta import Eta
from sweeps.records.paths import RunPaths
from tests.sweeps.invented_sweep import make_config, make_history, make_report
from trainables.config import TrialConfig
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.throughput import Throughput


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def make_throughput(**changes: Any) -> Throughput:
    """A step takes a second, and an evaluation nothing."""
    known: dict[str, Any] = {
        "device": "cpu",
        "num_slots": 4,
        "load_s": 1.0,
        "step_fixed_s": 1.0,
        "step_trial_s": 0.0,
        "batch_fixed_s": 0.0,
        "row_s": 0.0,
        "batch_rows": 1000,
        "probe_s": 1.0,
    }
    return Throughput(**known | changes)


def make_capacity(predicted_gib: float = 0.0) -> Capacity:
    """A pack of four slots."""
    return Capacity(
        num_slots=4,
        max_rank=16,
        max_tokens=9,
        eval_tokens=9,
        is_dequantised=True,
        predicted_gib=predicted_gib,
    )


def make_model(
    *,
    num_packs: int = 1,
    concurrency: int = 4,
    final_concurrency: int = 4,
    num_validation: int = 50,
    num_test: int = 100,
    memory_gib: float = 0.0,
    **changes: Any,
) -> CostModel:
    """Twelve trials with rungs 10, 30, 90, four at once in one pack of one GPU, without finals."""
    known = {"num_trials": 12, "max_steps": 90, "low_rung_eval_rows": 20, "eval_rows": 50}
    allocation = Allocation(
        num_slots=max(concurrency, final_concurrency),
        most_trials=concurrency,
        most_runs=final_concurrency,
        num_cpus=16,
        num_gpus=num_packs,
        slots_per_gpu=4,
        capacities=(make_capacity(memory_gib),) * num_packs,
    )
    return CostModel(make_config(**known | changes), allocation, num_validation, num_test)


def make_trial(number: int) -> TrialConfig:
    """The trial of the search with this number."""
    trial_id = f"t{number:04d}"
    return TrialConfig(
        trial_id=trial_id,
        params=make_history(number, None).params,
        settings=make_config().settings,
        folder=RunPaths.from_name("/runs", "x").get_trial_folder(trial_id),
    )


def tell_report(eta: Eta, number: int, step: int, seconds: float) -> None:
    """A report of a trial that has been busy for so long."""
    report = make_report(f"t{number:04d}", step, 1.0)
    eta.on_report(make_trial(number), dataclasses.replace(report, seconds=seconds))
