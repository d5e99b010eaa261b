"""The grid of configurations that a table holds. Standard library and Hyperparameters only."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainables.config import Hyperparameters, require


@dataclass(frozen=True, kw_only=True, order=True)
class Configuration:
    """One point of the grid, in the words of search_spaces.lora."""

    learning_rate: float
    lora_rank: int
    alpha_over_rank: float
    lora_dropout: float

    @property
    def params(self) -> Hyperparameters:
        return Hyperparameters(
            learning_rate=self.learning_rate,
            lora_rank=self.lora_rank,
            lora_alpha=self.alpha_over_rank * self.lora_rank,
            lora_dropout=self.lora_dropout,
        )

    @classmethod
    def of(cls, params: Hyperparameters) -> "Configuration":
        """The point that a trial's hyperparameters stand for."""
        return cls(
            learning_rate=params.learning_rate,
            lora_rank=params.lora_rank,
            alpha_over_rank=params.lora_alpha / params.lora_rank,
            lora_dropout=params.lora_dropout,
        )


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every combination of these values."""

    learning_rates: tuple[float, ...]
    lora_ranks: tuple[int, ...]
    alphas_over_rank: tuple[float, ...]
    lora_dropouts: tuple[float, ...]

    def list_configurations(self) -> list[Configuration]:
        return [
            Configuration(
                learning_rate=rate, lora_rank=rank, alpha_over_rank=alpha, lora_dropout=dropout
            )
            for rate, rank, alpha, dropout in itertools.product(
                self.learning_rates, self.lora_ranks, self.alphas_over_rank, self.lora_dropouts
            )
        ]


def list_log_levels(bounds: tuple[float, float], num_levels: int) -> tuple[float, ...]:
    """Values spaced evenly on a log scale, both bounds among them, of four digits each.

    Raises:
        ValueError: num_levels is less than 2.
    """
    require(num_levels >= 2, "num_levels", num_levels, "at least 2")
    low, high = map(math.log, bounds)
    steps = (low + (high - low) * index / (num_levels - 1) for index in range(num_levels))
    return tuple(float(f"{math.exp(value):.4g}") for value in steps)


def find_nearest(wanted: Configuration, known: Sequence[Configuration]) -> Configuration:
    """The known configuration that is closest.

    Of a full grid, it is the one with the same choices and the nearest learning rate; where a
    combination is missing, the one that differs least stands for it.
    """
    return min(known, key=lambda one: (_measure_octaves(wanted, one), one))


def _measure_octaves(one: Configuration, other: Configuration) -> float:
    """How far two configurations lie apart: factors of two, and 0.2 of dropout, count alike."""
    return (
        abs(math.log2(one.learning_rate / other.learning_rate))
        + abs(math.log2(one.lora_rank / other.lora_rank))
        + abs(math.log2(one.alpha_over_rank / other.alpha_over_rank))
        + 5 * abs(one.lora_dropout - other.lora_dropout)
    )
