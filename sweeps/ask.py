"""python -m sweeps.ask RUN --stop t0007: steers a sweep while it runs."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from search_spaces.lora import Point
from sweeps.checks import sweep_json
from sweeps.checks.commands import write_resume_command
from sweeps.cli import JsonFlag, Result, parse, run_command
from sweeps.control.resolve_request import foresee, resolve
from sweeps.finals.finalists import is_search_over
from sweeps.records.events import read_events
from sweeps.records.paths import RunPaths, find_run
from sweeps.records.request_file import Request, RequestReader, append_request
from sweeps.records.run import read_run
from sweeps.records.run_lock import find_lock_owner
from trainables.errors import SweepAborted

PROG = "python -m sweeps.ask"
ANSWER_TIMEOUT_S = 10.0
"""How long the sweep is waited for; it looks for requests about once a second."""
POLL_INTERVAL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class AskArgs:
    """Stops or adds trials of a sweep, or ends its search, while it runs: one of the flags.

    The sweep takes it up within seconds, writes it into its log, and keeps it when it is resumed.
    One that does not run takes it up when it is resumed.
    """

    run: tyro.conf.Positional[Path]
    """Folder of the sweep, e.g. runs/samsum."""
    stop: tuple[str, ...] = ()
    """Trials to stop now, e.g. t0007 t0008; their slots go to others. Without a pack (--engine
    solo) a trial trains on to its next report, which does not count any more."""
    add: tuple[str, ...] = ()
    """One more trial, which comes next, but for start points that still wait, e.g. lora_rank=32
    learning_rate=3e-4; what is not named is drawn. Values may lie outside the search space: such a
    trial competes like all others, but the sampler does not learn from it. Ranks above the largest
    of the space do not fit."""
    num_trials: int | None = None
    """Trials that the search shall have, more or fewer; those that have begun or were added by
    --add count and are not dropped. As many train at once as when the sweep was started or
    resumed."""
    finish: tyro.conf.FlagCreatePairsOff[bool] = False
    """End the search now: running trials are stopped, added ones that have not begun are dropped,
    and the finals follow."""
    json: JsonFlag = False


def main(argv: Sequence[str] | None = None) -> Result:
    """Checks a request against the run, writes it down, and tells what became of it."""
    args = parse(AskArgs, argv, PROG)
    check_named(args, sys.argv[1:] if argv is None else argv)
    paths = find_run(args.run)
    run = read_run(paths)
    config, request = sweep_json.parse_config(run), make_request(args)
    waiting = RequestReader(paths, run.events).read_new()
    has_driver = find_lock_owner(paths).is_driver is not False
    is_open = not (has_driver and is_search_over(config, run.events))
    foreseen, events = foresee(waiting, config, run.events)
    if not request.stop and any(event["finish"] for event in events[len(run.events) :]):
        fix = "let the sweep end; more trials follow then by: --resume --num-trials N"
        raise SweepAborted("--finish was asked for already, and waits to be taken up", fix)
    resolved = resolve(request, foreseen, events, is_open=is_open)
    append_request(paths, request)
    answer = _wait_for_answer(paths, request.id) if has_driver else None
    if answer is not None:
        print(describe(answer))
        facts = {name: answer[name] for name in ("stop", "add", "num_trials", "note")}
        return Result({"request": request.id, "is_done": True, **facts})
    resume = write_resume_command(config)
    if has_driver:
        print(
            "written down; the sweep has not taken it up yet. It does so once it trains (models "
            f"may still load), or when it is resumed: {resume}"
        )
    else:
        print(f"written down; no process runs this sweep, so it counts from: {resume}")
    if resolved.note:
        print(f"as it stands: {resolved.note}")
    facts = {"is_done": False, "note": resolved.note, "resume": resume}
    return Result({"request": request.id, **facts})


def _wait_for_answer(paths: RunPaths, request_id: str) -> dict[str, Any] | None:
    """What the sweep's log says of a request; None if nothing within ANSWER_TIMEOUT_S."""
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    while time.monotonic() < deadline_s:
        time.sleep(POLL_INTERVAL_S)
        asked = (event for event in read_events(paths.events) if event["kind"] == "asked")
        answer = next((event for event in asked if event["id"] == request_id), None)
        if answer is not None and answer["refused"]:
            raise SweepAborted(answer["refused"], "look how far the sweep is by now, and ask again")
        if answer is not None:
            return answer
    return None


def check_named(args: AskArgs, words: Sequence[str]) -> None:
    """Refuses a command line that asks for nothing, or has a flag without what it is for."""
    if "--stop" in words and not args.stop:
        raise SweepAborted("--stop names no trial", "name some that run, e.g. --stop t0007 t0008")
    if "--add" in words and not args.add:
        fix = "name some hyperparameters, e.g. --add lora_rank=32 learning_rate=3e-4"
        raise SweepAborted("--add names no value", fix)
    if not (args.stop or args.add or args.finish or args.num_trials is not None):
        fix = "name one: --stop t0007, --add lora_rank=32, --num-trials 64 or --finish"
        raise SweepAborted("nothing is asked for", fix)


def make_request(args: AskArgs) -> Request:
    """The request of a command line.

    Raises:
        SweepAborted: more than one thing is asked for, or a value has no name.
    """
    point: Point | None = None
    if args.add:
        nameless = [word for word in args.add if "=" not in word]
        if nameless:
            fix = "write NAME=VALUE, e.g. --add lora_rank=32 learning_rate=3e-4"
            raise SweepAborted(f"--add {nameless[0]!r} has no name", fix)
        pairs = [(name.strip(), v.strip()) for name, _, v in (w.partition("=") for w in args.add)]
        names = [name for name, _ in pairs]
        if again := [name for name in names if names.count(name) > 1]:
            raise SweepAborted(f"--add names {again[0]} twice", "give it one value")
        point = dict(pairs)
    try:
        return Request(stop=args.stop, add=point, num_trials=args.num_trials, finish=args.finish)
    except ValueError:
        fix = "name exactly one of --stop, --add, --num-trials and --finish"
        raise SweepAborted("one thing is asked for at a time", fix) from None


def describe(answer: dict[str, Any]) -> str:
    """What the sweep has done, in words."""
    if answer["finish"]:
        stopped = f"stopped: {', '.join(answer['stop'])}" if answer["stop"] else ""
        return "; ".join(filter(None, ("the search has ended", stopped, answer["note"])))
    if answer["stop"]:
        return f"stopped: {', '.join(answer['stop'])}"
    if answer["add"]:
        point = ", ".join(f"{name} {value}" for name, value in answer["add"].items())
        return f"the next trial has {point}; the search has {answer['num_trials']} trials now"
    return answer["note"] or f"the search has {answer['num_trials']} trials now"


if __name__ == "__main__":
    run_command(main)
