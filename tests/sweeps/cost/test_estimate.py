"""The estimate: what it is made of, the band around it, and what was measured beside it."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.cost.allocation import Allocation
from sweeps.cost.estimate import (
    CLOSING_S,
    ROUND_S,
    CostModel,
    make_probe_params,
)
from sweeps.search.asha import Asha
from tests.examples import max_examples
from tests.sweeps.invented_sweep import METRIC, SPACE, make_config
from tests.sweeps.small_costs import make_capacity, make_model, make_throughput
from trainables import tiny
from trainables.models.model_facts import read_model_facts
from trainables.packing.sizing.throughput import Throughput

MODEL = read_model_facts(str(tiny.MODEL_DIR))
THROUGHPUTS = st.builds(
    make_throughput,
    step_fixed_s=st.floats(0.01, 1.0),
    step_trial_s=st.floats(0.0, 1.0),
    capture_s=st.floats(0.0, 0.2),
    batch_fixed_s=st.floats(0.0, 1.0),
    row_s=st.floats(0.0, 0.1),
)


MEASURED = Path(__file__).parents[2] / "benchmarks/h200-qwen3-18m-sweeps.json"


def measured_sweeps() -> list[dict[str, Any]]:
    """Whole sweeps of one H200 whose throughput was written down."""
    sweeps = json.loads(MEASURED.read_text(encoding="utf-8"))["sweeps"]
    return [sweep for sweep in sweeps if "throughput" in sweep]


def test_whole_sweeps_were_measured() -> None:
    assert len(measured_sweeps()) >= 4


@pytest.mark.parametrize("sweep", measured_sweeps(), ids=lambda sweep: sweep["command"][60:])
def test_sweeps_of_one_h200_took_what_is_predicted_of_them(sweep: dict[str, Any]) -> None:
    rungs = tuple(map(int, sweep["reached"]))
    num_trials = sweep["reached"][str(rungs[0])]
    has_finals = "--no-finals" not in sweep["command"]
    model = make_model(
        num_trials=num_trials,
        max_steps=rungs[-1],
        num_rungs=len(rungs),
        low_rung_eval_rows=200,
        eval_rows=818,
        num_validation=818,
        num_test=819,
        concurrency=-(-num_trials // 3),
        final_concurrency=13,
        finals=has_finals,
    )
    assert model.config.rungs == rungs
    throughput = Throughput(**sweep["throughput"])
    estimate = model.estimate(throughput, elapsed_s=sweep["elapsed_s"], head_start_s=60.0)
    assert sweep["wall_s"] == pytest.approx(estimate.wall_s, rel=0.35)
    if rungs[0] > 1:  # after one step scores are equal, and all go on
        assert sweep["search_steps"] == pytest.approx(num_trials * model.predict_steps(0), rel=0.35)


@max_examples(50)
@given(throughput=THROUGHPUTS, num_trials=st.integers(4, 60), num_packs=st.integers(1, 4))
def test_more_trials_take_longer_and_more_packs_do_not(
    throughput: Throughput, num_trials: int, num_packs: int
) -> None:
    few = make_model(num_trials=num_trials)
    many = make_model(num_trials=2 * num_trials)
    assert many.predict_search_s(throughput) > few.predict_search_s(throughput)
    spread = make_model(num_trials=num_trials, num_packs=num_packs, concurrency=4 * num_packs)
    if spread.allocation.concurrency <= num_trials:
        assert spread.predict_search_s(throughput) <= few.predict_search_s(throughput) + 1e-9


def test_trials_that_begin_together_take_as_long_as_one_that_reaches_the_end() -> None:
    model = make_model(num_trials=4, num_validation=0)
    assert model.predict_search_s(make_throughput()) == pytest.approx(90 * 1.0 + 3 * ROUND_S)


def test_a_search_without_halving_trains_every_trial_to_the_end() -> None:
    model = make_model(num_trials=8, num_rungs=1, num_validation=0)
    assert model.predict_steps(0) == 90
    per_trial = make_throughput(step_fixed_s=0.0, step_trial_s=1.0)
    rest_s = model.predict_search_s(make_throughput(step_fixed_s=0.0))
    assert model.predict_search_s(per_trial) - rest_s == pytest.approx(8 * 90)


def test_a_trial_is_expected_to_make_fewer_steps_the_less_it_has_passed() -> None:
    model = make_model(reduction_factor=7)  # a fifth goes on
    assert model.config.rungs == (2, 13, 90)
    assert model.predict_steps(0) == pytest.approx(2 + 11 / 5 + 77 / 25)
    assert model.predict_steps(2) == pytest.approx(11 + 77 / 5)
    assert model.predict_steps(90) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_about_as_many_trials_reach_a_rung_as_in_a_search_that_learns(seed: int) -> None:
    """Later trials are the best of eight random ones, as on SAMSum; cohorts come of eight."""
    draw = random.Random(seed)
    rungs = (1, 3, 9, 27)
    asha = Asha(rungs, 3, METRIC)
    values = [max(draw.random() for _ in range(1 if n < 22 else 8)) for n in range(64)]
    reached = dict.fromkeys(rungs, 0)
    for first in range(0, 64, 8):
        cohort = {f"t{n}": values[n] for n in range(first, first + 8)}
        for rung in rungs:
            reached[rung] += len(cohort)
            decided = asha.decide_who_continues(rung, cohort) if cohort else {}
            cohort = {name: value for name, value in cohort.items() if decided[name]}
    steps = sum(reached[r] * (r - before) for before, r in zip((0, *rungs), rungs, strict=False))
    expected = make_model(num_trials=64, max_steps=27, num_rungs=4)
    assert expected.config.rungs == rungs
    assert expected.predict_steps(0) * 64 == pytest.approx(steps, rel=0.35)


def test_the_band_holds_the_estimate_and_what_has_passed_counts_in_all_of_it() -> None:
    throughput = make_throughput(step_trial_s=0.1, row_s=0.01)
    fresh = make_model().estimate(throughput)
    later = make_model().estimate(throughput, elapsed_s=50.0)
    assert fresh.wall_low_s < fresh.wall_s < fresh.wall_high_s
    for name in ("wall_s", "wall_low_s", "wall_high_s"):
        assert getattr(later, name) == pytest.approx(getattr(fresh, name) + 50)
    assert later.gpu_hours == pytest.approx(later.wall_s / 3600)


def test_processes_that_have_started_already_are_not_waited_for_again() -> None:
    model, throughput = make_model(), make_throughput()
    spared_s = model.estimate(throughput).wall_s
    spared_s -= model.estimate(throughput, head_start_s=1000.0).wall_s
    assert spared_s == pytest.approx(model.predict_start_s(4))


def test_what_earlier_processes_have_done_is_left_out() -> None:
    model, throughput = make_model(finals=True), make_throughput()
    assert model.estimate(throughput, search_left=0.0, finals_left=0.0).wall_s == pytest.approx(
        model.predict_test_s(throughput)
    )
    finals_s = model.predict_finals_s(throughput, 13)
    assert model.estimate(throughput, search_left=0.0).finals_s == pytest.approx(
        finals_s + model.predict_test_s(throughput)
    )


def test_finals_take_a_full_training_a_wave() -> None:
    throughput = make_throughput(step_trial_s=0.5)
    model = make_model(num_validation=0)
    one_s, two_s = (model.predict_finals_s(throughput, runs) for runs in (4, 8))
    assert one_s == pytest.approx(model.predict_start_s(4) + 90 * (1 + 4 * 0.5) + 3 * ROUND_S)
    assert 1.9 * one_s < two_s + model.predict_start_s(4) < 2.1 * one_s
    assert model.predict_finals_s(throughput, 0) == 0.0


def test_several_packs_share_the_test() -> None:
    throughput = make_throughput(row_s=0.1)
    three: dict[str, Any] = {"finals": True, "num_final_seeds": 2}
    alone = make_model(**three).predict_test_s(throughput)
    assert alone == pytest.approx(CLOSING_S + 0.1 * (50 + 4 * 100))
    shared = make_model(num_packs=4, **three).predict_test_s(throughput)
    assert shared == pytest.approx(CLOSING_S + 0.1 * (50 + 100))


def test_the_model_follows_the_config_and_the_hardware() -> None:
    allocation = Allocation(
        num_slots=8,
        most_trials=8,
        most_runs=7,
        num_cpus=32,
        num_gpus=2,
        slots_per_gpu=4,
        capacities=(make_capacity(12.5),) * 2,
    )
    config = make_config(
        num_trials=20,
        eval_rows=100,
        low_rung_eval_rows=30,
        finals=True,
        num_finalists=3,
        num_final_seeds=2,
    )
    model = CostModel(config, allocation, num_validation=60, num_test=70)
    assert model.eval_rows == (30, 30, 60)
    assert (model.num_packs, model.num_gpus) == (2, 2)
    alone = dataclasses.replace(allocation, capacities=())
    assert CostModel(config, alone, 60, 70).num_packs == 8
    throughput = make_throughput(row_s=0.1)
    assert model.estimate(throughput).memory_gib == 12.5
    assert model.predict_test_s(throughput) == pytest.approx(CLOSING_S + 0.1 * (60 + 2 * 70))
    assert model.predict_segment_s(throughput, 3, 2) == pytest.approx(
        6 * 1.0 + 2 * 60 * 0.1 + ROUND_S
    )


def test_the_throughput_is_measured_with_every_rank_and_dropout_of_the_space() -> None:
    sets = ("q_proj", "attention,mlp", "attention")
    config = make_config(space=dataclasses.replace(SPACE, target_modules=sets))
    params = make_probe_params(config, MODEL)
    pairs = {(one.lora_rank, one.lora_dropout) for one in params}
    assert pairs == {(r, d) for r in SPACE.lora_ranks for d in SPACE.lora_dropouts}
    assert [one.lora_rank for one in params[:3]] == list(SPACE.lora_ranks)
    assert {one.target_modules for one in params} == {("attention", "mlp")}, "the largest set"
    assert make_probe_params(make_config(estimate=False), MODEL) == []


def test_the_estimate_tells_time_gpu_hours_throughput_and_memory() -> None:
    throughput = make_throughput(step_fixed_s=0.4, step_trial_s=0.1)
    lines = make_model(memory_gib=12.5).estimate(throughput).describe()
    assert lines[0].startswith("estimate: about ") and "GPU-hours" in lines[0]
    assert "a step takes 500 ms with 1 trial, 800 ms with 4" in lines[1]
    assert lines[2] == "memory: 12.5 GiB a GPU at most, 4 slots"
    assert len(make_model().estimate(throughput).describe()) == 2


def test_predicted_and_actual_stand_side_by_side() -> None:
    estimate = make_model(memory_gib=12.5).estimate(make_throughput())
    line = estimate.compare({"wall_s": 60.0, "gpu_hours": 120 / 3600, "memory_gib": 12.25})
    assert line.startswith("time: 60 s, predicted ")
    assert "peak 12.2 GiB of 12.5 planned at most" in line
    assert "0.033 GPU-hours, predicted " in line
