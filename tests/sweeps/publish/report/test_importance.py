"""Importance names what decides, in both directions, and says nothing of too few trials."""

import math
import random
from dataclasses import replace

import pytest

from sweeps.publish.report.importance import (
    MIN_TRIALS,
    compute_importances,
    list_varied,
    make_point,
)
from tests.sweeps.invented_sweep import LOSS, METRIC, PARAMS, SPACE, make_history
from trainables.config import Metric


def make_trials(num_trials: int) -> dict[str, float]:
    draw = random.Random(0)
    return {f"t{n:04d}": draw.uniform(-4, -2) for n in range(num_trials)}


@pytest.mark.parametrize("metric", [METRIC, LOSS])
def test_what_decides_the_score_is_the_most_important(metric: Metric) -> None:
    rates = make_trials(60)
    draw = random.Random(1)
    trials = [
        make_history(
            n,
            "completed",
            (9, 0.0),
            params=replace(
                PARAMS, learning_rate=10**rate, lora_rank=draw.choice((4, 8, 16)), lora_alpha=16.0
            ),
        )
        for n, rate in enumerate(rates.values())
    ]
    sign = 1 if metric.mode == "max" else -1
    scores = {name: -sign * abs(rate + 2.2) for name, rate in rates.items()}
    found = compute_importances(trials, scores, metric, SPACE)
    assert next(iter(found)) == "learning_rate" and found["learning_rate"] > 0.6
    assert set(found) == {"learning_rate", "lora_rank", "alpha_over_rank"}
    assert math.isclose(sum(found.values()), 1.0)


def test_few_trials_and_values_outside_the_space_are_taken_as_they_are() -> None:
    trials = [
        make_history(n, "completed", (9, 1.0), params=replace(PARAMS, lora_rank=8 + 5 * (n % 2)))
        for n in range(MIN_TRIALS)
    ]
    scores = {trial.trial_id: float(trial.number) for trial in trials}
    assert set(list_varied(trials)) == {"lora_rank", "alpha_over_rank"}
    assert set(compute_importances(trials, scores, METRIC, SPACE)) == set(list_varied(trials))
    del scores["t0000"]
    assert compute_importances(trials, scores, METRIC, SPACE) == {}


def test_an_alpha_that_a_ratio_was_multiplied_into_is_that_ratio_again() -> None:
    assert 0.1 * 6 / 6 != 0.1
    for ratio in (0.1, 0.7, 2.0):
        for rank in range(1, 65):
            params = replace(PARAMS, lora_rank=rank, lora_alpha=ratio * rank)
            assert make_point(params)["alpha_over_rank"] == ratio
