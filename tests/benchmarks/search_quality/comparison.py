"""Methods beside each other: regret against GPU-hours, as data and as Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.search_quality.intervals import (
    Floats,
    Interval,
    estimate_difference,
    estimate_mean,
)

SHOWN_FRACS = (0.05, 0.1, 0.15, 0.2, 0.25)
"""Budgets of the Markdown table, as shares of training every configuration."""
CLOSE_POINTS = 0.5
"""Regret below which a search has as good as found the best."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One method at one concurrency; every list has a value a budget."""

    method: str
    concurrency: int
    regret: list[Interval]
    """Over searches: how far the choice's mean score lies behind the table's best."""
    behind: list[Interval]
    """How much more regret it has than the reference method at equal GPU-hours."""
    close_frac: list[float]
    """Share of searches whose regret is 0.5 at most."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a replay gives."""

    command: str
    commit: str | None
    table: str
    gpu: str
    """That the table's costs were measured on."""
    metric: str
    num_configurations: int
    learning_rates: tuple[float, float]
    """Lowest and highest in the part of the table that was searched."""
    best: dict[str, Any]
    """The best configuration, with its mean score over the table's seeds."""
    random_regret: float
    """Regret of a configuration drawn at random."""
    full_gpu_hours: float
    """Training every configuration once, with the rungs of this project's search."""
    num_searches: int
    reference: str
    """The method that the others are compared with."""
    budget_fracs: list[float]
    """GPU-hours spent, as shares of full_gpu_hours."""
    curves: list[Curve]

    def list_curves(self, concurrency: int) -> list[Curve]:
        """The curves of one concurrency, best first at the largest budget that is shown."""
        index = self._find_shown_indices()[-1]
        curves = [curve for curve in self.curves if curve.concurrency == concurrency]
        return sorted(curves, key=lambda curve: curve.regret[index].mean)

    @property
    def concurrencies(self) -> list[int]:
        return sorted({curve.concurrency for curve in self.curves})

    def write_markdown(self) -> str:
        """A table of regret and one of differences for each concurrency."""
        best = ", ".join(f"{name} {value:g}" for name, value in self.best.items())
        parts = [
            f"Regret in points of {self.metric} against GPU-hours: mean of {self.num_searches} "
            "searches [95% bootstrap interval]. "
            f"100% is training each of {self.num_configurations} configurations once: "
            f"{self.full_gpu_hours:.3f} GPU-hours ({self.gpu}). Best: {best}. "
            f"A configuration drawn at random: {self.random_regret:.2f}."
        ]
        for concurrency in self.concurrencies:
            parts.append(f"**{concurrency} trials at once**")
            parts.append(self._write_table(concurrency))
        return "\n\n".join(parts) + "\n"

    def _write_table(self, concurrency: int) -> str:
        indices = self._find_shown_indices()
        shares = [f"{self.budget_fracs[index]:.0%}" for index in indices]
        last = f"behind {self.reference} at {shares[-1]}"
        close = f"within {CLOSE_POINTS:g} at {shares[-1]}"
        rows = [["method", *shares, last, close]]
        for curve in self.list_curves(concurrency):
            is_reference = curve.method == self.reference
            rows.append(
                [
                    curve.method,
                    *(str(curve.regret[index]) for index in indices),
                    "" if is_reference else str(curve.behind[indices[-1]]),
                    f"{curve.close_frac[indices[-1]]:.0%}",
                ]
            )
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])

    def _find_shown_indices(self) -> list[int]:
        """Where the budgets that are shown stand; at least the last."""
        last = self.budget_fracs[-1]
        wanted = [frac for frac in SHOWN_FRACS if frac <= last + 1e-9] or [last]
        return [
            min(range(len(self.budget_fracs)), key=lambda i: abs(self.budget_fracs[i] - frac))
            for frac in wanted
        ]


def make_curves(regrets: Mapping[tuple[str, int], Floats], reference: str) -> list[Curve]:
    """The curves of (searches, budgets) regrets by method and concurrency."""
    return [
        Curve(
            method=method,
            concurrency=concurrency,
            regret=estimate_mean(values_SB),
            behind=estimate_difference(regrets[reference, concurrency], values_SB),
            close_frac=(values_SB <= CLOSE_POINTS).mean(axis=0).tolist(),
        )
        for (method, concurrency), values_SB in regrets.items()
    ]
