"""What a scheduler's signals and the death of a cluster's head do to a driver."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps.cli import EXIT_INTERRUPTED
from sweeps.records.events import read_events

WAITS = """
import time
from sweeps.control.interruption import handle_signals_as_ctrl_c
handle_signals_as_ctrl_c()
try:
    print("waits", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("saves", flush=True)
    time.sleep(1)
    raise SystemExit(77)
"""
WATCHES = """
import sys, time
from pathlib import Path
from sweeps.control import interruption
from sweeps.records.events import EventLog
interruption.CHECK_INTERVAL_S, interruption.TELL_AFTER_S, interruption.END_AFTER_S = 0.1, 0.5, 1.0
with interruption.watch_head(sys.argv[1], EventLog(Path(sys.argv[2])), "the command"):
    print("watches", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_of_schedulers_mean_ctrl_c_also_where_that_is_ignored(number: int) -> None:
    command = f"trap '' INT; exec {sys.executable} -c '{WAITS}'"
    with subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None and driver.stdout.readline()
        driver.send_signal(number)
        assert driver.stdout.readline() == b"saves\n"
        driver.send_signal(signal.SIGTERM)  # from the script that was sent the signal too
        assert driver.wait(30) == 77


def test_driver_whose_head_dies_tells_how_to_go_on_and_ends_as_by_ctrl_c(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = "{}:{}".format(*head.getsockname())
        command = [sys.executable, "-c", WATCHES, address, str(path)]
        driver = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert driver.stdout is not None and driver.stdout.readline()
        time.sleep(1.5)
        assert driver.poll() is None
    out, err = driver.communicate(timeout=30)
    assert driver.returncode == EXIT_INTERRUPTED
    assert f"head {address} does not answer" in err and err.count("the command") == 1
    assert out == "interrupted; go on with: the command\n"
    assert [event["kind"] for event in read_events(path)] == ["sweep_interrupted"]
