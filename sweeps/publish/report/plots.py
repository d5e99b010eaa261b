"""A plot of the page, and the parts of Vega-Lite that plots are made of.

Text of data, labels and models is only ever a value in them: never the name of a field, and never
part of an expression.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.publish.tables import Table

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
"""Names the language; nothing is loaded from there."""
LOG_RATIO = 4.0
"""Numbers that differ by more than this factor have a log axis."""
STATUSES = {
    "completed": ("circle", "var(--blue)"),
    "stopped": ("square", "var(--orange)"),
    "failed": ("cross", "var(--red)"),
    "running": ("triangle-up", "var(--green)"),
    "unfinished": ("triangle-down", "var(--ink-2)"),
    "moved": ("triangle-right", "var(--ink-2)"),
}
"""Shape and colour of each status; no plot tells it by the colour alone. A trial has moved where it
went on in another slot."""


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
    """What parallel coordinates can be filtered by."""


def make_spec(values: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A specification as wide as its place."""
    return {
        "$schema": SCHEMA,
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": list(values)},
        **more,
    }


def encode_status(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shape and colour by the field "status"; the legend has those that there are."""
    present = {value["status"] for value in values}
    names = [name for name in STATUSES if name in present]
    shapes, colours = zip(*(STATUSES[name] for name in names), strict=True)
    return {
        "shape": encode_name("status", names, shapes, symbolOpacity=1),
        "fill": encode_name("status", names, colours, symbolOpacity=1),
    }


def encode_name(
    field: str, names: Sequence[str], shown: Sequence[object], **legend: object
) -> dict[str, Any]:
    """A channel that shows each name in its own way, with a legend above the plot."""
    scale = {"domain": names, "range": shown}
    legend = {"title": None, "orient": "top", **legend}
    return {"field": field, "type": "nominal", "legend": legend, "scale": scale}


def encode_number(field: str, title: str, **more: Any) -> dict[str, Any]:
    """A channel that shows a number."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def encode_score(metric_name: str, **more: Any) -> dict[str, Any]:
    """The channel of the field "score", whose axis need not begin at 0."""
    return encode_number("score", metric_name, scale={"zero": False}, **more)


def encode_category(field: str, order: Sequence[str], **axis: Any) -> dict[str, Any]:
    """A channel with a place for each name."""
    axis = {"labelLimit": 130, **axis}
    return {"field": field, "type": "nominal", "sort": list(order), "title": None, "axis": axis}


def draw(
    kind: str,
    encoding: Mapping[str, Any],
    values: Sequence[Mapping[str, Any]] | None = None,
    where: object = None,
    **mark: Any,
) -> dict[str, Any]:
    """A layer of marks.

    Args:
        values: None is the plot's.
        where: filter of the values.
    """
    data = {} if values is None else {"data": {"values": values}}
    transform = {} if where is None else {"transform": [{"filter": where}]}
    return {**data, **transform, "mark": {"type": kind, **mark}, "encoding": encoding}


def draw_points(encoding: Mapping[str, Any], *, size: int = 55, **more: Any) -> dict[str, Any]:
    """A layer of filled points."""
    return draw("point", encoding, filled=True, size=size, **more)


def draw_interval(
    x: Mapping[str, Any],
    y: Mapping[str, Any],
    values: Sequence[Mapping[str, Any]] | None = None,
    *,
    width: int,
) -> dict[str, Any]:
    """A layer of bars from the field "low" to "high"."""
    between = {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}}
    return draw("rule", between, values, strokeWidth=width, opacity=0.35, stroke="var(--blue)")


def list_tooltip(*same: str, **titled: str) -> list[dict[str, str]]:
    """Fields that are shown at a mark; those that have another name than their field are named."""
    return [
        {"field": name, "title": title} for name, title in ({s: s for s in same} | titled).items()
    ]


def choose_scale(values: Sequence[float]) -> dict[str, Any]:
    """A log scale where positive values lie far apart."""
    is_far = min(values) > 0 and max(values) > LOG_RATIO * min(values)
    scale = {"type": "log"} if is_far else {"type": "linear", "zero": False}
    return {**scale, "nice": False, "padding": 10}
