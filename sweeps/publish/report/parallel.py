"""Parallel coordinates with a brush on each axis, in Vega: Vega-Lite has neither."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.publish.load_run import SweepRun
from sweeps.publish.report.charts import find_winning_trial
from sweeps.publish.report.importance import list_varied, make_point
from sweeps.publish.report.plots import Plot
from sweeps.publish.tables import show_value
from sweeps.records.trial_record import TrialRecord
from trainables.config import Metric
from trainables.metrics.registry import format_score

SCHEMA = "https://vega.github.io/schema/vega/v6.json"
NUM_COLOURS = 5
HEIGHT = 300
HALF_GRIP = 16
"""Pixels to both sides of an axis where a brush begins."""
AXIS_WIDTH = 108
"""Pixels for one axis at least."""
PLACES = tuple(number / 4 for number in range(5))
"""Where ticks are, on an axis of numbers."""
BEYOND = 8
"""Pixels above and below it, so that the ends can be reached."""


@dataclass(frozen=True)
class _Axis:
    """One axis, from 0 at the foot to 1."""

    title: str
    find_value: Callable[[TrialRecord], Any]
    """A trial's value; None ends its line before this axis."""
    find_place: Callable[[Any], float]
    """Where a value lies."""
    ticks: list[dict[str, object]]
    """Places with their labels."""


def plot_parallel(sweep: SweepRun) -> Plot | None:
    """A line a trial through its hyperparameters and the rung that it reached.

    Only trials of the last rung go on to the score: others' scores do not compare with it.
    """
    metric, winner, rungs = sweep.metric, find_winning_trial(sweep), list(sweep.config.rungs)
    trials = [trial for trial in sweep.trials if trial.reports]
    varied = list_varied(trials)
    if len(trials) < 2 or not varied:
        return None
    last = sweep.get_scores(rungs[-1])
    axes = [_make_param_axis(name, values) for name, values in varied.items()]
    axes.append(_make_ordinal("steps", rungs, lambda trial: trial.num_steps))
    if last:
        axes.append(_make_score_axis(metric.name, last))
    points = [
        {
            "trial": trial.trial_id,
            "axis": number,
            "place": axis.find_place(value),
            "role": "winner" if trial.trial_id == winner else "other",
            "colour": _choose_colour(trial, last, metric),
            "shown": f"{metric.name} {format_score(metric.name, trial.get_value(metric))} at step "
            f"{trial.num_steps}",
        }
        for trial in trials
        if trial.num_steps in rungs
        for number, axis in enumerate(axes)
        if (value := axis.find_value(trial)) is not None
    ]
    stopped = len(trials) - len(last)
    return Plot(
        key="parallel",
        title="Parallel coordinates",
        says=(
            f"A line a trial: {', '.join(axis.title for axis in axes)}. Those of the last "
            f"rung ({len(last)}) are coloured by {metric.name}, the strongest colour is the best; "
            f"the others ({stopped}), grey, have no score that compares with theirs, so their "
            "lines end at the steps. Drag along an axis to select trials, double-click it to let "
            "go, or use the lists below. The table of trials follows the selection."
        ),
        spec=_make_spec(points, axes),
        min_width=AXIS_WIDTH * len(axes),
        height=HEIGHT + 70,
        axes=[{"title": axis.title, "ticks": axis.ticks} for axis in axes],
    )


def _make_param_axis(name: str, values: Sequence[Any]) -> _Axis:
    def find_value(trial: TrialRecord) -> Any:
        return make_point(trial.params)[name]

    if name != "learning_rate":
        return _make_ordinal(name, values, find_value)
    low, high = math.log10(values[0]), math.log10(values[-1])
    ticks = [
        {"place": place, "label": f"{10 ** (low + place * (high - low)):.1e}"} for place in PLACES
    ]
    return _Axis(name, find_value, lambda rate: (math.log10(rate) - low) / (high - low), ticks)


def _make_ordinal(title: str, values: Sequence[Any], find: Callable[[TrialRecord], Any]) -> _Axis:
    last = max(1, len(values) - 1)
    ticks = [{"place": n / last, "label": show_value(value)} for n, value in enumerate(values)]
    return _Axis(title, find, lambda value: values.index(value) / last, ticks)


def _make_score_axis(name: str, scores: Mapping[str, float]) -> _Axis:
    """Its ticks are shown as scores are everywhere else."""
    low, span = min(scores.values()), (max(scores.values()) - min(scores.values())) or 1.0
    values = [low + place * span for place in PLACES]
    ticks = [
        {"place": place, "label": format_score(name, value, values)}
        for place, value in zip(PLACES, values, strict=True)
    ]
    return _Axis(
        name, lambda trial: scores.get(trial.trial_id), lambda score: (score - low) / span, ticks
    )


def _choose_colour(trial: TrialRecord, last: dict[str, float], metric: Metric) -> str:
    """The fifth of the last rung's scores in which the trial's lies; s5 is the best."""
    if trial.trial_id not in last:
        return "var(--faint)"
    ranked = sorted(last.values(), key=lambda score: -metric.sign * score)
    fifth = ranked.index(last[trial.trial_id]) * NUM_COLOURS // len(ranked)
    return f"var(--s{NUM_COLOURS - fifth})"


def _make_spec(points: list[dict[str, Any]], axes: Sequence[_Axis]) -> dict[str, Any]:
    """Signals: "matching", the trials that the page has selected, or null; "brush0" on, what is
    dragged, in pixels. The page hears the latter and sets the former."""
    numbers = list(range(len(axes)))
    ticks = [{"axis": n, **tick} for n, axis in enumerate(axes) for tick in axis.ticks]
    titles = [{"axis": n, "label": axis.title} for n, axis in enumerate(axes)]
    x, y = {"scale": "x", "field": "axis"}, {"scale": "y", "field": "place"}
    width = "max(300, containerSize()[0] - 8)"
    resized = {"events": {"source": "window", "type": "resize"}, "update": width}
    is_on = "!matching || indexof(matching, datum.trial) >= 0"
    line = {
        "x": x,
        "y": y,
        "stroke": {"field": "colour"},
        "strokeWidth": {"signal": "datum.role === 'winner' ? 3.5 : 1.6"},
        "strokeOpacity": {"signal": f"({is_on}) ? 0.85 : 0.06"},
        "tooltip": {"signal": "{'trial': datum.trial, 'reached': datum.shown}"},
    }
    by_trial = {"facet": {"name": "line", "data": "points", "groupby": "trial"}}
    ink = {"font": "inherit", "fill": "var(--ink)", "text": {"field": "label"}}
    head = {**ink, "x": x, "y": -16, "limit": 120, "align": "center", "fontSize": 12}
    label = {**ink, "x": {**x, "offset": 6}, "y": y, "limit": 92, "fontSize": 11}
    label |= {"baseline": "middle", "stroke": "var(--paper)", "strokeWidth": 4}
    return {
        "$schema": SCHEMA,
        "height": HEIGHT,
        "padding": {"top": 34, "bottom": 10, "left": 4, "right": 4},
        "autosize": {"type": "none"},
        "signals": [
            {"name": "width", "init": width, "on": [resized]},
            {"name": "matching", "value": None},
            *map(_make_brush, numbers),
        ],
        "data": [
            {"name": "points", "values": points},
            {"name": "ticks", "values": ticks},
            {"name": "titles", "values": titles},
        ],
        "scales": [
            {"name": "x", "type": "point", "domain": numbers, "range": "width", "padding": 0.5},
            {"name": "y", "type": "linear", "domain": [0, 1], "range": "height"},
        ],
        "marks": [
            {"type": "group", "from": by_trial, "marks": [_make_mark("line", line, "line")]},
            *map(_make_line, numbers),
            {**_make_mark("text", label, "ticks"), "interactive": False},
            _make_mark("text", {**head, "fontWeight": 600}, "titles"),
            *(mark for axis in numbers for mark in (_make_grip(axis), _make_band(axis))),
        ],
    }


def _make_mark(kind: str, update: Mapping[str, Any], data: str = "") -> dict[str, Any]:
    """Vega's mark of a kind; what is no reference to data, a scale or a signal is a value."""
    encoded = {name: of if isinstance(of, dict) else {"value": of} for name, of in update.items()}
    source = {"from": {"data": data}} if data else {}
    return {"type": kind, "encode": {"update": encoded}, **source}


def _make_position(axis: int, offset: int = 0) -> dict[str, Any]:
    return {"scale": "x", "value": axis, "offset": offset}


def _make_brush(axis: int) -> dict[str, Any]:
    y, grip = "clamp(y(), 0, height)", f"@grip{axis}"
    drag = f"[{grip}:pointerdown, window:pointerup] > window:pointermove!"
    return {
        "name": f"brush{axis}",
        "value": None,
        "on": [
            {"events": f"{grip}:pointerdown", "update": f"[{y}, {y}]"},
            {"events": drag, "update": f"[brush{axis}[0], {y}]"},
            {"events": f"{grip}:dblclick", "update": "null"},
        ],
    }


def _make_line(axis: int) -> dict[str, Any]:
    line = {"x": _make_position(axis), "y": 0, "y2": {"signal": "height"}}
    look = {"stroke": "var(--ink-2)", "strokeWidth": 1}
    return {**_make_mark("rule", {**line, **look}), "interactive": False}


def _make_grip(axis: int) -> dict[str, Any]:
    area = {"x": _make_position(axis, -HALF_GRIP), "width": 2 * HALF_GRIP}
    area |= {"y": -BEYOND, "y2": {"signal": f"height + {BEYOND}"}}
    look = {"fill": "transparent", "cursor": "ns-resize"}
    return {"name": f"grip{axis}", **_make_mark("rect", {**area, **look})}


def _make_band(axis: int) -> dict[str, Any]:
    """What is dragged on an axis."""
    ends = {
        name: {"signal": f"brush{axis} ? {choose}(brush{axis}[0], brush{axis}[1]) : 0"}
        for name, choose in (("y", "min"), ("y2", "max"))
    }
    look = {"width": 12, "fill": "var(--accent)", "fillOpacity": 0.35}
    band = {"x": _make_position(axis, -6), **ends, **look}
    return {**_make_mark("rect", band), "interactive": False}
