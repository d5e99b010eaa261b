"""Spans of time as users write and read them: 2h, 45m, 1h30m, 90s. Standard library only."""

import re
from datetime import timedelta

UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}

_PART = r"(\d+(?:\.\d+)?)([dhms])"


def parse_duration(text: str) -> float:
    """Seconds of a span such as 2h, 1h30m, 45m or 90s.

    Raises:
        ValueError: the text is none.
    """
    compact = text.strip().lower().replace(" ", "")
    if re.fullmatch(f"(?:{_PART})+", compact) is None:
        raise ValueError(f"{text!r} is no span of time")
    return sum(float(number) * UNITS_S[unit] for number, unit in re.findall(_PART, compact))


def format_duration(seconds: float) -> str:
    """E.g. 48 s, 12 min, 1 h 05 min, 2 d 3 h: as exact as anybody reads it."""
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h"


def format_clock(seconds: float) -> str:
    """E.g. 1:02:03, for a display that counts."""
    return str(timedelta(seconds=round(seconds)))
