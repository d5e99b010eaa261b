"""python -m sweeps.run samsum: recipe -> preflight -> connect -> tune -> test -> best.

`from sweeps import run_sweep` does the same in Python.
"""

import contextlib
import difflib
import gc
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from sweeps.checks.find_recipe import read_default
from sweeps.cli import JsonFlag, Result, explain_end, parse, run_command
from sweeps.command_line.help_layout import flatten
from sweeps.command_line.peer_flags import find_our_flag
from sweeps.config import SweepConfig, count_steps, find_bad_value, to_json
from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from trainables.config import MainFlag, OutputFlag
from trainables.errors import SweepAborted
from trainables.process import gc_disabled
from trainables.shell import write_flag

if TYPE_CHECKING:
    from sweeps.checks.preflight import Preflight
    from sweeps.publish.load_run import SweepRun

PROG = "python -m sweeps.run"
PYTHON = "run_sweep"


@dataclass(frozen=True, kw_only=True)
class RunArgs:
    """Searches the best LoRA hyperparameters for a task: python -m sweeps.run RECIPE [flags]."""

    config: tyro.conf.OmitArgPrefixes[SweepConfig]
    resume: MainFlag[tyro.conf.FlagCreatePairsOff[bool]] = False
    """Go on with the sweep --name, from where its last process ended."""
    dry_run: MainFlag[tyro.conf.FlagCreatePairsOff[bool]] = False
    """Print what would run, and write nothing."""
    json: OutputFlag[JsonFlag] = False


def main(argv: Sequence[str] | None = None) -> Result:
    """Runs one sweep, or says what it would do."""
    args = read_command(sys.argv[1:] if argv is None else argv)
    if args.dry_run:
        from sweeps.cost import plan  # loads Optuna, which early errors do without

        config, preflight = _check(args)
        print(plan.describe(config, preflight))
        sections = plan.list_sections(config, preflight)
        return Result({"config": to_json(config), "plan": sections})
    from sweeps.checks.commands import resume_command

    code, folder = _run(args, resume_command)
    if not args.json:
        return Result({}, code)
    from sweeps.publish.load_run import load_run

    return Result(load_run(folder).to_json(), code)


def run_sweep(
    recipe: str | Path | SweepConfig, /, *, resume: bool = False, **flags: Any
) -> "SweepRun":
    """Runs one sweep as `python -m sweeps.run` does, and gives what load_run reads of it.

    A notebook shows one table that stays up to date, and nothing else. The process is afterwards
    as before: its environment, its handlers of signals, and without a connection to Ray.

    Args:
        recipe: a recipe's name, the path of a Python file of yours, or a config, which has all
            that flags could say.
        resume: whether to go on with the sweep called name.
        flags: what the command's flags say, by their names: tiny=True, num_trials=4,
            lora_ranks=(8, 16).

    Returns:
        The run; its best is None if no trial completed.

    Raises:
        SweepAborted: your mistake, found before any GPU is used, or what ended the sweep; it has
            an error and a fix.
        KeyboardInterrupt: how to go on is its text.
    """
    with _unchanged_process(), _quiet_notebook():
        args = read_call(recipe, flags, is_resumed=resume)
        from sweeps.checks.commands import resume_call
        from sweeps.publish.load_run import load_run

        _, folder = _run(args, resume_call)
        return load_run(folder)


def _run(args: RunArgs, tell_resume: Callable[[SweepConfig], str]) -> tuple[int, Path]:
    """The way of every sweep, wherever it was asked for; gives the exit code and the run's folder.

    Args:
        tell_resume: how a sweep goes on, in words to paste.
    """
    config, preflight = _check(args)
    with gc_disabled():
        from sweeps.checks.run_folder import open_run
        from sweeps.cost import plan
        from sweeps.publish.report.follow import keep_report

    for line in plan.about_rows(preflight):
        print(line)
    with open_run(config, preflight, is_resumed=args.resume) as paths, keep_report(paths):
        with gc_disabled():
            from sweeps.sweep import run_stages  # loads Ray, which early errors do without

        try:
            return run_stages(config, preflight, paths, is_resumed=args.resume), paths.folder
        except (SweepAborted, OSError) as ended:
            aborted = explain_end(ended)
            _log_interruption(paths, aborted.error)
            if not aborted.is_resumable:
                raise
            fix = f"{aborted.fix} with --resume: {tell_resume(config)}"
            raise SweepAborted(aborted.error, fix) from ended
        except SystemExit as ended:
            _log_interruption(paths, f"exit {ended.code}")
            raise
        except KeyboardInterrupt:
            _log_interruption(paths, "Ctrl-C")
            raise KeyboardInterrupt(f"go on with: {tell_resume(config)}") from None


def _check(args: RunArgs) -> "tuple[SweepConfig, Preflight]":
    """The config with the steps that it trains, and what was checked."""
    with gc_disabled():
        from sweeps.checks.preflight import check
        from sweeps.checks.resume import check_unchanged

    preflight = check(args.config, is_resumed=args.resume, needs_gpu=not args.dry_run)
    config = count_steps(args.config, len(preflight.splits.train))
    if args.resume:
        check_unchanged(config, preflight)
    return config, preflight


def _log_interruption(paths: RunPaths, reason: str) -> None:
    """Has the log say why the process ended, if it can be written."""
    if paths.events.exists():
        with contextlib.suppress(SweepAborted, OSError):
            EventLog(paths.events).append("sweep_interrupted", reason=reason)


def read_command(argv: Sequence[str]) -> RunArgs:
    """The config of `RECIPE [flags]`: the recipe's, or with --resume the saved one, plus flags.

    Raises:
        SweepAborted: an unknown recipe or flag, a bad value, or a resume that changes the sweep.
    """
    default, flags, prog = read_default(argv, PROG)
    args = _parse(flags, prog, default)
    if args.resume:
        from sweeps.checks import resume  # loads the study's database, which others do without

        is_named = any(flag.split("=")[0] == "--name" for flag in flags)
        saved = resume.read_saved_config(args.config, is_named=is_named)
        args = _parse(flags, prog, saved)
        args = replace(args, config=replace(args.config, tiny=saved.tiny))
        resume.check_resumable(saved, args.config)
    return args


def _parse(flags: Sequence[str], prog: str, default: SweepConfig) -> RunArgs:
    """The default is not tiny, so that --tiny is a flag that can be given."""
    return parse(RunArgs, flags, prog, RunArgs(config=replace(default, tiny=False)))


def read_call(
    recipe: str | Path | SweepConfig, flags: dict[str, Any], *, is_resumed: bool
) -> RunArgs:
    """What run_sweep is asked for; see there, and read_command."""
    if isinstance(recipe, SweepConfig):
        return _read_config(recipe, flags, is_resumed=is_resumed)
    return read_command([str(recipe), *_write_words(flags), *["--resume"] * is_resumed])


def _write_words(flags: dict[str, Any]) -> list[str]:
    """Keywords as a command line has them.

    Raises:
        SweepAborted: there is no such keyword; the fix names a near one.
    """
    known = [field.name for field, _ in flatten(SweepConfig)[1]]
    for name in flags:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, "resume"], n=1)
            fix = f"perhaps you meant {near[0]}" if near else f"{PROG} --help lists the flags"
            fix = find_our_flag(f"--{name}", PROG) or fix
            raise SweepAborted(f"{PYTHON} has no keyword {name!r}", fix)
    given = {name: value for name, value in flags.items() if (name, value) != ("tiny", False)}
    return [word for name, value in given.items() for word in write_flag(name, value)]


def _read_config(config: SweepConfig, flags: dict[str, Any], *, is_resumed: bool) -> RunArgs:
    """What a config asks for.

    Raises:
        SweepAborted: it has a bad value, flags are beside it, or it changes the sweep to resume.
    """
    if flags:
        fix = f"{PYTHON}(dataclasses.replace(config, {next(iter(flags))}=...))"
        raise SweepAborted(f"flags beside a config: {', '.join(flags)}", fix)
    bad_value = find_bad_value(config)
    if bad_value:
        raise SweepAborted(f"the config has a bad value: {bad_value}", "change it")
    if is_resumed:
        from sweeps.checks import resume

        saved = resume.read_saved_config(config, is_named=True)
        if config.epochs is not None:  # which the rows turned into steps
            config = replace(config, max_steps=saved.max_steps)
        resume.check_resumable(saved, config)
    return RunArgs(config=config, resume=is_resumed)


@contextlib.contextmanager
def _unchanged_process() -> Iterator[None]:
    """What a sweep changes in its process is afterwards as before."""
    environment, is_main = dict(os.environ), threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    num_frozen = gc.get_freeze_count()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items() if is_main else ():
            if handler is not None:  # one that C has set cannot be set from here
                signal.signal(number, handler)
        if not num_frozen:
            gc.unfreeze()


@contextlib.contextmanager
def _quiet_notebook() -> Iterator[None]:
    """In a notebook, the table is all that is shown, beside what a log warns of."""
    if not Console().is_jupyter:
        yield
        return
    least = logging.root.manager.disable
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        logging.disable(max(least, logging.INFO))
        try:
            yield
        finally:
            logging.disable(least)


if __name__ == "__main__":
    run_command(main)
