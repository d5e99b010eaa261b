"""Parallel coordinates with a brush on each axis, in Vega: Vega-Lite has neither."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.publish.load_run import SweepRun
from sweeps.publish.report.charts import winning_trial
from sweeps.publish.report.importance import list_varied, make_point
from sweeps.publish.report.plots import Plot
from sweeps.publish.tables import show_value
from sweeps.records.trial_record import TrialRecord
from trainables.metrics.scales import format_score

SCHEMA = "https://vega.github.io/schema/vega/v6.json"
NUM_COLOURS = 5
HEIGHT = 300
HALF_GRIP = 16
"""Pixels to both sides of an axis where a brush begins."""
AXIS_WIDTH = 108
"""Pixels for one axis at least."""
BEYOND = 8
"""Pixels above and below it, so that the ends can be reached."""


class _Axis:
    """One axis: where a value lies on it, from 0 at the foot to 1, and its labels."""

    def __init__(self, title: str, values: Sequence[Any], *, is_continuous: bool, is_log: bool):
        self.title = title
        self._values = values
        self._is_continuous = is_continuous
        self._is_log = is_log
        if is_continuous:
            low, high = self._scale(values[0]), self._scale(values[-1])
            self._low, self._range = low, (high - low) or 1.0

    def place(self, value: Any) -> float:
        if self._is_continuous:
            return (self._scale(value) - self._low) / self._range
        return self._values.index(value) / max(1, len(self._values) - 1)

    def ticks(self, name: str = "") -> list[tuple[float, str]]:
        """Places and labels; scores are shown as everywhere else."""
        if not self._is_continuous:
            return [(self.place(value), show_value(value)) for value in self._values]
        places = [number / 4 for number in range(5)]
        scaled = [self._low + place * self._range for place in places]
        values = [10**one if self._is_log else one for one in scaled]
        shown = [format_score(name, v, values) if name else f"{v:.1e}" for v in values]
        return list(zip(places, shown, strict=True))

    def _scale(self, value: float) -> float:
        return math.log10(value) if self._is_log else value


def plot_parallel(sweep: SweepRun) -> Plot | None:
    """A line a trial through its hyperparameters and the rung that it reached.

    Only trials of the last rung go on to the score: others' scores do not compare with it.
    """
    metric, winner = sweep.metric, winning_trial(sweep)
    trials = [trial for trial in sweep.trials if trial.reports]
    varied = list_varied(trials)
    if len(trials) < 2 or not varied:
        return None
    last = sweep.scores_at(sweep.config.rungs[-1])
    axes = {
        name: _Axis(name, values, is_continuous=name == "learning_rate", is_log=True)
        for name, values in varied.items()
    }
    axes["step"] = _Axis("steps", list(sweep.config.rungs), is_continuous=False, is_log=False)
    if last:
        ends = sorted(last.values())
        axes["score"] = _Axis(metric.name, [ends[0], ends[-1]], is_continuous=True, is_log=False)
    steps = set(sweep.config.rungs)
    points = [
        {
            "trial": trial.trial_id,
            "axis": number,
            "place": axis.place(value),
            "role": "winner" if trial.trial_id == winner else "other",
            "colour": _colour(trial, last, higher=metric.mode == "max"),
            "shown": _describe(trial, sweep),
        }
        for trial in trials
        if trial.num_steps in steps
        for number, (name, axis) in enumerate(axes.items())
        for value in [_value_of(trial, name, last)]
        if value is not None
    ]
    ticks = [
        {"axis": number, "place": place, "label": label}
        for number, (name, axis) in enumerate(axes.items())
        for place, label in axis.ticks(metric.name if name == "score" else "")
    ]
    titles: list[dict[str, Any]] = [
        {"axis": number, "label": axis.title} for number, axis in enumerate(axes.values())
    ]
    told = [
        {"title": axis["label"], "ticks": [tick for tick in ticks if tick["axis"] == axis["axis"]]}
        for axis in titles
    ]
    stopped = len(trials) - len(last)
    return Plot(
        key="parallel",
        title="Parallel coordinates",
        says=(
            f"A line a trial: {', '.join(axis['label'] for axis in titles)}. Those of the last "
            f"rung ({len(last)}) are coloured by {metric.name}, the strongest colour is the best; "
            f"the others ({stopped}), grey, have no score that compares with theirs, so their "
            "lines end at the steps. Drag along an axis to select trials, double-click it to let "
            "go, or use the lists below. The table of trials follows the selection."
        ),
        spec=_make_spec(points, ticks, titles),
        min_width=AXIS_WIDTH * len(axes),
        height=HEIGHT + 70,
        axes=told,
    )


def _value_of(trial: TrialRecord, name: str, last: dict[str, float]) -> Any:
    if name == "step":
        return trial.num_steps
    return last.get(trial.trial_id) if name == "score" else make_point(trial.params)[name]


def _colour(trial: TrialRecord, last: dict[str, float], *, higher: bool) -> str:
    """The fifth of the last rung's scores in which the trial's lies; s5 is the best."""
    if trial.trial_id not in last:
        return "var(--faint)"
    ranked = sorted(last.values(), reverse=higher)
    fifth = ranked.index(last[trial.trial_id]) * NUM_COLOURS // len(ranked)
    return f"var(--s{NUM_COLOURS - fifth})"


def _describe(trial: TrialRecord, sweep: SweepRun) -> str:
    value = format_score(sweep.metric.name, trial.value(sweep.metric))
    return f"{sweep.metric.name} {value} at step {trial.num_steps}"


def _make_spec(
    points: list[dict[str, Any]], ticks: list[dict[str, Any]], titles: list[dict[str, Any]]
) -> dict[str, Any]:
    """Signals: "matching", the trials that the page has selected, or null; "brush0" on, what is
    dragged, in pixels. The page hears the latter and sets the former."""
    axes = [title["axis"] for title in titles]
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
            *map(_make_brush, axes),
        ],
        "data": [
            {"name": "points", "values": points},
            {"name": "ticks", "values": ticks},
            {"name": "titles", "values": titles},
        ],
        "scales": [
            {"name": "x", "type": "point", "domain": axes, "range": "width", "padding": 0.5},
            {"name": "y", "type": "linear", "domain": [0, 1], "range": "height"},
        ],
        "marks": [
            {"type": "group", "from": by_trial, "marks": [_mark("line", line, "line")]},
            *map(_make_axis, axes),
            {**_mark("text", label, "ticks"), "interactive": False},
            _mark("text", {**head, "fontWeight": 600}, "titles"),
            *(mark for axis in axes for mark in (_make_grip(axis), _make_band(axis))),
        ],
    }


def _mark(kind: str, update: Mapping[str, Any], data: str = "") -> dict[str, Any]:
    """Vega's mark of a kind; what is no reference to data, a scale or a signal is a value."""
    encoded = {name: of if isinstance(of, dict) else {"value": of} for name, of in update.items()}
    source = {"from": {"data": data}} if data else {}
    return {"type": kind, "encode": {"update": encoded}, **source}


def _place(axis: int, offset: int = 0) -> dict[str, Any]:
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


def _make_axis(axis: int) -> dict[str, Any]:
    line = {"x": _place(axis), "y": 0, "y2": {"signal": "height"}}
    look = {"stroke": "var(--ink-2)", "strokeWidth": 1}
    return {**_mark("rule", {**line, **look}), "interactive": False}


def _make_grip(axis: int) -> dict[str, Any]:
    area = {"x": _place(axis, -HALF_GRIP), "width": 2 * HALF_GRIP}
    area |= {"y": -BEYOND, "y2": {"signal": f"height + {BEYOND}"}}
    look = {"fill": "transparent", "cursor": "ns-resize"}
    return {"name": f"grip{axis}", **_mark("rect", {**area, **look})}


def _make_band(axis: int) -> dict[str, Any]:
    """What is dragged on an axis."""
    ends = {
        name: {"signal": f"brush{axis} ? {choose}(brush{axis}[0], brush{axis}[1]) : 0"}
        for name, choose in (("y", "min"), ("y2", "max"))
    }
    look = {"x": _place(axis, -6), "width": 12, "fill": "var(--accent)", "fillOpacity": 0.35}
    return {**_mark("rect", {**ends, **look}), "interactive": False}
