"""The plots of one run as Vega-Lite specifications, each with the words that stand in for it."""

import math
from typing import Any

from sweeps.publish.load_run import SweepRun
from sweeps.publish.report import plots
from sweeps.publish.report.importance import (
    compute_importances,
    find_top_frac,
    list_varied,
    make_point,
)
from sweeps.publish.report.plots import Plot
from sweeps.publish.tables import Table, show_value
from trainables.metrics.registry import format_score

MIN_SLICED = 3
"""Scores at one rung that make a plot."""


def plot_curves(sweep: SweepRun) -> Plot | None:
    """The metric of each trial at each rung."""
    metric, winner = sweep.metric, find_winning_trial(sweep)
    values: list[dict[str, Any]] = []
    for trial in sweep.trials:
        by_step = trial.get_values(metric)
        status = trial.status or sweep.unended
        role = "winner" if trial.trial_id == winner else "other"
        of_trial = {"trial": trial.trial_id, "status": status, "role": role}
        for step, value in by_step.items():
            if math.isfinite(value):
                shown = format_score(metric.name, value, by_step.values())
                at = {"step": step, "score": value, "shown": shown, "last": step == trial.num_steps}
                values.append({**of_trial, **at})
    if not values:
        return None
    steps = sorted({value["step"] for value in values})
    axis = {"values": list(sweep.config.rungs), "format": "d", "labelOverlap": True}
    common = {
        "x": plots.encode_number(
            "step", "optimizer steps", scale=plots.choose_scale(steps), axis=axis
        ),
        "y": plots.encode_score(metric.name),
        "tooltip": plots.list_tooltip("trial", "step", shown=metric.name, status="ended"),
    }
    along = {**common, "detail": {"field": "trial"}, "order": {"field": "step"}}
    lines = [
        plots.draw(
            "line", along, where={"field": "role", "equal": role}, strokeWidth=width, stroke=colour
        )
        for role, width, colour in (
            ("other", 1.3, "var(--faint)"),
            ("winner", 3.5, "var(--accent)"),
        )
        if any(value["role"] == role for value in values)  # Vega warns of a layer without data
    ]
    ends = plots.draw_points(
        {**common, **plots.encode_status(values)}, where="datum.last", opacity=0.95
    )
    num = len({value["trial"] for value in values})
    return Plot(
        key="curves",
        title="Learning curves by rung",
        says=(
            f"{metric.name} of {num} trials at the rungs {', '.join(map(str, steps))}. A trial's "
            "line ends where it ended; the shape there says how."
            + (f" The heavy line is {winner}." if winner else "")
        ),
        spec=plots.make_spec(values, height=300, layer=[*lines, ends]),
        height=360,
    )


def plot_slices(sweep: SweepRun) -> list[Plot]:
    """The scores at one rung against each hyperparameter that varies."""
    rung = find_sliced_rung(sweep)
    if rung is None:
        return []
    scores, metric = sweep.get_scores(rung), sweep.metric
    shown = [trial for trial in sweep.trials if trial.trial_id in scores]
    winner, slices = find_winning_trial(sweep), []
    for number, (name, values) in enumerate(list_varied(shown).items()):
        rows: list[dict[str, Any]] = [
            {
                "trial": trial.trial_id,
                "x": _simplify_value(make_point(trial.params)[name]),
                "score": scores[trial.trial_id],
                "shown": format_score(metric.name, scores[trial.trial_id], scores.values()),
                "role": "winner" if trial.trial_id == winner else "other",
            }
            for trial in shown
        ]
        if name == "learning_rate":
            axis: dict[str, Any] = {"format": ".0e", "labelOverlap": True, "tickCount": 4}
            x = plots.encode_number(
                "x", name, scale={"type": "log", "nice": False, "padding": 8}, axis=axis
            )
        else:
            axis = {"labelAngle": 0, "labelLimit": 110}
            x = {"field": "x", "type": "ordinal", "title": name, "axis": axis}
            x["sort"] = list(map(_simplify_value, values))
        encoding = {
            "x": x,
            "y": plots.encode_score(metric.name),
            "tooltip": plots.list_tooltip("trial", x=name, shown=metric.name),
            "fill": {"condition": _if_winner("var(--accent)"), "value": "var(--blue)"},
            "shape": {"condition": _if_winner("diamond"), "value": "circle"},
            "size": {"condition": _if_winner(150), "value": 45},
        }
        best = max(rows, key=lambda row: metric.sign * row["score"])
        slices.append(
            Plot(
                key=f"slice{number}",
                title=name,
                says=f"The best {metric.name} is at {name} {_round_value(best['x'])}.",
                spec=plots.make_spec(
                    rows, height=190, **plots.draw("point", encoding, filled=True, opacity=0.75)
                ),
                height=240,
            )
        )
    return slices


def plot_importance(sweep: SweepRun) -> Plot | None:
    """PED-ANOVA's importance of each hyperparameter, at every rung with enough trials."""
    by_rung: dict[int, dict[str, float]] = {}
    counts = {}
    for rung in sweep.config.rungs:
        scores = sweep.get_scores(rung)
        shares = compute_importances(sweep.trials, scores, sweep.metric, sweep.config.space)
        if shares:
            by_rung[rung], counts[rung] = shares, len(scores)
    if not by_rung:
        return None
    values = [
        {"name": name, "rung": f"step {rung}", "share": share, "shown": f"{share:.0%}"}
        for rung, shares in by_rung.items()
        for name, share in shares.items()
    ]
    # the highest rung's order comes first
    names = list(dict.fromkeys(name for shares in reversed(by_rung.values()) for name in shares))
    order = [f"step {rung}" for rung in by_rung]
    of_rung = {"field": "rung", "sort": order}
    colours = [f"var(--s{number})" for number in (1, 3, 5, 2, 4)]
    encoding = {
        "y": plots.encode_category("name", names),
        "yOffset": of_rung,
        "x": plots.encode_number("share", "share of importance", axis={"format": ".0%"}),
        "fill": {**of_rung, "scale": {"range": colours}, "legend": {"title": "scores at"}},
        "tooltip": plots.list_tooltip("name", "rung", shown="importance"),
    }
    rows = [
        [name, *(f"{of[name]:.0%}" if name in of else "" for of in by_rung.values())]
        for name in names
    ]
    best = [
        f"at step {rung} the best {math.ceil(find_top_frac(count) * count)} of {count} trials"
        for rung, count in counts.items()
    ]
    return Plot(
        key="importance",
        title="Importance of hyperparameters (Optuna's PED-ANOVA)",
        says=(
            "How much each hyperparameter decides whether a trial is among the best at a rung: "
            f"{'; '.join(best)}. Each rung is computed from its own scores only; later rungs hold "
            "only the trials that ASHA let through."
        ),
        spec=plots.make_spec(values, height=len(names) * 34, **plots.draw("bar", encoding)),
        table=Table("Importance by rung", ("hyperparameter", *order), rows),
        height=50 + len(names) * 34,
    )


def plot_finals(sweep: SweepRun) -> Plot | None:
    """The seeds of each finalist, their mean and its standard deviation."""
    verdict = sweep.finals
    if verdict is None or not any(finalist.values for finalist in verdict.finalists):
        return None
    name = sweep.metric.name
    all_values = [value for finalist in verdict.finalists for value in finalist.values]
    seeds, means = [], []
    for finalist in verdict.finalists:
        for run in finalist.completed:
            value = run.reports[-1].metrics[name]
            shown = format_score(name, value, all_values)
            seed = {"finalist": finalist.trial_id, "score": value, "shown": shown}
            seeds.append({**seed, "seed": f"seed {run.seed}"})
        if finalist.mean is not None:
            spread = finalist.deviation or 0.0
            shown = format_score(name, finalist.mean, all_values)
            mean = {"finalist": finalist.trial_id, "score": finalist.mean, "shown": shown}
            ends = {"low": finalist.mean - spread, "high": finalist.mean + spread}
            means.append({**mean, **ends, "seed": "mean"})
    order = [finalist.trial_id for finalist in verdict.finalists]
    x, y = plots.encode_score(name, axis={"tickCount": 6}), plots.encode_category("finalist", order)
    at = {"y": y, "x": x, "tooltip": plots.list_tooltip("finalist", "seed", shown=name)}
    layers = [
        plots.draw_interval(x, y, means, width=6),
        plots.draw("tick", at, means, thickness=3, size=22, color="var(--accent)"),
        plots.draw_points(at, fill="var(--blue)"),
    ]
    return Plot(
        key="finals",
        title="Finals: each configuration trained again with fresh seeds",
        says=(
            f"{name} on validation of each finalist's seeds (dots), their mean (tall tick) and one "
            "standard deviation to both sides (bar). The table below has the numbers."
        ),
        spec=plots.make_spec(seeds, height=38 * len(order), layer=layers),
        height=50 + 38 * len(order),
    )


def find_winning_trial(sweep: SweepRun) -> str | None:
    """The search's trial that has the winning configuration, once that is known."""
    return sweep.outcome.winner.trial_id if sweep.outcome else None


def find_sliced_rung(sweep: SweepRun) -> int | None:
    """The highest rung with enough scores to show."""
    rungs = [rung for rung in sweep.config.rungs if len(sweep.get_scores(rung)) >= MIN_SLICED]
    return rungs[-1] if rungs else None


def _if_winner(value: object) -> dict[str, object]:
    return {"test": "datum.role === 'winner'", "value": value}


def _simplify_value(value: object) -> object:
    """A number, or the text that stands for a value."""
    return value if isinstance(value, float) else show_value(value)


def _round_value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
