"""Command lines from dataclasses, and one way for every command to end, for people and programs.

With --json, standard output gets exactly one JSON object on one line: what the command has found,
or {"error": ..., "fix": ...} where it exits with 2 or was interrupted. All that people read goes to
standard error. Exit codes are the same, and numbers that are not finite are strings ("nan").
"""

import contextlib
import functools
import inspect
import io
import json
import logging
import os
import runpy
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn, TextIO, TypeVar

import tyro

from sweeps.checks.environment import refuse_other_package
from sweeps.command_line.false_alarms import hide_false_alarms
from sweeps.command_line.help_layout import flatten, group_flags
from sweeps.command_line.peer_flags import find_our_flag
from sweeps.command_line.refusals import explain_refusal, name_flags
from sweeps.command_line.safe_output import guard_output, unguard
from sweeps.records.redact import hide_secrets, join_lines
from trainables.errors import REPEAT, SweepAborted, find_disk_fault
from trainables.files import to_strict_json

Args = TypeVar("Args")

EXIT_DONE, EXIT_NO_TRIAL, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_BROKEN_PIPE = 141
"""As a shell tells of a program that SIGPIPE has ended."""

JsonFlag = Annotated[
    bool,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.arg(
        help="Print one JSON object for programs: what was found, or error and fix; all else goes "
        "to standard error."
    ),
]
"""The field json of a command that returns a Result; run_command obeys it."""


@dataclass(frozen=True)
class Result:
    """What a command has found."""

    facts: Mapping[str, object]
    """What --json prints; JSON values, floats that are not finite, and paths."""
    code: int = EXIT_DONE
    """The process's exit code."""


def run_command(
    main: Callable[[], Result | int | None],
    repeat_with: str = "",
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Ends the process with main's exit code; a SweepAborted becomes two lines and exit code 2.

    So does a disk that is full or does not answer, whatever was being read or written.

    Args:
        repeat_with: what the command needs to be repeated after a failure on its way.
        argv: the words of the command line, which may hold --json.
    """
    is_json = "--json" in (sys.argv[1:] if argv is None else argv)
    guard_output()
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    hide_false_alarms()
    failure: dict[str, str] = {}
    try:
        with contextlib.redirect_stdout(sys.stderr) if is_json else contextlib.nullcontext():
            result = main()
        code = result.code if isinstance(result, Result) else result
        if is_json and isinstance(result, Result):
            print(_encode_facts(result.facts))
        sys.stdout.flush()
    except BrokenPipeError:
        if not (_is_unread(sys.stdout) or _is_unread(sys.stderr)):
            raise  # of a connection
        # whoever read the output, e.g. head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_BROKEN_PIPE
    except (SweepAborted, OSError) as ended:
        aborted = explain_end(ended)
        fix = f"{aborted.fix} {repeat_with}" if aborted.is_resumable else aborted.fix
        messages = {"error": aborted.error, "fix": fix}
        failure = {kind: hide_secrets(join_lines(text)) for kind, text in messages.items()}
        for kind, text in failure.items():
            print(f"{kind}: {text}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except KeyboardInterrupt as ended:  # its text is how to go on, where that is known
        if ended.args:
            print(f"interrupted; {ended}", file=sys.stderr if is_json else sys.stdout)
        failure = {"error": "interrupted", "fix": str(ended) or "repeat the command"}
        code = EXIT_INTERRUPTED
    if is_json and failure:
        print(_encode_facts(failure))
    sys.stdout.flush()
    sys.exit(code or EXIT_DONE)


def _is_unread(stream: TextIO) -> bool:
    """Whether a stream is a pipe whose reader has gone."""
    ready = select.poll()
    ready.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in ready.poll(0))


def _encode_facts(facts: Mapping[str, object]) -> str:
    """One line of ASCII, which any output can show."""
    return json.dumps(to_strict_json(facts), allow_nan=False)


def explain_end(ended: SweepAborted | OSError) -> SweepAborted:
    """What the user is told of an error that ends a command.

    Raises:
        OSError: its cause is not the disk.
    """
    if isinstance(ended, SweepAborted):
        return ended
    fault = find_disk_fault(ended)
    if fault is None:
        raise ended
    disk = f" of {ended.filename}" if ended.filename else ""
    return SweepAborted(f"the disk{disk} {fault.state}", f"{fault.remedy}, {REPEAT}")


def run_script() -> None:
    """An installed script named sweeps-NAME runs python -m sweeps.NAME."""
    if Path(__file__).with_name("config").is_dir():  # and __init__.py may be W&B's too
        run_command(refuse_other_package)
    command = Path(sys.argv[0]).stem.removeprefix("sweeps-")
    runpy.run_module(f"sweeps.{command}", run_name="__main__", alter_sys=True)


def parse(
    cls: type[Args], argv: Sequence[str] | None, prog: str, default: Args | None = None
) -> Args:
    """Reads argv into cls; every field is a flag with the field's name and docstring.

    Args:
        cls: a dataclass; default gives the values of flags that argv leaves out.
        argv: None is this process's.

    Raises:
        SweepAborted: an unknown flag or a value that does not fit; the fix names near flags.
        SystemExit: after `--help`, with code 0.
    """
    root, registry = group_flags(cls, default)
    read: Callable[[], Args] = functools.partial(
        tyro.cli,
        root,
        args=argv,
        prog=prog,
        registry=registry,
        description=inspect.getdoc(cls),
    )
    stderr = io.StringIO()
    # tyro draws its frame as stdout can show it: without colours, in UTF-8
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(stdout):
            return read()
    except SystemExit as ended:
        if not ended.code:
            with contextlib.redirect_stdout(unguard(sys.stdout)):
                return read()  # --help, as the real stdout can show it
    except ValueError as refused:  # raised by a dataclass that checks its own values
        error = name_flags(str(refused), flatten(cls)[1])
        raise SweepAborted(error, f"{prog} --help") from None
    error, fix = explain_refusal(stderr.getvalue(), flatten(cls)[1])
    fix = find_our_flag(error, prog) or fix
    raise SweepAborted(error, fix or f"{prog} --help lists every flag with its values")
