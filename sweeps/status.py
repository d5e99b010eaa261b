"""python -m sweeps.status RUN: how a sweep stands, wherever it runs, from its folder alone."""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.live import Live
from rich.text import Text

from sweeps.cli import JsonFlag, Result, parse, run_command
from sweeps.command_line.durations import format_clock, format_duration
from sweeps.records.events import list_waiting_points
from sweeps.records.paths import RunPaths, find_run
from sweeps.records.redact import join_lines
from sweeps.records.request_file import write_point
from sweeps.records.trials_csv import count_by_status
from sweeps.tracking.run_status import QUIET_S, RunStatus, read_status
from trainables.errors import SweepAborted
from trainables.shell import write_command

PROG = "python -m sweeps.status"
WATCH_INTERVAL_S = 2.0
MAX_RUNNING = 16
"""Running trials that are shown."""
EVENT_FACTS = (
    *("kind", "trial_id", "step", "status", "reason"),
    *("request", "refused", "note", "stop", "add", "finish"),
)
NUM_EVENTS = 5
"""Last events that are shown."""


@dataclass(frozen=True, kw_only=True)
class StatusArgs:
    """Tells how a sweep stands, or all sweeps of a folder, a line each; reads and changes nothing.

    A sweep of another machine on a shared folder can be looked at too.
    """

    run: tyro.conf.Positional[Path] = Path("runs")
    """Folder of the sweep, e.g. runs/samsum, or one that holds several."""
    watch: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show it again every two seconds until it has ended, or one of another machine was silent for
    15 minutes; plain lines where there is no terminal, and with --json one object in the end."""
    json: JsonFlag = False


def main(argv: Sequence[str] | None = None) -> Result:
    """Shows one run, or the runs of a folder."""
    args = parse(StatusArgs, argv, PROG)
    folder = args.run.absolute()
    if (folder / "sweep.json").is_file():
        look = partial(_look_at_run, find_run(folder, has_checkpoints=False))
    elif any(folder.glob("*/sweep.json")):
        look = partial(_look_at_folder, folder)
    else:
        fix = f"{PROG} RUN or a folder of runs; python -m sweeps.run samsum --tiny makes one"
        raise SweepAborted(f"there is no sweep in {folder}", fix)
    if args.watch:
        return Result(_watch_run(look, is_quiet=args.json).facts)
    view = look()
    print(*view.lines, sep="\n")
    return Result(view.facts)


@dataclass(frozen=True, kw_only=True)
class _View:
    """What is shown of a moment."""

    lines: list[str]
    summary: str
    """One line, without what changes by itself."""
    facts: dict[str, Any]
    is_over: bool


def _watch_run(look: Callable[[], _View], *, is_quiet: bool) -> _View:
    """Shows the run until it is over; in a terminal in place, else a line whenever it changes."""
    console, last = Console(), ""
    in_place = Live(console=console, auto_refresh=False)
    is_live = console.is_terminal and not is_quiet
    with in_place if is_live else contextlib.nullcontext():
        while True:
            view = look()
            if is_live:
                shown = view.lines[: max(3, console.height - 1)]
                in_place.update(Text("\n".join(shown)), refresh=True)
            elif view.summary != last and not is_quiet:
                print(view.summary, flush=True)
            if view.is_over:
                return view
            last = view.summary
            time.sleep(WATCH_INTERVAL_S)


def _look_at_run(paths: RunPaths) -> _View:
    status = read_status(paths)
    return _View(
        lines=describe(status),
        summary=join_lines("; ".join([_describe_state(status), *_describe_trials(status)])),
        facts=list_facts(status),
        is_over=_is_watched_in_vain(status),
    )


def _is_watched_in_vain(status: RunStatus) -> bool:
    """Whether the sweep is over, or was on another machine and has been silent for long."""
    age_s = _measure_silence_s(status)
    is_silent = age_s is None or age_s > QUIET_S
    return status.is_over or (status.state == "unknown" and is_silent)


def _look_at_folder(folder: Path) -> _View:
    """A line a run, the youngest first."""
    rows, facts, is_over = [("run", "state", "trials", "best", "left", "last event")], [], True
    files = sorted(folder.glob("[!.]*/sweep.json"), key=_measure_age_s)
    for path in files:
        try:
            status = read_status(find_run(path.parent, has_checkpoints=False))
        except SweepAborted as damaged:
            rows.append((path.parent.name, "unreadable", "", join_lines(damaged.error), "", ""))
            facts.append({"run": path.parent, "state": "unreadable", "error": damaged.error})
            continue
        is_over = is_over and _is_watched_in_vain(status)
        num_ended = sum(one.status is not None for one in status.trials)
        rows.append(
            (
                path.parent.name,
                status.state,
                f"{num_ended}/{status.num_trials}",
                _describe_best(status),
                "" if status.left_s is None else format_clock(status.left_s),
                _describe_age(status),
            )
        )
        facts.append(list_facts(status))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    counts = Counter(str(fact["state"]) for fact in facts)
    summary = ", ".join(f"{num} {state}" for state, num in sorted(counts.items()))
    return _View(lines=lines, summary=summary, facts={"runs": facts}, is_over=is_over)


def _measure_age_s(path: Path) -> float:
    """Since it was written; a file that was removed meanwhile comes last."""
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime
    return math.inf


def describe(status: RunStatus) -> list[str]:
    """A run in words, a line a fact."""
    lines = [_describe_state(status), *_describe_trials(status)]
    lines.append(f"last event: {_describe_age(status)}")
    if status.facts:
        template = "GPUs: {num_gpus}, packs: {num_packs}, trials on each at most: {slots_per_gpu}"
        lines.append(template.format(**status.facts))
    if status.state in ("running", "stalled"):
        left = "not known yet" if status.left_s is None else format_clock(status.left_s)
        lines.append(f"left: {left}")
    taken_up = "once it trains" if status.state in ("running", "stalled") else "by a resume"
    lines += [f"asked, to be taken up {taken_up}: {one.describe()}" for one in status.pending]
    lines += [f"added, not begun: {write_point(p)}" for p in list_waiting_points(status.events)]
    max_steps, metric = status.record["config"].get("max_steps"), status.metric
    running = [] if status.is_over else sorted(status.running, key=lambda one: -one.num_steps)
    for one in running[:MAX_RUNNING]:
        value = one.get_value(metric)
        score = "" if value is None else f", {metric.name} {value:.4g}"
        lines.append(f"  {one.trial_id} step {one.num_steps}/{max_steps}{score}")
    if len(running) > MAX_RUNNING:
        lines.append(f"  and {len(running) - MAX_RUNNING} more")
    lines += [f"  {_describe_event(event)}" for event in status.events[-NUM_EVENTS:]]
    return [join_lines(line) if line[:1] != " " else f"  {join_lines(line)}" for line in lines] + [
        f"next: {command}" for command in suggest(status)
    ]


def suggest(status: RunStatus) -> list[str]:
    """What the user may do now, as commands."""
    run = write_command(status.paths.folder)
    if status.state == "ended" and not status.pending:
        return [
            f"python -m sweeps.report {run}",
            f"python -m sweeps.predict {run} --input FILE --output FILE",
        ]
    if status.state in ("running", "stalled") and status.phase in ("finals", "test"):
        return [f"{PROG} {run} --watch"]
    if status.state in ("running", "stalled"):
        return [f"python -m sweeps.ask {run} --stop TRIAL | --add NAME=VALUE | --finish"]
    from sweeps.checks.commands import write_resume_command  # loads Optuna
    from sweeps.checks.sweep_json import parse_config

    try:
        resume = write_resume_command(parse_config(status))
    except SweepAborted:
        return ["resume it with the version of this project that wrote it"]
    if status.state == "unknown" and status.owner.host:  # two that drive one run would spoil it
        host, pid = write_command(status.owner.host), status.owner.pid
        return [f"ssh {host} ps -p {pid}", f"{resume}  # if that shows no process"]
    return [resume]


def list_facts(status: RunStatus) -> dict[str, Any]:
    """A run for programs."""
    best, metric = status.best, status.metric
    return {
        "run": status.paths.folder,
        "state": status.state,
        "reason": status.reason,
        "phase": status.phase,
        "host": status.owner.host,
        "pid": status.owner.pid,
        "metric": asdict(metric),
        "num_trials": status.num_trials,
        "trials": count_by_status(status.trials, status.unended),
        "finals": count_by_status(status.finals, status.unended),
        "running": []
        if status.is_over
        else [
            {"trial_id": one.trial_id, "step": one.num_steps, "value": one.get_value(metric)}
            for one in status.running
        ],
        "max_steps": status.record["config"].get("max_steps"),
        "best": best and asdict(best),
        "result": _find_result(status),
        "pending": [{"id": one.id, "request": one.describe()} for one in status.pending],
        "added": list_waiting_points(status.events),
        "began": status.driver_began and status.driver_began.isoformat(),
        "last_event_s": _measure_silence_s(status),
        "left_s": status.left_s,
        **status.facts,
        "last_events": [
            {name: event[name] for name in ("time", *EVENT_FACTS) if name in event}
            for event in status.events[-NUM_EVENTS:]
        ],
        "next": suggest(status),
    }


def _describe_state(status: RunStatus) -> str:
    where = f"process {status.owner.pid} on {status.owner.host}" if status.owner.host else ""
    text = f"{status.paths.folder.name}: {status.state}"
    if status.state in ("running", "stalled"):
        text += f" ({status.phase}), {where}" if where else f" ({status.phase})"
    elif status.state == "unknown":
        text += f": its {where} gives no sign of life, but locks of other machines are not seen"
    elif status.state == "dead":
        text += f": its {where or 'process'} ended without a word"
    return f"{text}: {status.reason}" if status.reason else text


def _describe_trials(status: RunStatus) -> list[str]:
    lines = []
    for name, records, num in (
        ("trials", status.trials, status.num_trials),
        ("finals", status.finals, len(status.finals)),
    ):
        if records or name == "trials":
            counts = count_by_status(records, status.unended)
            shown = ", ".join(f"{count} {what}" for what, count in counts.items())
            lines.append(f"{name}: {len(records)}/{num} begun{f' ({shown})' if shown else ''}")
    lines.append(f"best: {_describe_best(status)}")
    if result := _find_result(status):
        test = ", ".join(f"{name} {value:.4g}" for name, value in result["test"].items())
        lines.append(f"winner: {result['winner']}, on test: {status.metric.name} {test}")
    return lines


def _describe_best(status: RunStatus) -> str:
    best = status.best
    if best is None:
        return "none yet"
    whose = f"{best.trial_id}, mean of {best.num_seeds} seeds" if best.num_seeds else best.trial_id
    return f"{status.metric.name} {best.value:.4g} at step {best.step} ({whose})"


def _measure_silence_s(status: RunStatus) -> float | None:
    last = status.last_event_time
    return None if last is None else max(0.0, (status.now - last).total_seconds())


def _describe_age(status: RunStatus) -> str:
    age_s = _measure_silence_s(status)
    return "none" if age_s is None else f"{format_duration(age_s)} ago"


def _find_result(status: RunStatus) -> dict[str, Any] | None:
    """The winner and its scores on test, of the sweep's metric and of the untuned base."""
    values, name = status.summary, status.metric.name
    if not values:
        return None
    known: dict[str, Any] = {
        "tuned": values.get(f"test/{name}"),
        "base": values.get(f"test_base/{name}"),
    }
    test: dict[str, float] = {}
    for of, value in known.items():
        with contextlib.suppress(TypeError, ValueError):  # not there, or damaged
            test[of] = float(value)
    return {"winner": values["winner"], "test": test}


def _describe_event(event: dict[str, Any]) -> str:
    words = [event["kind"], event.get("trial_id"), event.get("status"), event.get("reason")]
    if event["kind"] == "report":
        words.append(f"step {event['step']}")
    if event["kind"] == "asked":
        refused = f"refused: {event['refused']}" if event["refused"] else ""
        parts = (event.get("request"), event.get("note"), refused)
        words = [f"asked: {'; '.join(filter(None, parts))}"]
    return f"{event['time'][11:19]} {' '.join(str(word) for word in words if word)}"


if __name__ == "__main__":
    run_command(main)
