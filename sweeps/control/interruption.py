"""How a driver ends that a scheduler stops by a signal, or that loses Ray's head."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from cluster.find import is_answering
from sweeps.cli import EXIT_INTERRUPTED
from sweeps.records.events import EventLog

CHECK_INTERVAL_S = 2.0
"""Between two looks whether the head answers."""
TELL_AFTER_S, END_AFTER_S = 8.0, 45.0
"""How long the head is silent before that is told, and before the driver ends: Ray would end the
process after 60 s by itself, without a word on how to go on. A driver that was told to end does so
after the first: its local Ray dies with it where all processes of its group are sent the signal."""

_is_stopped = threading.Event()
"""Set by the signal of a scheduler."""


def handle_signals_as_ctrl_c() -> None:
    """SIGTERM and SIGUSR1, which Slurm and clouds send before they stop a job, mean Ctrl-C from now
    on. To be called again after a library has set handlers of its own."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, _press_ctrl_c)


def _press_ctrl_c(*_: object) -> None:
    """Once: a driver gets a scheduler's signal twice where the script that started it passes it on,
    and a second Ctrl-C would have it save nothing."""
    _is_stopped.set()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as bash starts what ends in "&"
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def watch_head(address: str, log: EventLog, resume_with: str) -> Iterator[None]:
    """Tells how to go on when Ray's head falls silent, and ends the process when it stays so.

    Args:
        address: HOST:PORT of the head.
        log: of the sweep.
        resume_with: how the sweep goes on, in words to paste.
    """
    has_ended = threading.Event()
    _is_stopped.clear()  # by which an earlier sweep of this process ended

    def watch() -> None:
        heard_s, is_told = time.monotonic(), False
        while not has_ended.wait(CHECK_INTERVAL_S):
            if is_answering(address):
                heard_s, is_told = time.monotonic(), False
                continue
            silent_s = time.monotonic() - heard_s
            if silent_s > TELL_AFTER_S and not is_told and not _is_stopped.is_set():
                is_told = True
                text = f"Ray's head {address} does not answer; should the sweep end, go on"
                print(f"{text} where Ray runs with: {resume_with}", file=sys.stderr)
            if silent_s > (TELL_AFTER_S if _is_stopped.is_set() else END_AFTER_S):
                with contextlib.suppress(Exception):  # the process ends, whatever becomes of it
                    log.append("sweep_interrupted", reason="Ray's head is gone")
                print(f"interrupted; go on with: {resume_with}", flush=True)
                os._exit(EXIT_INTERRUPTED)

    threading.Thread(target=watch, name="head", daemon=True).start()
    try:
        yield
    finally:
        has_ended.set()
