"""Spans of time as users write and read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.command_line.durations import format_duration, parse_duration
from tests.sweeps.invented_sweep import make_config


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200.0),
        ("45m", 2700.0),
        ("90s", 90.0),
        ("1h30m", 5400.0),
        ("1d", 86400.0),
        ("0.5h", 1800.0),
        (" 1H 30 M ", 5400.0),
    ],
)
def test_spans_of_time_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert make_config(time_budget=text).time_budget_s == seconds


@pytest.mark.parametrize("text", ["", "90", "h", "2 hours", "-1h", "1h30", "0s", "1e3s", "nan"])
def test_what_is_no_span_of_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"time_budget is .*a time above 0, e\.g\. 2h"):
        make_config(time_budget=text)


@given(seconds=st.floats(0.0, 1e6))
def test_formatted_times_are_right_within_their_last_unit(seconds: float) -> None:
    text = format_duration(seconds)
    parts = text.replace(" min", "m").replace(" h", "h").replace(" d", "d").replace(" s", "s")
    unit_s = 1 if text.endswith("s") else 60 if text.endswith("min") else 3600
    assert abs(parse_duration(parts) - seconds) <= 0.51 * unit_s
