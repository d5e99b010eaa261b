"""A search at the end of its budget: nobody begins, who comes too late ends, the finals follow."""

import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.config import SweepConfig
from sweeps.control.budget_stop import BudgetStop
from sweeps.control.controller import TrialController
from sweeps.cost.eta import Eta
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import replay
from sweeps.records.trials_csv import BUDGET_REASON
from sweeps.search.study import Search
from tests.sweeps.invented_sweep import METRIC, make_report
from tests.sweeps.small_costs import Clock, make_model, make_throughput

BUDGET_S = 100.0


@dataclasses.dataclass
class Scene:
    """A real controller under a budget, with a clock of its own."""

    config: SweepConfig
    paths: RunPaths
    clock: Clock
    controller: TrialController
    budget_stop: BudgetStop

    def report(self, trial_id: str, step: int, value: float = 1.0) -> dict[str, bool]:
        """A report that came as fast as was measured."""
        made = make_report(trial_id, step, value)
        return self.budget_stop.restrict(
            self.controller.report(dataclasses.replace(made, seconds=step))
        )

    def ends(self) -> dict[str, tuple[Any, str]]:
        """Status and reason of each trial of the search."""
        records = replay(read_events(self.paths.events))
        return {record.trial_id: (record.status, record.reason) for record in records}


def make_scene(folder: Path, budget_s: float | None = BUDGET_S, **changes: Any) -> Scene:
    known = {"num_trials": 20, "reduction_factor": 2, "num_rungs": 2, "max_steps": 10}
    known["time_budget"] = f"{budget_s}s" if budget_s else None
    model = make_model(num_validation=0, num_test=0, **known | changes)
    config = model.config
    paths = RunPaths.from_name(str(folder), config.name)
    clock = Clock()
    eta = Eta(model, now_s=clock)
    eta.predict(make_throughput())
    log = EventLog(paths.events)
    search = Search(optuna.create_study(direction="maximize"), config.space, 0, 5)
    controller = TrialController(config, paths, METRIC, search, log, (eta,))
    return Scene(config, paths, clock, controller, BudgetStop(controller, eta, now_s=clock))


def test_a_trial_whose_next_report_comes_too_late_is_stopped_at_its_report(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    assert scene.config.rungs == (5, 10)
    for _ in range(2):
        scene.controller.next_trial()
    scene.clock.now_s = 1000.0 + BUDGET_S - 6.0
    assert scene.report("t0000", 5) == {"t0000": False}
    late = ("stopped", BUDGET_REASON)
    assert scene.ends() == {"t0000": late, "t0001": (None, "")}  # it may report any moment
    scene.clock.now_s += 6.0
    scene.budget_stop.enforce()
    assert scene.ends() == {"t0000": late, "t0001": late}
    assert scene.controller.num_left == 0 and scene.controller.next_trial() is None


def test_what_asha_stopped_keeps_its_own_reason(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    for _ in range(3):
        scene.controller.next_trial()
    scene.clock.now_s = 1000.0 + BUDGET_S - 6.0
    scene.report("t0000", 5, value=3.0)
    assert scene.report("t0001", 5, value=1.0) == {"t0001": False}
    scene.clock.now_s += 6.0
    scene.budget_stop.enforce()
    ends = scene.ends()
    assert ends["t0001"][1].startswith("place 2 of 2")
    assert ends["t0000"][1] == ends["t0002"][1] == BUDGET_REASON


def test_the_finals_follow_and_are_left_alone(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, finals=True, num_finalists=1, num_final_seeds=2)
    scene.controller.next_trial()
    scene.clock.now_s += 5.0
    scene.report("t0000", 5)
    scene.clock.now_s += BUDGET_S
    scene.budget_stop.enforce()
    assert scene.ends() == {"t0000": ("stopped", BUDGET_REASON)}
    run = scene.controller.next_trial()
    assert run is not None and run.trial_id == "f0000s1"
    scene.clock.now_s += BUDGET_S
    assert scene.report("f0000s1", 5) == {"f0000s1": True}
    assert scene.report("f0000s1", 10) == {"f0000s1": False}  # its last step: completed
    assert scene.controller.num_left == 1


@pytest.mark.parametrize("finals", [True, False])
def test_while_there_is_time_nobody_is_stopped(tmp_path: Path, finals: bool) -> None:
    scene = make_scene(tmp_path, finals=finals)
    for _ in range(4):
        scene.controller.next_trial()
    scene.budget_stop.enforce()
    scene.clock.now_s += 5.0
    assert scene.report("t0000", 5) == {"t0000": True}
    assert scene.controller.next_trial() is not None


def test_added_points_that_the_budget_leaves_out_are_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = make_scene(tmp_path)
    scene.controller.next_trial()
    scene.controller.search.enqueue({"lora_rank": 8, "learning_rate": 3e-3}, is_asked=True)
    scene.clock.now_s += BUDGET_S
    scene.budget_stop.enforce()
    scene.budget_stop.enforce()
    (warning,) = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert warning.endswith("to a resume with more: lora_rank=8 learning_rate=0.003")


def test_without_a_budget_nothing_is_stopped(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, budget_s=None)
    scene.controller.next_trial()
    scene.clock.now_s += 10 * BUDGET_S
    scene.budget_stop.enforce()
    assert not scene.budget_stop.is_due
    assert scene.budget_stop.restrict({"t0000": True}) == {"t0000": True}
    assert scene.controller.num_left == 20


def test_the_clock_is_looked_at_once_a_second(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    num_looks = 0
    for _ in range(30):
        if scene.budget_stop.is_due:
            scene.budget_stop.enforce()
            num_looks += 1
        scene.clock.now_s += 0.125
    assert num_looks == 4
