"""An invented speed and workload, for the tests of estimates."""

from dataclasses import dataclass
from typing import Any

from sweeps.cost.simulation import Workload


@dataclass(frozen=True)
class Steady:
    """A step costs a fixed part and a part a trial; evaluations likewise."""

    fixed_s: float = 1.0
    trial_s: float = 0.0
    row_s: float = 0.0
    new_count_s: float = 0.0

    def step_s(self, num_live: int) -> float:
        return self.fixed_s + self.trial_s * num_live

    def evaluation_s(self, num_live: int, num_rows: int) -> float:
        return self.row_s * num_live * num_rows

    def recording_s(self) -> float:
        return self.new_count_s


def make_load(**changes: Any) -> Workload:
    known: dict[str, Any] = {
        "num_trials": 12, "rungs": (10, 30, 90), "eval_rows": (20, 20, 50), "reduction_factor": 3,
        "num_packs": 1, "num_gpus": 1, "concurrency": 4, "final_concurrency": 4,
        "num_final_runs": 0, "num_tested": 1, "test_rows": 100,
    }  # fmt: skip
    return Workload(**known | changes)
