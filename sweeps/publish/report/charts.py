"""The report's plots as Vega-Lite specifications, each with the words that stand in for it.

Text of data, labels and models is only ever a value in them: never the name of a field, and never
part of an expression.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.publish.load_run import SweepRun
from sweeps.publish.report.importance import compute_importances, list_varied, make_point, top_frac
from sweeps.publish.tables import Table, show_value
from trainables.metrics.scales import format_score

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
"""Names the language; nothing is loaded from there."""
LOG_RATIO = 4.0
"""Numbers that differ by more than this factor have a log axis."""
STATUSES = {
    "completed": ("circle", "var(--blue)"),
    "stopped": ("square", "var(--orange)"),
    "failed": ("cross", "var(--red)"),
    "running": ("triangle-up", "var(--green)"),
    "moved": ("triangle-right", "var(--ink-2)"),
}
"""Shape and colour of each status; no plot tells it by the colour alone. A trial has moved where it
went on in another slot."""
MIN_SLICED = 3
"""Scores at one rung that make a plot."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One plot of the page."""

    key: str
    """Id of its element."""
    title: str
    says: str
    """What it shows, in words; a screen reader has it in place of the plot."""
    spec: Mapping[str, Any]
    """Vega-Lite, or Vega of the parallel coordinates."""
    table: Table | None = None
    """The numbers, where no other table of the page has them."""
    min_width: int = 0
    """Pixels below which it scrolls instead of shrinking."""
    height: int = 260
    """Pixels that are kept for it while it is drawn."""
    axes: Sequence[Mapping[str, Any]] = field(default=())
    """Of parallel coordinates: what can be filtered by."""


def plot_curves(sweep: SweepRun) -> Plot | None:
    """The metric of each trial at each rung."""
    metric, winner = sweep.metric, winning_trial(sweep)
    values: list[dict[str, Any]] = []
    for trial in sweep.trials:
        own = trial.values(metric)
        for step, value in own.items():
            if math.isfinite(value):
                values.append(
                    {
                        "trial": trial.trial_id,
                        "step": step,
                        "score": value,
                        "shown": format_score(metric.name, value, own.values()),
                        "status": trial.status or "running",
                        "role": "winner" if trial.trial_id == winner else "other",
                        "last": step == trial.num_steps,
                    }
                )
    if not values:
        return None
    steps = sorted({value["step"] for value in values})
    x: dict[str, Any] = {
        "field": "step",
        "type": "quantitative",
        "title": "optimizer steps",
        "scale": scale_of(steps),
        "axis": {"values": list(sweep.config.rungs), "format": "d", "labelOverlap": True},
    }
    y = {"field": "score", "type": "quantitative", "title": metric.name, "scale": {"zero": False}}
    common: dict[str, Any] = {
        "x": x,
        "y": y,
        "tooltip": tooltip("trial", "step", shown=metric.name, status="ended"),
    }
    lines: list[dict[str, Any]] = [
        {
            "transform": [{"filter": {"field": "role", "equal": role}}],
            "mark": {"type": "line", "strokeWidth": width, "stroke": colour},
            "encoding": {**common, "detail": {"field": "trial"}, "order": {"field": "step"}},
        }
        for role, width, colour in (
            ("other", 1.3, "var(--faint)"),
            ("winner", 3.5, "var(--accent)"),
        )
        if any(value["role"] == role for value in values)  # Vega warns of a layer without data
    ]
    ends: dict[str, Any] = {
        "transform": [{"filter": "datum.last"}],
        "mark": {"type": "point", "filled": True, "size": 55, "opacity": 0.95},
        "encoding": {**common, **status_encoding(values)},
    }
    num = len({value["trial"] for value in values})
    return Plot(
        key="curves",
        title="Learning curves by rung",
        says=(
            f"{metric.name} of {num} trials at the rungs {', '.join(map(str, steps))}. A trial's "
            "line ends where it ended; the shape there says how."
            + (f" The heavy line is {winner}." if winner else "")
        ),
        spec=make_spec(values, height=300, layer=[*lines, ends]),
        height=360,
    )


def plot_slices(sweep: SweepRun) -> list[Plot]:
    """The scores at one rung against each hyperparameter that varies."""
    rung = sliced_rung(sweep)
    if rung is None:
        return []
    scores, metric = sweep.scores_at(rung), sweep.metric
    shown = [trial for trial in sweep.trials if trial.trial_id in scores]
    winner, plots = winning_trial(sweep), []
    for number, (name, values) in enumerate(list_varied(shown).items()):
        rows: list[dict[str, Any]] = [
            {
                "trial": trial.trial_id,
                "x": _plain(make_point(trial.params)[name]),
                "score": scores[trial.trial_id],
                "shown": format_score(metric.name, scores[trial.trial_id], scores.values()),
                "role": "winner" if trial.trial_id == winner else "other",
            }
            for trial in shown
        ]
        is_rate = name == "learning_rate"
        x: dict[str, Any] = {"field": "x", "title": name}
        x |= {"type": "quantitative" if is_rate else "ordinal"}
        if is_rate:
            x |= {"scale": {"type": "log", "nice": False, "padding": 8}}
            x |= {"axis": {"format": ".0e", "labelOverlap": True, "tickCount": 4}}
        else:
            x |= {"sort": list(map(_plain, values)), "axis": {"labelAngle": 0, "labelLimit": 110}}
        y = {"field": "score", "type": "quantitative", "scale": {"zero": False}}
        encoding = {
            "x": x,
            "y": {**y, "title": metric.name},
            "tooltip": tooltip("trial", x=name, shown=metric.name),
            "fill": {"condition": _if_winner("var(--accent)"), "value": "var(--blue)"},
            "shape": {"condition": _if_winner("diamond"), "value": "circle"},
            "size": {"condition": _if_winner(150), "value": 45},
        }
        mark = {"type": "point", "filled": True, "opacity": 0.75}
        best = max(rows, key=lambda row: row["score"] * (1 if metric.mode == "max" else -1))
        plots.append(
            Plot(
                key=f"slice{number}",
                title=name,
                says=f"The best {metric.name} is at {name} {_round(best['x'])}.",
                spec=make_spec(rows, height=190, mark=mark, encoding=encoding),
                height=240,
            )
        )
    return plots


def plot_importance(sweep: SweepRun) -> Plot | None:
    """PED-ANOVA's importance of each hyperparameter, at every rung with enough trials."""
    by_rung: dict[int, dict[str, float]] = {}
    counts = {}
    for rung in sweep.config.rungs:
        scores = sweep.scores_at(rung)
        found = compute_importances(sweep.trials, scores, sweep.metric, sweep.config.space)
        if found:
            by_rung[rung], counts[rung] = found, len(scores)
    if not by_rung:
        return None
    values: list[dict[str, Any]] = [
        {"name": name, "rung": f"step {rung}", "share": share, "shown": f"{share:.0%}"}
        for rung, found in by_rung.items()
        for name, share in found.items()
    ]
    names = list(next(reversed(by_rung.values())))
    names += [
        name for name in dict.fromkeys(value["name"] for value in values) if name not in names
    ]
    order = [f"step {rung}" for rung in by_rung]
    y = {"field": "name", "type": "nominal", "sort": names, "title": None}
    encoding = {
        "y": {**y, "axis": {"labelLimit": 130}},
        "yOffset": {"field": "rung", "sort": order},
        "x": {
            "field": "share",
            "type": "quantitative",
            "axis": {"format": ".0%"},
            "title": "share of importance",
        },
        "fill": {
            "field": "rung",
            "sort": order,
            "scale": {"range": ["var(--s1)", "var(--s3)", "var(--s5)", "var(--s2)", "var(--s4)"]},
            "legend": {"title": "scores at"},
        },
        "tooltip": tooltip("name", "rung", shown="importance"),
    }
    rows = [
        [name, *(f"{found[name]:.0%}" if name in found else "" for found in by_rung.values())]
        for name in names
    ]
    told = [
        f"at step {rung} the best {math.ceil(top_frac(count) * count)} of {count} trials"
        for rung, count in counts.items()
    ]
    return Plot(
        key="importance",
        title="Importance of hyperparameters (Optuna's PED-ANOVA)",
        says=(
            "How much each hyperparameter decides whether a trial is among the best at a rung: "
            f"{'; '.join(told)}. Each rung is computed from its own scores only; later rungs hold "
            "only the trials that ASHA let through."
        ),
        spec=make_spec(
            values,
            height=len(names) * 34,
            mark={"type": "bar"},
            encoding=encoding,
        ),
        table=Table("Importance by rung", ("hyperparameter", *order), rows),
        height=50 + len(names) * 34,
    )


def plot_finals(sweep: SweepRun) -> Plot | None:
    """The seeds of each finalist, their mean and its standard deviation."""
    verdict = sweep.finals
    if verdict is None or not any(finalist.values for finalist in verdict.finalists):
        return None
    name = sweep.metric.name
    every = [value for finalist in verdict.finalists for value in finalist.values]
    seeds, means = [], []
    for finalist in verdict.finalists:
        for run in finalist.completed:
            value = run.reports[-1].metrics[name]
            shown = format_score(name, value, every)
            seed = {"finalist": finalist.trial_id, "score": value, "shown": shown}
            seeds.append({**seed, "seed": f"seed {run.seed}"})
        if finalist.mean is not None:
            spread = finalist.deviation or 0.0
            shown = format_score(name, finalist.mean, every)
            mean = {"finalist": finalist.trial_id, "score": finalist.mean, "shown": shown}
            ends = {"low": finalist.mean - spread, "high": finalist.mean + spread}
            means.append({**mean, **ends, "seed": "mean"})
    order = [finalist.trial_id for finalist in verdict.finalists]
    y = {"field": "finalist", "type": "nominal", "sort": order, "title": None}
    x = {"field": "score", "type": "quantitative", "title": name, "scale": {"zero": False}}
    x["axis"] = {"tickCount": 6}
    tip = tooltip("finalist", "seed", shown=name)
    layers = [
        {
            "data": {"values": means},
            "mark": {"type": "rule", "strokeWidth": 6, "opacity": 0.35, "stroke": "var(--blue)"},
            "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
        },
        {
            "data": {"values": means},
            "mark": {"type": "tick", "thickness": 3, "size": 22, "color": "var(--accent)"},
            "encoding": {"y": y, "x": x, "tooltip": tip},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 55, "fill": "var(--blue)"},
            "encoding": {"y": y, "x": x, "tooltip": tip},
        },
    ]
    return Plot(
        key="finals",
        title="Finals: each configuration trained again with fresh seeds",
        says=(
            f"{name} on validation of each finalist's seeds (dots), their mean (tall tick) and one "
            "standard deviation to both sides (bar). The table below has the numbers."
        ),
        spec=make_spec(seeds, height=38 * len(order), layer=layers),
        height=50 + 38 * len(order),
    )


def winning_trial(sweep: SweepRun) -> str | None:
    """The search's trial that has the winning configuration, once that is known."""
    return sweep.outcome.winner.trial_id if sweep.outcome else None


def sliced_rung(sweep: SweepRun) -> int | None:
    """The highest rung with enough scores to show."""
    rungs = [rung for rung in sweep.config.rungs if len(sweep.scores_at(rung)) >= MIN_SLICED]
    return rungs[-1] if rungs else None


def status_encoding(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shape and colour by the field "status"; the legend has those that there are."""
    present = {value["status"] for value in values}
    names = [name for name in STATUSES if name in present]
    shapes, colours = zip(*(STATUSES[name] for name in names), strict=True)
    legend = {"title": None, "orient": "top", "symbolOpacity": 1}
    of = {"field": "status", "type": "nominal", "legend": legend}
    return {
        "shape": {**of, "scale": {"domain": names, "range": shapes}},
        "fill": {**of, "scale": {"domain": names, "range": colours}},
    }


def tooltip(*same: str, **titled: str) -> list[dict[str, str]]:
    """Fields that are shown at a mark; those that have another name than their field are named."""
    return [
        {"field": name, "title": title} for name, title in ({s: s for s in same} | titled).items()
    ]


def scale_of(values: Sequence[float]) -> dict[str, Any]:
    """A log scale where positive values lie far apart."""
    is_far = min(values) > 0 and max(values) > LOG_RATIO * min(values)
    scale = {"type": "log"} if is_far else {"type": "linear", "zero": False}
    return {**scale, "nice": False, "padding": 10}


def _if_winner(value: object) -> dict[str, object]:
    return {"test": "datum.role === 'winner'", "value": value}


def _plain(value: object) -> object:
    """A number, or the text that stands for a value."""
    return value if isinstance(value, float) else show_value(value)


def _round(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def make_spec(values: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A specification as wide as its place."""
    return {
        "$schema": SCHEMA,
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": list(values)},
        **more,
    }
