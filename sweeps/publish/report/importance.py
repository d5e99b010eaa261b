"""Which hyperparameters decide the score, by Optuna's PED-ANOVA, at each rung on its own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from search_spaces.lora import LoraSpace, Point
from sweeps.records.trial_record import TrialRecord
from trainables.config import Hyperparameters, Metric

NUM_TOP, TOP_FRAC = 5, 0.1
"""Importance for being among the best tenth, but at least five, below which it is unstable
(documentation of PedAnovaImportanceEvaluator)."""
MIN_TRIALS = 2 * NUM_TOP


def make_point(params: Hyperparameters) -> Point:
    """Hyperparameters in the search space's words."""
    return {
        "learning_rate": params.learning_rate,
        "lora_rank": params.lora_rank,
        "alpha_over_rank": round(params.lora_alpha / params.lora_rank, 12),  # 0.1 * 6 / 6
        "lora_dropout": params.lora_dropout,
        "use_rslora": params.use_rslora,
        "target_modules": ",".join(params.target_modules),
    }


def list_varied(trials: Sequence[TrialRecord]) -> dict[str, list[Any]]:
    """The values that the trials have of each hyperparameter with more than one, ascending."""
    points = [make_point(trial.params) for trial in trials]
    values = {name: sorted({point[name] for point in points}) for name in (points or [{}])[0]}
    return {name: of_name for name, of_name in values.items() if len(of_name) > 1}


def compute_importances(
    trials: Sequence[TrialRecord],
    scores: Mapping[str, float],
    metric: Metric,
    space: LoraSpace,
) -> dict[str, float]:
    """The share of each hyperparameter, largest first; {} of fewer than MIN_TRIALS scores.

    The study is in memory and holds only scores of one rung: scores of different rungs are those of
    adapters at different points of their schedules, so that together they would rank how long a
    trial was trained.
    """
    scored = [trial for trial in trials if trial.trial_id in scores]
    varied = list_varied(scored)
    if len(scored) < MIN_TRIALS or not varied:
        return {}
    from optuna import importance  # loads scikit-learn where it is installed

    distributions = {name: _make_distribution(name, v, space) for name, v in varied.items()}
    study = optuna.create_study(direction=metric.direction)
    for trial in scored:
        point = make_point(trial.params)
        study.add_trial(
            optuna.trial.create_trial(
                params={name: point[name] for name in varied},
                distributions=distributions,
                value=scores[trial.trial_id],
            )
        )
    evaluator = importance.PedAnovaImportanceEvaluator(target_quantile=find_top_frac(len(scored)))
    importances = importance.get_param_importances(study, evaluator=evaluator)
    return {name: share for name, share in importances.items() if math.isfinite(share)}


def find_top_frac(num_trials: int) -> float:
    """Which share of so many trials counts as the best."""
    return max(TOP_FRAC, NUM_TOP / num_trials)


def _make_distribution(name: str, values: Sequence[Any], space: LoraSpace) -> BaseDistribution:
    """As the space has it, widened by what was asked for beyond it."""
    if name != "learning_rate":
        choices = space.choices[name]
        if name == "alpha_over_rank":  # as make_point has it
            choices = tuple(round(float(ratio), 12) for ratio in choices)
        return CategoricalDistribution(sorted({*choices, *values}))
    low, high = space.learning_rates
    return FloatDistribution(min(low, values[0]), max(high, values[-1]), log=True)
