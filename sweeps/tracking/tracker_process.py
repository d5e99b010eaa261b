"""The trackers of a running sweep: a process of its own, of low priority, has them follow the log.

It loads its libraries while Ray and the packs start, and reads the run's files alone, so no trial
waits for a library, a database or a server. Its standard input is a pipe whose other end only the
sweep has: what is tracked comes first, and at the sweep's end whether the disk is trusted. If the
pipe ends without that, the sweep was killed, and the process goes at once, before a resume writes
to the same places.
"""

import contextlib
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from subprocess import Popen
from typing import Any

from sweeps.command_line.safe_output import guard_output
from sweeps.records.paths import RunPaths
from sweeps.records.request_file import Request, append_request
from sweeps.tracking.follow_log import Trackers, describe_error
from sweeps.tracking.run_values import TrackedSweep
from sweeps.tracking.trackers import load_libraries, make_trackers
from trainables.errors import SweepAborted
from trainables.process import leave_signals_to_sweep, start_module
from trainables.shell import write_command

NICENESS = 10
"""About a tenth of a core that others want too: a Stop button is still seen within seconds."""

FINISH_TIMEOUT_S = 900.0
"""At a sweep's end, for all trackers together."""
INTERRUPTED_TIMEOUT_S = 60.0
"""For which an interrupted sweep waits for its trackers: who has sent SIGTERM may not wait longer,
and a resume writes what they lack."""

_log = logging.getLogger(__name__)


@contextmanager
def start_trackers(paths: RunPaths, names: Sequence[str]) -> Iterator[Popen[bytes] | None]:
    """The process, which loads what the trackers of these names need; it ends with the block.

    One that cannot be started costs a warning, and is None.
    """
    words = (str(paths.folder), ",".join(names))
    try:
        process = start_module("sweeps.tracking.tracker_process", *words)
    except OSError as refused:
        remedy = f"python -m sweeps.sync {write_command(paths.folder)}"
        _log.warning("the trackers' process cannot be started (%s): %s", refused, remedy)
        yield None
        return
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def run_trackers(process: Popen[bytes] | None, sweep: TrackedSweep) -> Iterator[None]:
    """Has the trackers of a sweep follow its log during the block, and catch up with it at the end.

    A process that ends before costs a warning.
    """
    if process is None:
        yield
        return
    _send_message(process, sweep)
    is_disk_trusted, limit_s = True, 2 * FINISH_TIMEOUT_S  # the process's own limit comes first
    try:
        yield
    except (SweepAborted, OSError):  # perhaps of a full disk, of which not every tracker tells
        is_disk_trusted = False
        raise
    except KeyboardInterrupt:
        limit_s = INTERRUPTED_TIMEOUT_S
        raise
    finally:
        _send_message(process, is_disk_trusted)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(limit_s)
        if process.returncode != 0:
            remedy = f"python -m sweeps.sync {write_command(sweep.paths.folder)}"
            _log.warning("the trackers lack the sweep's end, their process died: %s", remedy)


def _send_message(process: Popen[bytes], content: object) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its exit code tells
        process.stdin.write(pickle.dumps(content))
        process.stdin.flush()


def _receive_message() -> Any:
    try:
        return pickle.load(sys.stdin.buffer)
    except EOFError:
        os._exit(1)


def main() -> None:
    """Follows the log until the sweep ends."""
    leave_signals_to_sweep()
    os.nice(NICENESS)
    guard_output()  # libraries write to the sweep's standard error
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    load_libraries(sys.argv[2].split(","))
    sweep: TrackedSweep = _receive_message()

    def ask_to_stop(trial_id: str) -> None:
        """Has a trial stopped whose Stop button in W&B was pressed."""
        request = Request(id=f"wandb-stop-{trial_id}", stop=(trial_id,))
        append_request(sweep.paths, request)

    trackers = Trackers(sweep.paths, make_trackers(sweep, ask_to_stop))
    trackers.start()
    finish(trackers, sweep.paths, is_disk_trusted=_receive_message())
    os._exit(0)  # a thread that is still in a library holds nothing up


def finish(trackers: Trackers, paths: RunPaths, *, is_disk_trusted: bool) -> None:
    """Has trackers catch up in bounded time, and tells which of them lack something."""
    try:
        trackers.finish(FINISH_TIMEOUT_S, is_disk_trusted=is_disk_trusted)
    except Exception as error:  # of a log that cannot be read
        _log.warning("the trackers lack the sweep's end: %s", describe_error(error))
        return
    if trackers.failed:
        _log.warning(
            "%s lacks something of the sweep: python -m sweeps.sync %s --track %s",
            ", ".join(trackers.failed),
            write_command(paths.folder),
            ",".join(trackers.failed),
        )


if __name__ == "__main__":
    main()
