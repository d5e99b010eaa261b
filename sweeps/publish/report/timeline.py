"""Who trained in which slot of which GPU, and when; and where the GPUs' time went."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.command_line.durations import format_duration
from sweeps.publish.load_run import SweepRun
from sweeps.publish.report import plots
from sweeps.publish.report.plots import Plot
from sweeps.publish.tables import Table
from sweeps.records.run import find_time

ROW_HEIGHT = 17


@dataclass
class Span:
    """A trial in one slot, from its entry to its last report there, or to its end."""

    trial_id: str
    pack: str
    """"" of a trial that trains alone."""
    slot: int
    began_s: float
    """Unix time."""
    ended_s: float = 0.0
    device: str = ""
    reports_s: list[float] = field(default_factory=list)
    status: str | None = None
    """None of a trial that has not ended."""


def list_spans(events: Iterable[Mapping[str, Any]], now_s: float) -> list[Span]:
    """All, oldest first. Trials that train alone, or of a log that does not say where they
    trained, are put side by side in as few rows as they need.

    Args:
        now_s: where what has not ended is drawn to; when the log was last written.
    """
    spans: list[Span] = []
    last: dict[str, Span] = {}  # of each trial
    begun: dict[str, float] = {}
    for event in events:
        kind, time_s = event["kind"], find_time(event).timestamp()
        if kind == "trial_started":
            begun[event["trial_id"]] = time_s
        elif kind == "finals_started":
            begun |= {run["trial_id"]: time_s for run in event["runs"]}
        elif kind == "report":
            trial_id, span = event["trial_id"], last.get(event["trial_id"])
            if pack := event.get("pack", ""):
                place = (pack, event.get("slot", -1), event.get("entered", 0.0))
            else:
                place = ("", -1, begun.get(trial_id, time_s))
            if span is None or (span.pack, span.slot, span.began_s) != place:
                if span is not None:
                    span.status = "moved"
                span = last[trial_id] = Span(trial_id, *place, device=event.get("device", ""))
                spans.append(span)
            span.reports_s.append(time_s)
            span.ended_s = time_s
        elif kind == "trial_ended" and (span := last.get(event["trial_id"])):
            span.status, span.ended_s = event["status"], max(span.ended_s, time_s)
    for span in spans:
        span.began_s = min(span.began_s, span.reports_s[0])  # another machine has another clock
        if span.status is None:
            span.ended_s = max(span.ended_s, now_s)
    spans.sort(key=lambda span: span.began_s)
    _assign_rows([span for span in spans if not span.pack])
    return spans


def _assign_rows(spans: Sequence[Span]) -> None:
    """Puts spans without a slot into the first row that is free."""
    free_s: list[float] = []
    for span in spans:
        row = next((n for n, until_s in enumerate(free_s) if until_s <= span.began_s), len(free_s))
        free_s[row:] = [span.ended_s, *free_s[row + 1 :]]
        span.slot = row


def plot_timeline(sweep: SweepRun) -> Plot | None:
    """A bar a trial in the row of its slot."""
    if sweep.began is None or sweep.last_event_time is None:
        return None
    began_s, now_s = sweep.began.timestamp(), sweep.last_event_time.timestamp()
    spans = list_spans(sweep.events, now_s)
    if not spans:
        return None
    packs = list(dict.fromkeys(span.pack for span in spans))
    unit, unit_s = ("minutes", 60.0) if now_s - began_s < 3 * 3600 else ("hours", 3600.0)

    def name_row(span: Span) -> str:
        if not span.pack:
            return f"trial process {span.slot + 1}"
        pack = f"pack {packs.index(span.pack) + 1} " * (len(packs) > 1)
        return f"{pack}slot {span.slot + 1}"

    bars, marks = [], []
    for span in spans:
        bar = {
            "trial": span.trial_id,
            "row": name_row(span),
            "from": max(0.0, span.began_s - began_s) / unit_s,
            "to": (span.ended_s - began_s) / unit_s,
            "kind": "finals" if span.trial_id.startswith("f") else "search",
            "status": span.status or sweep.unended,
            "took": format_duration(span.ended_s - span.began_s),
            "num": len(span.reports_s),
        }
        bars.append(bar)
        marks += [
            {"row": bar["row"], "at": (time_s - began_s) / unit_s, "trial": span.trial_id}
            for time_s in span.reports_s
        ]
    places = sorted({(packs.index(span.pack), span.slot, name_row(span)) for span in spans})
    order = [row for *_, row in places]
    y = plots.encode_category("row", order, ticks=False, domain=False)
    x = f"{unit} since the start"
    begins, ends = plots.encode_number("from", x), plots.encode_number("to", x)
    tip = plots.list_tooltip("trial", "status", row="place", took="stayed", num="reports")
    fill = plots.encode_name(
        "kind", ["search", "finals"], ["var(--s2)", "var(--s4)"], symbolType="square"
    )
    whole = {"y": y, "x": begins, "x2": {"field": "to"}, "fill": fill, "tooltip": tip}
    last = {"y": y, "x": ends, "tooltip": tip, **plots.encode_status(bars)}
    reports, paper = {"y": y, "x": plots.encode_number("at", x)}, "var(--paper)"
    layers = [
        plots.draw("bar", whole, height={"band": 0.8}, stroke=paper),
        plots.draw("tick", reports, marks, thickness=1.5, color="var(--ink)", size=9),
        plots.draw_points(last, xOffset=-4, opacity=1, stroke=paper),
    ]
    devices = ", ".join(dict.fromkeys(span.device for span in spans if span.device))
    where = f"{len(order)} slots" if packs != [""] else f"{len(order)} trials at once"
    resolve = {"scale": {"fill": "independent", "shape": "independent"}}
    spec = plots.make_spec(bars, height=ROW_HEIGHT * len(order), resolve=resolve, layer=layers)
    return Plot(
        key="timeline",
        title="GPU timeline",
        says=(
            f"{where}{f' on {devices}' * bool(devices)}. A bar is a trial in its slot until its "
            "end or its last report there; thin ticks are reports, and the shape at the bar's end "
            "says how the trial ended. Trials that never reported are in the table of failures."
        ),
        spec=spec,
        min_width=640,
        height=90 + ROW_HEIGHT * len(order),
    )


def list_gpu_time(sweep: SweepRun) -> Table | None:
    """What the packs' seconds were spent on, once the sweep has ended."""
    gpu_time = sweep.last_turn.get("gpu_time") or {}
    parts = {
        "trials of the search": gpu_time.get("search_s", 0.0),
        "runs of the finals": gpu_time.get("finals_s", 0.0),
        **{OVERHEAD_WORDS.get(name, name): s for name, s in gpu_time.get("overhead_s", {}).items()},
    }
    total_s = sum(parts.values())
    rows = [
        [name, format_duration(seconds), f"{seconds / total_s:.1%}"]
        for name, seconds in parts.items()
        if seconds > 0.0005 * total_s
    ]
    return Table("Where the GPUs' time went", ("what", "GPU time", "share"), rows) if rows else None


OVERHEAD_WORDS = {
    "load": "loading the base",
    "probe": "measuring throughput",
    "admit": "placing trials in slots",
    "decide": "waiting for decisions",
    "test": "the final test",
    "idle": "idle",
    "other": "saving and telling",
}
"""Activities of a ledger, in words."""


def list_packs(sweep: SweepRun) -> Table | None:
    """Each pack of which the log has the ledger."""
    ledgers = {e["pack"]: e for e in sweep.events if e["kind"] == "pack_ended"}
    rows = []
    for number, ledger in enumerate(ledgers.values(), start=1):
        seconds = ledger["seconds"]
        wall_s = sum(seconds.values())
        busy_s = wall_s - seconds.get("idle", 0.0) - seconds.get("load", 0.0)
        computed = ledger.get("computed_tokens")
        real = ledger.get("real_tokens", 0) / computed if computed else None
        rows.append(
            [
                *(f"pack {number}", ledger.get("node", ""), ledger.get("gpu", "")),
                *(ledger["device"], format_duration(wall_s)),
                f"{busy_s / wall_s:.0%}" if wall_s else "",
                f"{ledger.get('trial_steps', 0):,}",
                "" if real is None else f"{real:.1%}",
                f"{ledger.get('peak_gib', 0.0):.1f}",
            ]
        )
    columns = (
        *("pack", "node", "GPU", "device", "held for", "busy", "trial steps", "real tokens"),
        "peak GiB",
    )
    return Table("Packs", columns, rows) if rows else None
