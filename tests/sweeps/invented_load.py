"""An invented speed and workload, for the tests of estimates."""

from dataclasses import dataclass
from typing import Any

from sweeps.cost.workload import Workload


@dataclass(frozen=True)
class Steady:
    """A step costs a fixed part and a part a trial; evaluations likewise."""

    fixed_s: float = 1.0
    trial_s: float = 0.0
    row_s: float = 0.0
    recorded_s: float = 0.0
    """Of each step in which a graph is recorded: the first num_recorded of a pack."""
    num_recorded: int = 0

    def step_s(self, num_live: int) -> float:
        return self.fixed_s + self.trial_s * num_live

    def evaluation_s(self, num_live: int, num_rows: int) -> float:
        return self.row_s * num_live * num_rows

    def recording_s(self, num_before: float, num_steps: float) -> float:
        made, makes = (min(n, self.num_recorded) for n in (num_before, num_before + num_steps))
        return self.recorded_s * (makes - made)


def make_load(**changes: Any) -> Workload:
    known: dict[str, Any] = {
        "num_trials": 12, "rungs": (10, 30, 90), "eval_rows": (20, 20, 50), "reduction_factor": 3,
        "num_packs": 1, "num_gpus": 1, "concurrency": 4, "final_concurrency": 4,
        "num_cpus": 16,
        "num_final_runs": 0, "num_tested": 1, "test_rows": 100,
    }  # fmt: skip
    return Workload(**known | changes)
