"""A confusion matrix as an SVG picture in plain text: counts, and each row's shares as shades."""

from html import escape

from trainables.metrics.classification import Confusion

CELL, GAP, FONT = 64, 8, 12
"""Pixels: a cell's side, the room between words and cells, the size of the letters."""
MAX_LABEL_CHARACTERS = 18
"""Longer labels are cut in the picture; the whole one is shown under the pointer."""
SHADE = "#1f6feb"
DARK_SHARE = 0.55
"""From this share of its row on, a cell's words are white."""


def confusion_svg(confusion: Confusion) -> str:
    """The picture: a row is a target, a column a prediction.

    Labels are escaped, and characters that XML has no place for are shown as a box.
    """
    labels, table = confusion.labels, confusion.counts
    shown = [_label(label) for label in labels]
    left = 3 * GAP + FONT + round(0.62 * FONT * max(len(_cut(label)) for label in labels))
    top, side = 3 * GAP + 2 * FONT, CELL * len(labels)
    width, height = left + side + 2 * GAP, top + side + 2 * GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="{FONT}">',
        "<title>Confusion matrix: targets in rows, predictions in columns</title>",
        _text(left + side / 2, GAP + FONT, "predicted", "middle"),
        _text(left - GAP, GAP + FONT, "target", "end"),
    ]
    for place, label in enumerate(shown):
        parts.append(_text(left + CELL * (place + 0.5), top - GAP, label, "middle", CELL - 4))
        parts.append(_text(left - GAP, top + CELL * (place + 0.5) + FONT / 3, label, "end"))
    for i, row in enumerate(table):
        for j, count in enumerate(row):
            parts.append(_cell(left + CELL * j, top + CELL * i, count, sum(row)))
    return "\n".join([*parts, "</svg>"])


def _cell(x: int, y: int, count: int, row_count: int) -> str:
    share = count / row_count if row_count else 0.0
    fill = "white" if share >= DARK_SHARE else "black"
    middle = x + CELL / 2
    return (
        f'<g fill="{fill}"><rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="{SHADE}" '
        f'fill-opacity="{share:.3f}" stroke="#8c959f"/>'
        f'<text x="{middle:g}" y="{y + CELL / 2 - 2:g}" text-anchor="middle">{count}</text>'
        f'<text x="{middle:g}" y="{y + CELL / 2 + FONT + 2:g}" text-anchor="middle">'
        f"{100 * share:.0f}%</text></g>"
    )


def _text(x: float, y: float, content: str, anchor: str, width: int | None = None) -> str:
    fit = (
        f' textLength="{width}" lengthAdjust="spacingAndGlyphs"' if _is_wide(content, width) else ""
    )
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{fit}>{content}</text>'


def _is_wide(content: str, width: int | None) -> bool:
    visible = content.partition("<title>")[0]
    return width is not None and 0.62 * FONT * len(visible) > width


def _label(label: str) -> str:
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in label)
    return f"{escape(_cut(text))}<title>{escape(text)}</title>"


def _cut(label: str) -> str:
    is_long = len(label) > MAX_LABEL_CHARACTERS
    return label[: MAX_LABEL_CHARACTERS - 1] + "…" if is_long else label
