"""Regret against GPU-hours as a picture by Vega-Lite: a panel for each concurrency."""

import vl_convert

from tests.benchmarks.search_quality.comparison import Comparison

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#a3195b", "#b37400", "#56b4e9", "#57606a"),
    "#000000",
)
"""The reference method has the first; all are told apart by colour-blind readers (Okabe, Ito)."""


def draw_regret(comparison: Comparison) -> str:
    """Mean regret of each method with its 95% interval as a band, as an SVG."""
    names = sorted({curve.method for curve in comparison.curves})
    names.sort(key=lambda name: name != comparison.reference)
    top = _find_top(comparison)
    values = [
        {
            "method": curve.method,
            "panel": f"{curve.concurrency} trials at once",
            "share": frac,
            **{name: min(getattr(one, name), top) for name in ("low", "mean", "high")},
        }
        for curve in comparison.curves
        for frac, one in zip(comparison.budget_fracs, curve.regret, strict=True)
    ]
    colour = {
        "field": "method",
        "type": "nominal",
        "sort": names,
        "scale": {"domain": names, "range": [COLOURS[n % len(COLOURS)] for n in range(len(names))]},
        "legend": {
            "title": None,
            "orient": "bottom",
            "columns": 2,
            "labelLimit": 400,
            "symbolOpacity": 1,
        },
    }
    x = {
        "field": "share",
        "type": "quantitative",
        "axis": {"format": "%"},
        "title": "GPU-hours spent, share of training every configuration",
    }
    y = {"field": "mean", "type": "quantitative", "title": f"regret in {comparison.metric}"}
    y["scale"] = {"domain": [0, top]}
    layers = [
        {
            "mark": {"type": "area", "opacity": 0.15},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
        },
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"x": x, "y": y}},
    ]
    panels = [f"{number} trials at once" for number in comparison.concurrencies]
    figure = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": f"Regret in {comparison.metric} against GPU-hours",
        "background": "white",
        "data": {"values": values},
        "facet": {"column": {"field": "panel", "type": "nominal", "sort": panels, "title": None}},
        "spec": {
            "width": 420,
            "height": 300,
            "encoding": {"color": colour},
            "layer": layers,
        },
    }
    picture: str = vl_convert.vegalite_to_svg(figure)
    return picture


def _find_top(comparison: Comparison) -> float:
    """The highest regret that is drawn: of the methods that have chosen after a tenth."""
    late = [
        one.high
        for curve in comparison.curves
        for frac, one in zip(comparison.budget_fracs, curve.regret, strict=True)
        if frac >= 0.1 and one.mean < 0.9 * comparison.random_regret
    ]
    return max(0.5, 1.05 * max(late, default=comparison.random_regret))
