"""One sweep from what it is asked for to its result: recipe -> preflight -> stages.

Loads neither torch nor Ray until all is checked, so that mistakes are told at once.
"""

import contextlib
import gc
import io
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sweeps.checks.commands import write_resume_call
from sweeps.checks.run_args import RunArgs, read_call
from sweeps.cli import explain_end
from sweeps.config import SweepConfig, count_steps
from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from trainables.errors import LOST_DISK, REPEAT, SweepAborted, find_disk_fault
from trainables.process import disable_gc

if TYPE_CHECKING:
    from sweeps.checks.preflight import Preflight
    from sweeps.publish.load_run import SweepRun


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
    with _restore_process(), _silence_notebook():
        args = read_call(recipe, flags, is_resumed=resume)
        from sweeps.publish.load_run import load_run

        _, folder = run_from_args(args, write_resume_call)
        return load_run(folder)


def run_from_args(args: RunArgs, tell_resume: Callable[[SweepConfig], str]) -> tuple[int, Path]:
    """The way of every sweep, wherever it was asked for; gives the exit code and the run's folder.

    Args:
        tell_resume: how a sweep goes on, in words to paste.
    """
    config, preflight = check_args(args, tell_resume)
    with disable_gc():
        from sweeps.checks.run_folder import open_run
        from sweeps.cost import plan
        from sweeps.publish.report.follow import keep_report

    for line in plan.describe_rows(preflight):
        print(line)
    with open_run(config, preflight, is_resumed=args.resume) as paths, keep_report(paths):
        with disable_gc():
            from sweeps.control.stages import run_stages  # loads Ray, which early errors do without

        try:
            resume_with = tell_resume(config)
            code = run_stages(
                config, preflight, paths, is_resumed=args.resume, resume_with=resume_with
            )
            return code, paths.folder
        except (SweepAborted, OSError) as ended:
            if _is_deleted(paths.sweep_json):  # whatever was missed first
                gone = f"the run {paths.folder} was deleted while its sweep ran"
                aborted = SweepAborted(gone, f"put it back, {REPEAT}")
            else:
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


def check_args(
    args: RunArgs, tell_resume: Callable[[SweepConfig], str]
) -> "tuple[SweepConfig, Preflight]":
    """The config with the steps that it trains, and what was checked; see run_from_args."""
    with disable_gc():
        from sweeps.checks.preflight import check
        from sweeps.checks.resume import check_unchanged

    preflight = check(
        args.config,
        is_resumed=args.resume,
        needs_gpu=not args.dry_run,
        tell_resume=tell_resume,
    )
    config = count_steps(args.config, len(preflight.splits.train))
    if args.resume:
        check_unchanged(config, preflight)
    return config, preflight


def _log_interruption(paths: RunPaths, reason: str) -> None:
    """Has the log say why the process ended, if it can be written."""
    with contextlib.suppress(SweepAborted, OSError):
        if paths.events.exists():
            EventLog(paths.events).append("sweep_interrupted", reason=reason)


def _is_deleted(path: Path) -> bool:
    """Whether a file is not there; one on a lost disk is."""
    try:
        path.lstat()
    except OSError as error:
        return find_disk_fault(error) is not LOST_DISK
    return False


@contextlib.contextmanager
def _restore_process() -> Iterator[None]:
    """What a sweep changes in its process is afterwards as before."""
    environment, is_main = dict(os.environ), threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    handlers = {number: signal.getsignal(number) for number in numbers}
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
def _silence_notebook() -> Iterator[None]:
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
