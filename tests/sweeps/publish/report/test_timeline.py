"""Where and when each trial trained, as the log tells it."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from sweeps.publish.report.timeline import list_packs, list_spans


def event(second: int, kind: str, trial_id: str, **facts: Any) -> dict[str, Any]:
    time = datetime.fromtimestamp(second, UTC).isoformat()
    return {"time": time, "kind": kind, "trial_id": trial_id, **facts}


def test_a_trial_that_goes_on_in_another_pack_has_two_bars() -> None:
    first, second = (
        {"pack": "a", "slot": 3, "entered": 2.0, "device": "cpu"},
        {"pack": "b", "slot": 0, "entered": 50.0, "device": "cpu"},
    )
    events = [
        event(0, "trial_started", "t0000"),
        event(10, "report", "t0000", **first),
        event(30, "report", "t0000", **first),
        event(70, "report", "t0000", **second),
        event(71, "trial_ended", "t0000", status="completed"),
    ]
    one, other = list_spans(events, 99.0)
    assert (one.pack, one.slot, one.began_s, one.ended_s) == ("a", 3, 2.0, 30.0)
    assert (other.pack, other.slot, other.began_s, other.ended_s) == ("b", 0, 50.0, 71.0)
    assert (one.reports_s, other.reports_s) == ([10.0, 30.0], [70.0])
    assert (one.status, other.status) == ("moved", "completed")


def test_trials_without_a_slot_share_the_rows_that_they_leave() -> None:
    events = []
    for number, (began, ended) in enumerate(((0, 10), (1, 30), (12, 20), (25, 40))):
        name = f"t{number:04d}"
        events += [event(began, "trial_started", name), event(ended, "report", name)]
        events.append(event(ended, "trial_ended", name, status="stopped"))
    events.sort(key=lambda one: one["time"])
    spans = list_spans(events, 50.0)
    assert [(span.trial_id, span.slot) for span in spans] == [
        ("t0000", 0),
        ("t0001", 1),
        ("t0002", 0),
        ("t0003", 0),
    ]


def test_a_pack_whose_clock_is_ahead_makes_no_bar_that_ends_before_it_begins() -> None:
    place = {"pack": "a", "slot": 0, "entered": 500.0, "device": "cpu"}
    events = [event(0, "trial_started", "t0000")]
    events += [event(second, "report", "t0000", **place) for second in (10, 20)]
    (span,) = list_spans(events, 20.0)
    assert (span.began_s, span.ended_s) == (10.0, 20.0)


def test_a_trial_that_runs_is_drawn_to_where_the_log_ends() -> None:
    events = [event(0, "trial_started", "t0000"), event(10, "report", "t0000")]
    (span,) = list_spans(events, 50.0)
    assert (span.status, span.ended_s) == (None, 50.0)


def test_packs_are_told_with_their_places_also_where_an_older_log_counts_them() -> None:
    facts = {"device": "H200", "seconds": {"load": 10.0, "train": 30.0}}
    events = [
        {"kind": "pack_ended", "pack": 0, **facts},
        {"kind": "pack_ended", "pack": "a1b2", "node": "10.0.0.2", "gpu": "3", **facts},
        {"kind": "pack_ended", "pack": "a1b2", "node": "10.0.0.2", "gpu": "3", **facts},
    ]
    table = list_packs(SimpleNamespace(events=events))  # type: ignore[arg-type]
    assert table is not None
    assert [row[:4] for row in table.rows] == [
        ["pack 1", "", "", "H200"],
        ["pack 2", "10.0.0.2", "3", "H200"],
    ]
    assert all(len(row) == len(table.columns) for row in table.rows)
