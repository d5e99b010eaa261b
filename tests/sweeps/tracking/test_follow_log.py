"""Trackers follow the log: none of them holds up another, and none costs a trial."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.tracking import follow_log, tracker_process
from sweeps.tracking.follow_log import Trackers
from trainables.errors import SweepAborted


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_log, "POLL_INTERVAL_S", 0.02)


class Recorder:
    """A tracker that knows how many events it has shown, and fails or waits when told to."""

    def __init__(self, name: str = "recorder") -> None:
        self.name = name
        self.num_events = 0
        self.closed: list[bool] = []
        self.error: Exception | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def replay(self, events: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]) -> None:
        self.may_go_on.wait()
        if self.error is not None:
            raise self.error
        self.num_events = len(events)

    def close(self, *, is_disk_trusted: bool) -> None:
        self.closed.append(is_disk_trusted)


def wait_for(tracker: Recorder, num_events: int) -> None:
    deadline_s = time.monotonic() + 10.0
    while tracker.num_events != num_events:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_slow_tracker_holds_up_neither_the_log_nor_the_others(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    log, slow, quick = EventLog(paths.events), Recorder("slow"), Recorder("quick")
    slow.may_go_on.clear()
    trackers = Trackers(paths, [slow, quick])
    trackers.start()
    for number in range(1, 4):
        log.append("sweep_started", name="x")
        wait_for(quick, number)
    assert slow.num_events == 0
    slow.may_go_on.set()
    trackers.finish()
    assert slow.num_events == quick.num_events == 3
    assert slow.closed == quick.closed == [True]


def test_failing_tracker_costs_one_warning_and_catches_up_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_log, "RETRY_INTERVAL_S", 0.05)
    paths = RunPaths(tmp_path / "my run")
    paths.folder.mkdir()
    log, failing, sound = EventLog(paths.events), Recorder("failing"), Recorder("sound")
    failing.error = ConnectionError("refused\nby a long\x1b[31m story")
    trackers = Trackers(paths, [failing, sound])
    trackers.start()
    log.append("sweep_started", name="x")
    wait_for(sound, 1)
    time.sleep(0.3)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("failing cannot be written and is tried again (refused).")
    assert f"python -m sweeps.sync '{paths.folder}' --track failing" in warning
    assert trackers.failed == ["failing"]
    failing.error = None
    wait_for(failing, 1)
    assert trackers.failed == []
    failing.error = ConnectionError("refused")
    log.append("sweep_resumed", name="x")
    trackers.finish()
    assert trackers.failed == ["failing"] and len(caplog.records) == 1


def test_tracker_without_an_answer_does_not_keep_a_sweep_from_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_process, "FINISH_TIMEOUT_S", 0.3)
    paths, stuck, sound = RunPaths(tmp_path), Recorder("stuck"), Recorder("sound")
    stuck.may_go_on.clear()
    EventLog(paths.events).append("sweep_started", name="x")
    trackers = Trackers(paths, [stuck, sound])
    tracker_process.finish(trackers, paths, is_disk_trusted=True)
    assert trackers.failed == ["stuck"] and sound.closed == [True]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.endswith(f"python -m sweeps.sync {tmp_path} --track stuck")
    stuck.may_go_on.set()
    trackers.finish()
    assert trackers.failed == [] and stuck.num_events == 1


def test_finish_may_be_called_again_when_the_log_has_grown(tmp_path: Path) -> None:
    paths, tracker = RunPaths(tmp_path), Recorder()
    log, trackers = EventLog(paths.events), Trackers(paths, [tracker])
    log.append("sweep_started", name="x")
    trackers.finish()
    log.append("sweep_ended")
    trackers.finish(is_disk_trusted=False)
    assert tracker.num_events == 2 and tracker.closed == [True, False]


def test_what_was_read_of_a_log_is_not_read_again(tmp_path: Path) -> None:
    paths, tracker = RunPaths(tmp_path), Recorder()
    log, trackers = EventLog(paths.events), Trackers(paths, [tracker])
    log.append("sweep_started", name="x")
    trackers.finish()
    read = paths.events.read_bytes()
    log.append("sweep_ended")
    new = paths.events.read_bytes().removeprefix(read)
    paths.events.write_bytes(b"?" * len(read) + new + new[:-9])  # the last line is torn
    trackers.finish()
    assert tracker.num_events == 2
    paths.events.write_bytes(b"?" * len(read) + new + b"broken\n")
    with pytest.raises(SweepAborted, match="line 3 of"):
        trackers.finish()


def test_log_that_cannot_be_read_is_no_fault_of_a_tracker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = RunPaths(tmp_path)
    paths.events.write_text('{broken\n{"kind": "sweep_ended"}\n')
    trackers = Trackers(paths, [Recorder(), Recorder()])
    trackers.start()
    with pytest.raises(SweepAborted, match="line 1 of"):
        trackers.finish()
    paths.events.write_text('{"kind": "report"}\n')  # as another version might write it
    with pytest.raises(SweepAborted, match="line 1 of"):
        trackers.finish()
    assert not caplog.records
