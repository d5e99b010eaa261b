"""report.html while its sweep runs: a process of its own, of lowest priority, writes it.

It reads the run's files alone, so the sweep does nothing for it, and no trial waits for it. It ends
when the sweep does: its standard input is a pipe whose other end only the sweep has.
"""

import contextlib
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sweeps.records.paths import RunPaths
from trainables.process import leave_signals_to_sweep, start_module
from trainables.shell import write_command

INTERVAL_S = 5.0
"""Between two looks at the log."""
REWRITE_S = 300.0
"""The page is written that often even if nothing happens; page.STALE_S is longer."""
REST_FACTOR = 10.0
"""The process rests for so many times as long as the last page took."""
END_TIMEOUT_S = 60.0
"""How long the last page is waited for."""
ERROR_TIMEOUT_S = 10.0
"""How long it is waited for after an error, or Ctrl-C."""
LOWEST = 19
"""The lowest priority that nice gives."""


@contextmanager
def keep_report(paths: RunPaths) -> Iterator[None]:
    """Keeps the run's report up to date during the block, and writes it a last time at its end.

    A report that cannot be written costs a warning. After an error it is waited for a short while.
    The process is gone after the block, so that none overwrites the page of one that resumes.
    """
    with tempfile.TemporaryFile() as said:  # a pipe that nobody reads would hold the process up
        try:
            writer = start_module("sweeps.publish.report.follow", str(paths.folder), stderr=said)
        except OSError as refused:
            _warn_user(paths, str(refused))
            yield
            return
        limit_s, reason = ERROR_TIMEOUT_S, "it was killed"
        try:
            yield
            limit_s = END_TIMEOUT_S
        finally:
            assert writer.stdin is not None
            writer.stdin.close()
            try:
                writer.wait(limit_s)
            except subprocess.TimeoutExpired:
                reason = f"it has taken more than {limit_s:.0f} s"
            finally:
                writer.kill()
                writer.wait()
        if writer.returncode != 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            _warn_user(paths, lines[-1] if lines else reason)


def main(folder: Path) -> int:
    """Writes the page whenever the log has grown, until standard input ends; then once more."""
    leave_signals_to_sweep()
    os.nice(LOWEST)
    import optuna  # these take seconds, with the lowest priority

    from sweeps.publish.load_run import load_run
    from sweeps.publish.report.page import render
    from trainables.files import write_atomic

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    paths = RunPaths(folder)
    for left in folder.glob(f".{paths.report.name}.*.tmp"):  # by one that was killed
        left.unlink(missing_ok=True)
    known, rest_s, has_ended, written_s = -1, 0.0, False, -REWRITE_S
    while not has_ended:
        has_ended = bool(select.select([sys.stdin], [], [], rest_s)[0])
        size, began_s = 0, time.monotonic()
        with contextlib.suppress(OSError):
            size = paths.events.stat().st_size
        if size == known and not has_ended and began_s - written_s < REWRITE_S:
            continue
        try:
            sweep = replace(load_run(folder), is_running=not has_ended)
            write_atomic(paths.report, render([sweep]))
        except Exception:  # the next page may be whole: what it is made of is being written
            if has_ended:
                raise
        known, written_s = size, began_s
        rest_s = max(INTERVAL_S, REST_FACTOR * (time.monotonic() - began_s))
    return 0


def _warn_user(paths: RunPaths, reason: str) -> None:
    remedy = f"python -m sweeps.report {write_command(paths.folder)} makes it"
    print(f"warning: report.html could not be written: {reason}; {remedy}", file=sys.stderr)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main(Path(sys.argv[1])))
