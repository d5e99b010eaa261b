"""Regret against GPU-hours as an SVG picture in plain text: a panel for each concurrency."""

from collections.abc import Sequence
from html import escape

from tests.benchmarks.search_quality.comparison import Comparison, Curve

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP, FONT = 420, 300, 48, 34, 44, 24, 12
"""Pixels: a panel's plot, the room for words around it, between panels, and the letters' size."""
COLOURS = ("#1f6feb", "#d1242f", "#8250df", "#1a7f37", "#bf8700", "#57606a", "#0a7ea4", "#bf3989")
"""The reference method has the first."""
ROW = 18
"""Pixels of a line of the legend."""


def regret_svg(comparison: Comparison) -> str:
    """Mean regret of each method with its 95% interval as a band."""
    names = sorted({curve.method for curve in comparison.curves})
    names.sort(key=lambda name: name != comparison.reference)
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    panels = comparison.concurrencies
    width = len(panels) * (LEFT + WIDTH + GAP)
    height = TOP + HEIGHT + BOTTOM + ROW * len(names)
    top = _nice_top(comparison)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="{FONT}">',
        f"<title>Regret in {escape(comparison.metric)} against GPU-hours</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for index, concurrency in enumerate(panels):
        left = index * (LEFT + WIDTH + GAP) + LEFT
        parts += _axes(comparison, left, top, f"{concurrency} trials at once")
        for curve in reversed(comparison.of(concurrency)):
            parts += _curve(comparison, curve, left, top, colours[curve.method])
    for index, name in enumerate(names):
        y = TOP + HEIGHT + BOTTOM + ROW * index
        parts.append(f'<rect x="{LEFT}" y="{y}" width="18" height="4" fill="{colours[name]}"/>')
        parts.append(_text(LEFT + 26, y + 6, name))
    return "\n".join([*parts, "</svg>\n"])


def _nice_top(comparison: Comparison) -> float:
    """The highest regret that is drawn: of the methods that have chosen after a tenth."""
    late = [
        one.high
        for curve in comparison.curves
        for frac, one in zip(comparison.budget_fracs, curve.regret, strict=True)
        if frac >= 0.1 and one.mean < 0.9 * comparison.random_regret
    ]
    return max(0.5, 1.05 * max(late, default=comparison.random_regret))


def _axes(comparison: Comparison, left: int, top: float, title: str) -> list[str]:
    last = comparison.budget_fracs[-1]
    parts = [
        _text(left + WIDTH / 2, TOP - 14, title, "middle"),
        _text(left - 40, TOP - 14, "regret"),
        f'<path d="M{left},{TOP}V{TOP + HEIGHT}H{left + WIDTH}" fill="none" stroke="#57606a"/>',
        _text(
            left + WIDTH / 2,
            TOP + HEIGHT + 34,
            "GPU-hours spent, share of training every configuration",
            "middle",
        ),
    ]
    for index in range(6):
        frac, regret = last * index / 5, top * index / 5
        x, y = left + WIDTH * index / 5, TOP + HEIGHT * (1 - index / 5)
        parts.append(_text(x, TOP + HEIGHT + 16, f"{frac:.0%}", "middle"))
        parts.append(_text(left - 6, y + 4, f"{regret:.1f}", "end"))
        parts.append(f'<path d="M{left},{y:.1f}h{WIDTH}" stroke="#d0d7de"/>')
    return parts


def _curve(comparison: Comparison, curve: Curve, left: int, top: float, colour: str) -> list[str]:
    last = comparison.budget_fracs[-1]
    xs = [left + WIDTH * frac / last for frac in comparison.budget_fracs]

    def heights_of(regrets: Sequence[float]) -> list[str]:
        heights = (TOP + HEIGHT * (1 - min(regret, top) / top) for regret in regrets)
        return [f"{x:.1f},{y:.1f}" for x, y in zip(xs, heights, strict=True)]

    upper = heights_of([one.high for one in curve.regret])
    lower = heights_of([one.low for one in curve.regret])
    middle = heights_of([one.mean for one in curve.regret])
    band = " ".join([*upper, *reversed(lower)])
    return [
        f'<polygon points="{band}" fill="{colour}" fill-opacity="0.15"/>',
        f'<polyline points="{" ".join(middle)}" fill="none" stroke="{colour}" '
        f'stroke-width="2"><title>{escape(curve.method)}</title></polyline>',
    ]


def _text(x: float, y: float, content: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(content)}</text>'
