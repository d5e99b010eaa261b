"""The LoRA space: what it refuses, what Optuna draws from it, and how a point becomes a trial."""

import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.lora import POINT_NAMES, WHOLE_NAMES, LoraSpace, Point, make_hyperparameters
from search_spaces.presets import SAMSUM, SAMSUM_TINY
from trainables.config import Hyperparameters

SPACES = (
    LoraSpace(),
    SAMSUM.space,
    SAMSUM_TINY.space,
    LoraSpace(
        learning_rates=(2e-4, 2e-4), lora_ranks=(8,), alphas_over_rank=(1.0,), lora_dropouts=(0.0,)
    ),
    LoraSpace(target_modules=("all", "attention", "q_proj,v_proj")),
)


@pytest.mark.parametrize("space", SPACES)
def test_every_drawn_point_is_inside_and_makes_hyperparameters(space: LoraSpace) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask()
        params = Hyperparameters(**space.suggest(trial))
        assert space.contains(trial.params)
        assert params.lora_alpha == trial.params["alpha_over_rank"] * params.lora_rank
        assert (params.learning_rate, params.lora_dropout, params.use_rslora) == (
            trial.params["learning_rate"],
            trial.params["lora_dropout"],
            trial.params["use_rslora"],
        )
        assert ",".join(params.target_modules) == trial.params["target_modules"]


def test_learning_rate_is_drawn_on_a_log_scale() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = LoraSpace(learning_rates=(1e-6, 1.0))
    rates = [space.suggest(study.ask())["learning_rate"] for _ in range(200)]
    assert 70 < sum(rate < 1e-3 for rate in rates) < 130


@given(rank=st.integers(1, 512), ratio=st.floats(0.1, 8.0))
def test_alpha_is_its_ratio_times_the_rank(rank: int, ratio: float) -> None:
    point: Point = {"lora_rank": rank, "alpha_over_rank": ratio, "use_rslora": False}
    assert make_hyperparameters(point) == {
        "lora_rank": rank,
        "use_rslora": False,
        "lora_alpha": ratio * rank,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 2.9e-5),
        ("learning_rate", 1.1e-3),
        ("lora_rank", 12),
        ("alpha_over_rank", 4.0),
        ("lora_dropout", 0.2),
        ("use_rslora", True),
        ("target_modules", "attention"),
    ],
)
def test_point_with_one_value_outside_is_outside(name: str, value: float | str) -> None:
    inside: Point = {
        "learning_rate": 1e-4,
        "lora_rank": 8,
        "alpha_over_rank": 1.0,
        "lora_dropout": 0.1,
        "use_rslora": False,
        "target_modules": "all",
    }
    assert LoraSpace().contains(inside)
    assert not LoraSpace().contains(inside | {name: value})
    assert LoraSpace().contains({name: inside[name]})
    assert not LoraSpace().contains({name: value})


def test_point_that_names_something_else_is_none() -> None:
    assert set(SAMSUM.start_points[0]) == WHOLE_NAMES < POINT_NAMES
    with pytest.raises(KeyError, match="rank"):
        LoraSpace().contains({"rank": 8})


def test_bounds_belong_to_the_space() -> None:
    edge: Point = dict(SAMSUM.start_points[1])
    for rate in LoraSpace().learning_rates:
        assert LoraSpace().contains(edge | {"learning_rate": rate})


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("learning_rates", (0.0, 1e-3), "above 0"),
        ("learning_rates", (1e-3, 1e-4), "lowest and a highest"),
        ("learning_rates", (math.nan, 1e-3), "above 0"),
        ("learning_rates", (1e-4, math.inf), "above 0"),
        ("lora_ranks", (), "one or more"),
        ("lora_ranks", (8, 0), "1 or more"),
        ("alphas_over_rank", (1.0, 0.0), "above 0"),
        ("alphas_over_rank", (math.nan,), "above 0"),
        ("alphas_over_rank", (math.inf,), "above 0"),
        ("lora_dropouts", (1.0,), r"in \[0, 1\)"),
        ("lora_dropouts", (-0.1,), r"in \[0, 1\)"),
        ("lora_dropouts", (math.nan,), r"in \[0, 1\)"),
        ("rsloras", (), "one or more"),
        ("target_modules", (), "one or more"),
        ("target_modules", ("q_proj,",), "commas"),
        ("target_modules", (("q_proj", "v_proj"),), "commas"),
        ("target_modules", ("all", "q_proj, v_proj"), "without blanks"),
    ],
)
def test_bad_bounds_are_refused_with_the_value_and_the_rule(
    name: str, value: tuple[float | str, ...], rule: str
) -> None:
    with pytest.raises(ValueError, match=rule) as caught:
        LoraSpace(**{name: value})  # type: ignore[arg-type]
    assert name in str(caught.value) and str(value) in str(caught.value)


@pytest.mark.parametrize(
    ("space", "points"),
    [(SAMSUM.space, SAMSUM.start_points), (SAMSUM_TINY.space, SAMSUM_TINY.start_points)],
)
def test_start_points_of_samsum_lie_inside_its_space(
    space: LoraSpace, points: tuple[Point, ...]
) -> None:
    assert points and all(space.contains(point) for point in points)


def test_space_in_words_names_every_bound() -> None:
    sets = ("mlp", "q_proj,v_proj")
    text = str(LoraSpace(lora_ranks=(4, 128), learning_rates=(3e-5, 2e-3), target_modules=sets))
    dropouts = "{0.0, 0.05, 0.1}"
    parts = ("[3e-05, 0.002]", "{4, 128}", "{0.5, 1.0, 2.0}", dropouts, "{False}")
    for part in (*parts, "{mlp | q_proj,v_proj}"):
        assert part in text
