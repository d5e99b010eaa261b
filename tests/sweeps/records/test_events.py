"""The event log: what survives kills, full disks and damage, and what replay makes of it."""

import errno
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.records.events import (
    EventLog,
    find_num_trials,
    make_params_fields,
    make_report_fields,
    parse_params,
    parse_report,
    read_events,
)
from sweeps.records.trial_record import replay, replay_all, replay_finals
from trainables.config import Hyperparameters, TrialReport
from trainables.errors import SweepAborted

PARAMS = Hyperparameters(lora_rank=8, lora_alpha=16.0, learning_rate=2e-4)


def make_report(trial_id: str = "t0000", step: int = 10, score: float = 30.0) -> TrialReport:
    return TrialReport(
        trial_id=trial_id,
        step=step,
        metrics={"rougeLsum": score, "eval_loss": 1.5},
        train_loss=2.0,
        learning_rate=1e-4,
        epoch=0.5,
        tokens=1000,
        tokens_per_s=50.0,
        seconds=20.0,
        peak_gib=1.5,
        checkpoint=Path("/run/t0000/step-10"),
    )


def start(log: EventLog, trial_id: str, number: int) -> None:
    log.append("trial_started", trial_id=trial_id, number=number, params=make_params_fields(PARAMS))


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not strict JSON")


def test_events_come_back_with_utc_time_and_fields(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "run" / "events.jsonl")
    log.append("sweep_started", name="günlük")
    log.append("sweep_ended")
    first, last = read_events(tmp_path / "run" / "events.jsonl")
    assert (first["kind"], first["name"]) == ("sweep_started", "günlük")
    assert last["kind"] == "sweep_ended"
    offset = datetime.fromisoformat(first["time"]).utcoffset()
    assert offset is not None and offset.total_seconds() == 0


def test_log_whose_run_was_deleted_is_not_written_into_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine" / "events.jsonl"
    log = EventLog(path)
    log.append("sweep_started")
    shutil.rmtree(path.parent)
    with pytest.raises(SweepAborted, match="it was deleted") as told:
        log.append("sweep_ended")
    assert told.value.fix.startswith("put its folder there, then repeat the command")


@pytest.mark.parametrize(("total", "is_full"), [(2**40, True), (0, False)])
def test_disk_is_full_only_if_it_tells_its_size(
    total: int, is_full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(total=total, free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    log = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(SweepAborted, match="No space left") if is_full else nullcontext():
        log.abort_if_full()


def test_line_that_does_not_fit_takes_no_other_threads_line_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread tells of a node that has joined while the driver writes a report."""
    log, is_written, write = EventLog(tmp_path / "events.jsonl"), threading.Event(), os.write

    def fail_late(file: int, content: bytes) -> int:
        if b"node_joined" not in content:
            return write(file, content)
        driver.start()
        is_written.wait(0.5)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def append() -> None:
        log.append("trial_ended", trial_id="t0000", status="stopped", reason="")
        is_written.set()

    driver = threading.Thread(target=append)
    monkeypatch.setattr(os, "write", fail_late)
    with pytest.raises(SweepAborted, match="No space left"):
        log.append("node_joined")
    driver.join()
    assert [event["kind"] for event in read_events(tmp_path / "events.jsonl")] == ["trial_ended"]


def test_reasons_are_written_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "longs3cret")
    log = EventLog(tmp_path / "events.jsonl")
    log.append("sweep_interrupted", reason="http://me:pw@host refuses longs3cret")
    (event,) = read_events(tmp_path / "events.jsonl")
    assert event["reason"] == "http://me:REDACTED@host refuses REDACTED"


@given(st.floats(allow_nan=True), st.floats(allow_nan=True), st.integers(1, 10**9))
def test_report_survives_the_log_exactly_as_strict_json(
    tmp_path_factory: pytest.TempPathFactory, loss: float, score: float, step: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    report = replace(make_report(step=step, score=score), train_loss=loss)
    EventLog(path).append("report", **make_report_fields(report))
    json.loads(path.read_text(), parse_constant=refuse_constant)
    (event,) = read_events(path)
    assert repr(parse_report(event)) == repr(report)


def test_report_of_a_cohort_leaves_the_others_ids_in_the_log_alone(tmp_path: Path) -> None:
    alone = make_report()
    others = tuple(make_report(trial_id) for trial_id in ("t0001", "t0002"))
    log = EventLog(tmp_path / "events.jsonl")
    log.append("report", **make_report_fields(replace(alone, cohort=others)))
    (event,) = read_events(tmp_path / "events.jsonl")
    assert event["cohort"] == ["t0001", "t0002"]
    assert parse_report(event) == alone


def test_params_survive_the_log(tmp_path: Path) -> None:
    params = replace(PARAMS, use_rslora=True, target_modules=("q_proj", "v_proj"))
    log = EventLog(tmp_path / "events.jsonl")
    log.append("trial_started", trial_id="t0000", number=0, params=make_params_fields(params))
    (event,) = read_events(tmp_path / "events.jsonl")
    assert parse_params(event) == params


def test_torn_last_line_is_ignored_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path).append("sweep_started")
    EventLog(path).append("sweep_ended")
    whole = path.read_bytes()
    first_bytes = whole.index(b"\n") + 1
    for kept_bytes in range(first_bytes, len(whole)):
        path.write_bytes(whole[:kept_bytes])
        assert [event["kind"] for event in read_events(path)] == ["sweep_started"]
        EventLog(path).append("sweep_resumed")
        assert [event["kind"] for event in read_events(path)] == ["sweep_started", "sweep_resumed"]


def test_damage_before_the_last_line_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path).append("sweep_started")
    good = path.read_bytes()
    for bad in (b'{"time": "20\n', b"[1]\n", b"{}\n", b"\xff\n", b"\n"):
        path.write_bytes(good + bad + good)
        with pytest.raises(SweepAborted, match=r"line 2 of .*events\.jsonl"):
            read_events(path)


def test_log_that_cannot_be_read_is_told_and_not_taken_for_none(tmp_path: Path) -> None:
    assert read_events(tmp_path / "events.jsonl") == []
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(SweepAborted, match=r"events\.jsonl cannot be read: Is a directory"):
        read_events(tmp_path / "events.jsonl")


def test_killed_writer_leaves_every_acknowledged_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    program = (
        "import sys; from pathlib import Path; from sweeps.records.events import EventLog\n"
        "log = EventLog(Path(sys.argv[1]))\n"
        "for i in range(10**9):\n"
        "    log.append('pack_started', i=i, padding='x' * 3000); print(i, flush=True)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(0.3)
    writer.send_signal(signal.SIGKILL)
    told = writer.stdout.read().splitlines()
    writer.wait()
    assert len(told) > 5
    kept = [event["i"] for event in read_events(path)]
    assert kept == list(range(len(kept))) and len(kept) > int(told[-1])


def test_full_disk_aborts_with_a_clear_message(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    with Path("/dev/full").open("r+b", buffering=0) as full:
        os.dup2(full.fileno(), log._lines._file)  # a link to it would be refused
    with pytest.raises(SweepAborted, match=r"events\.jsonl: No space left on device") as caught:
        log.append("sweep_started")
    assert caught.value.is_resumable


def test_half_written_line_is_taken_back_so_that_the_log_can_go_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.append("sweep_started")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size_bytes = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes + 40, limits[1]))
    try:
        with pytest.raises(SweepAborted):
            log.append("sweep_ended", padding="x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.stat().st_size == size_bytes
    log.append("sweep_resumed")
    assert [event["kind"] for event in read_events(path)] == ["sweep_started", "sweep_resumed"]


def test_event_is_on_disk_before_append_returns(tmp_path: Path, monkeypatch: Any) -> None:
    synced_bytes = []
    real_fsync = os.fsync

    def fsync(file: int) -> None:
        synced_bytes.append(os.fstat(file).st_size)
        real_fsync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    EventLog(tmp_path / "events.jsonl").append("sweep_started")
    assert synced_bytes == [(tmp_path / "events.jsonl").stat().st_size]


def test_replay_orders_trials_and_keeps_each_step_once(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("sweep_started")
    start(log, "t0001", 1)
    start(log, "t0000", 0)
    log.append("report", **make_report_fields(make_report("t0000", 10, 30.0)))
    log.append("sweep_resumed")
    start(log, "t0000", 0)
    log.append("report", **make_report_fields(make_report("t0000", 20, 33.0)))
    log.append("report", **make_report_fields(make_report("t0000", 10, 99.0)))
    log.append("trial_ended", trial_id="t0000", status="completed", reason="")
    log.append("final_scores", trial_id="t0000", scores={"test": {"rougeLsum": 33.0}})
    first, second = replay(read_events(tmp_path / "events.jsonl"))
    assert (first.trial_id, first.number, first.status) == ("t0000", 0, "completed")
    assert [(r.step, r.metrics["rougeLsum"]) for r in first.reports] == [(10, 30.0), (20, 33.0)]
    assert (second.trial_id, second.reports, second.status) == ("t0001", [], None)
    assert first.params == PARAMS


def test_runs_of_the_finals_are_told_apart_from_the_searchs_trials(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    start(log, "t0000", 0)
    start(log, "t0001", 1)
    log.append("trial_ended", trial_id="t0001", status="stopped", reason="place 2 of 2")
    run = {"trial_id": "f0001s1", "of": "t0001", "seed": 8}
    log.append("finals_started", finalists=["t0001"], baseline=None, runs=[run])
    log.append("report", **make_report_fields(make_report("f0001s1", 10, 30.0)))
    log.append("trial_ended", trial_id="f0001s1", status="completed", reason="")
    more = {"trial_id": "f0001s2", "of": "t0001", "seed": 9}
    log.append("finals_started", finalists=["t0001"], baseline=None, runs=[run, more])
    events = read_events(tmp_path / "events.jsonl")
    assert [(h.trial_id, h.status) for h in replay(events)] == [
        ("t0000", None),
        ("t0001", "stopped"),
    ]
    first, second = replay_finals(events)
    assert (first.trial_id, first.final_of, first.seed, first.number) == ("f0001s1", "t0001", 8, 1)
    assert (first.status, first.reason, len(first.reports)) == ("completed", "", 1)
    assert (second.trial_id, second.status, second.reports) == ("f0001s2", None, [])
    assert first.params == PARAMS
    ids = [history.trial_id for history in replay_all(events)]
    assert ids == ["t0000", "t0001", "f0001s1", "f0001s2"]


def test_trial_that_starts_again_after_its_end_is_running(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    start(log, "t0000", 0)
    log.append("report", **make_report_fields(make_report()))
    log.append("trial_ended", trial_id="t0000", status="failed", reason="node lost")
    (ended,) = replay(read_events(tmp_path / "events.jsonl"))
    assert (ended.status, ended.reason) == ("failed", "node lost")
    start(log, "t0000", 0)
    (running,) = replay(read_events(tmp_path / "events.jsonl"))
    assert running.status is None and len(running.reports) == 1
    assert math.isfinite(running.reports[0].train_loss)


def test_trials_of_a_lost_pack_are_not_those_that_the_search_shall_have(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("sweep_started", name="run", num_trials=32)
    log.append("pack_lost", pack="a", node="10.0.0.2", gpu="0", reason="it died", num_trials=3)
    assert find_num_trials(read_events(tmp_path / "events.jsonl"), 9) == 32
