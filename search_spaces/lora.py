"""The LoRA search space: what Optuna may choose for a trial, and how it is written down."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

Point = dict[str, float | int | bool | str]
"""A point, or a part of one, in Optuna's words: learning_rate, lora_rank, alpha_over_rank, ..."""

WHOLE_NAMES = frozenset(
    {"learning_rate", "lora_rank", "alpha_over_rank", "lora_dropout", "use_rslora"}
)
"""What a whole point names; one that names no target_modules has the space's first set of them."""
POINT_NAMES = WHOLE_NAMES | {"target_modules"}
"""What a point may name."""


@dataclass(frozen=True, kw_only=True)
class LoraSpace:
    """Bounds of a sweep. A choice with one value is fixed.

    The defaults follow the published LoRA sweeps: the learning rate decides most, the best one
    lies between 1e-4 and 1e-3 for Qwen models of 4 to 9 B parameters and rises for smaller
    ones; alpha is chosen relative to the rank, because the two are nearly redundant otherwise.
    """

    learning_rates: tuple[float, float] = (3e-5, 1e-3)
    """Lowest and highest peak learning rate; chosen on a log scale."""
    lora_ranks: tuple[int, ...] = (8, 16, 32, 64)
    """Ranks to choose from."""
    alphas_over_rank: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Values of lora_alpha / lora_rank to choose from."""
    lora_dropouts: tuple[float, ...] = (0.0, 0.05, 0.1)
    """Dropout probabilities to choose from."""
    rsloras: tuple[bool, ...] = (False,)
    """Whether to scale by alpha / sqrt(rank) (rsLoRA); give both to let the sweep choose."""
    target_modules: tuple[str, ...] = ("all",)
    """Sets of linear layers to choose from: each is all, attention (what mixes tokens), mlp, or
    names that commas join. "all attention q_proj,v_proj" are three."""

    def __post_init__(self) -> None:
        low, high = self.learning_rates
        if not (0 < low <= high and math.isfinite(high)):
            raise ValueError(
                f"learning_rates is {self.learning_rates}; it must be a lowest and a highest "
                "value above 0"
            )
        _require(self.lora_ranks, "lora_ranks", "whole numbers of 1 or more", lambda r: r >= 1)
        _require(self.alphas_over_rank, "alphas_over_rank", "above 0", lambda a: 0 < a < math.inf)
        _require(self.lora_dropouts, "lora_dropouts", "in [0, 1)", lambda d: 0 <= d < 1)
        _require(self.rsloras, "rsloras", "True or False", lambda _: True)
        rule = "a name, or several that commas join without blanks"
        is_set = re.compile(r"[^\s,]+(,[^\s,]+)*").fullmatch
        _require(
            self.target_modules,
            "target_modules",
            rule,
            lambda names: isinstance(names, str) and bool(is_set(names)),
        )

    @property
    def choices(self) -> dict[str, tuple[float | str, ...]]:
        """The values to choose from, by name; the learning rate has bounds instead."""
        return {
            "lora_rank": self.lora_ranks,
            "alpha_over_rank": self.alphas_over_rank,
            "lora_dropout": self.lora_dropouts,
            "use_rslora": self.rsloras,
            "target_modules": self.target_modules,
        }

    @property
    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """What `suggest` asks Optuna for, by name."""
        rate = optuna.distributions.FloatDistribution(*self.learning_rates, log=True)
        choices = {
            name: optuna.distributions.CategoricalDistribution(values)
            for name, values in self.choices.items()
        }
        return {"learning_rate": rate, **choices}

    def find_point(self, made: Mapping[str, Any]) -> Point:
        """The point of which `make_hyperparameters` made these, by name."""
        rank, alpha = made["lora_rank"], made["lora_alpha"]
        exact = (over for over in self.alphas_over_rank if over * rank == alpha)
        point: Point = {name: made[name] for name in WHOLE_NAMES & made.keys()}
        point["alpha_over_rank"] = next(exact, alpha / rank)
        point["target_modules"] = ",".join(made["target_modules"])
        return point

    def split_inside(self, point: Point) -> tuple[Point, Point]:
        """What of a point lies inside the bounds, and what outside."""
        outside = {n: v for n, v in point.items() if not self.contains({n: v})}
        return {n: v for n, v in point.items() if n not in outside}, outside

    def suggest(self, trial: optuna.Trial, outside: Point | None = None) -> dict[str, Any]:
        """Asks Optuna for a point; returns the trial's hyperparameters by name.

        Args:
            outside: what lies outside the bounds, so that Optuna is not asked for it.
        """
        point: dict[str, Any] = dict(outside or {})
        if "learning_rate" not in point:
            rates = self.learning_rates
            point["learning_rate"] = trial.suggest_float("learning_rate", *rates, log=True)
        for name, choices in self.choices.items():
            if name not in point:
                point[name] = trial.suggest_categorical(name, choices)
        return make_hyperparameters(point)

    def contains(self, point: Point) -> bool:
        """Whether what a start point names lies inside the bounds; it may leave names out.

        Raises:
            KeyError: it names something else.
        """
        low, high = self.learning_rates
        return all(
            low <= float(value) <= high if name == "learning_rate" else value in self.choices[name]
            for name, value in point.items()
        )

    def __str__(self) -> str:
        low, high = self.learning_rates
        rows = [f"learning_rate in [{low:g}, {high:g}], log scale"]
        for name, values in self.choices.items():
            shown = "lora_alpha / lora_rank" if name == "alpha_over_rank" else name
            comma = " | " if name == "target_modules" else ", "
            rows.append(f"{shown} in {{{comma.join(map(str, values))}}}")
        return "\n".join(rows)


def make_hyperparameters(point: Point) -> dict[str, Any]:
    """A whole point as a trial has it: alpha in place of its ratio to the rank, names apart."""
    made: dict[str, Any] = {n: value for n, value in point.items() if n != "alpha_over_rank"}
    made["lora_alpha"] = float(point["alpha_over_rank"]) * float(point["lora_rank"])
    if "target_modules" in point:
        made["target_modules"] = tuple(str(point["target_modules"]).split(","))
    return made


def _require(values: Sequence[Any], name: str, rule: str, holds: Callable[[Any], bool]) -> None:
    if not values or not all(holds(value) for value in values):
        raise ValueError(f"{name} is {values}; it must be one or more values, each {rule}")
