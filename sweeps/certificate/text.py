"""A certificate in words and tables, with its verdict as the last line."""

import io
import math

from rich.console import Console
from rich.table import Table

from sweeps.certificate.comparison import LOSSES, Certificate, Place, faults

WIDTH = 110
MAX_FAULTS = 5


def describe(certificate: Certificate) -> str:
    """The numbers side by side, the largest differences, and the verdict."""
    parts = [_rendered(_gaps_table(certificate)), *_largest(certificate)]
    if certificate.spreads():
        parts.append(_rendered(_seeds_table(certificate)))
    return "\n".join([*parts, verdict(certificate)])


def verdict(certificate: Certificate) -> str:
    """One line: equal within what, or why not."""
    found = faults(certificate)
    if found:
        rest = f"; and {len(found) - MAX_FAULTS} more" if len(found) > MAX_FAULTS else ""
        return f"NOT equal: {'; '.join(found[:MAX_FAULTS])}{rest}"
    spread = f"within the spread of {len(certificate.alone)} seeds of dropout"
    if not certificate.is_same_masks:
        return f"equal {spread}"
    equal = f"equal within {certificate.largest(LOSSES):.1e} (relative, losses)"
    return f"{equal}, and {spread}" if certificate.seeds else equal


def _gaps_table(certificate: Certificate) -> Table:
    first, second = f"{certificate.engine}, recorded", certificate.again.title
    table = Table(title=f"{certificate.trial_id}: as recorded and trained again")
    for name in ("step", "number", first, second, "difference"):
        table.add_column(name)
    again = certificate.numbers(certificate.again.reports)
    gaps = certificate.gaps()
    for place, value in certificate.numbers(certificate.recorded).items():
        table.add_row(*_place(place), f"{value:.6f}", f"{again.get(place, math.nan):.6f}",
                      _gap_text(place, gaps[place]))  # fmt: skip
    return table


def _largest(certificate: Certificate) -> list[str]:
    lines = [
        f"largest difference of the losses: {certificate.largest(LOSSES):.2e} relative",
        f"largest difference of {certificate.metric}: "
        f"{certificate.largest((certificate.metric,)):.2f} points",
    ]
    adapter = certificate.again.adapter
    if adapter is None:
        return [*lines, "weights: not compared"]
    return [
        *lines,
        f"weights: matrices differ by {adapter.relative:.2e} of their norm at most, numbers by "
        f"{adapter.absolute:.2e}",
        f"  most in {adapter.matrix}",
    ]


def _seeds_table(certificate: Certificate) -> Table:
    table = Table(title=f"the pack among {len(certificate.alone)} solo trainings, which differ in "
                        "their dropout's seed")  # fmt: skip
    for name in ("step", "number", "packed", "mean of solo", "deviation", "packed lies at"):
        table.add_column(name)
    for place, (mean, deviation) in certificate.spreads().items():
        value = certificate.packed[place]
        lies_at = f"{(value - mean) / deviation:+.1f} deviations" if deviation else "-"
        table.add_row(*_place(place), f"{value:.6f}", f"{mean:.6f}", f"{deviation:.2e}", lies_at)
    return table


def _place(place: Place) -> tuple[str, str]:
    return str(place[0]), place[1]


def _gap_text(place: Place, gap: float) -> str:
    return f"{gap:.1e} relative" if place[1] in LOSSES else f"{gap:.2f} points"


def _rendered(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=WIDTH).print(table)
    return text.getvalue().rstrip()
