"""sweeps.status over folders as sweeps leave them, whole or torn, here or elsewhere."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sweeps import status as command
from sweeps.config import to_json
from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from sweeps.records.run_lock import find_lock_owner, lock_run, write_heartbeat
from sweeps.tracking.run_status import read_status
from tests.sweeps.commands import PROJECT, call
from tests.sweeps.control.controllers import open_controller
from tests.sweeps.invented_sweep import make_config, make_report
from trainables.errors import SweepAborted

CONFIG = make_config(num_trials=3, finals=True, num_finalists=2, num_final_seeds=2)
FACTS = {"num_gpus": 2, "num_packs": 2, "slots_per_gpu": 8}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which t0000 has reported twice, t0001 was stopped, and t0002 has begun."""
    paths = RunPaths(tmp_path_factory.mktemp("begun"))
    record = {
        **{"sweep_id": "id-1", "name": "invented", "digests": {}},
        "config": to_json(replace(CONFIG, tiny=True)),
        "metric": {"name": "rougeLsum", "mode": "max"},
        "rungs": [1, 3, 9],
    }
    paths.sweep_json.write_text(json.dumps(record))
    controller = open_controller(paths.folder, CONFIG)
    for _ in range(3):
        controller.next_trial()
    for trial_id, step, value in (("t0000", 1, 5.0), ("t0001", 1, 4.0), ("t0000", 3, 4.5)):
        controller.report(make_report(trial_id, step, value))
    return paths.folder


@pytest.fixture
def paths(begun: Path, tmp_path: Path) -> RunPaths:
    """A copy of it."""
    return RunPaths(shutil.copytree(begun, tmp_path / "my runs" / "invented"))


def look(paths: RunPaths) -> dict[str, Any]:
    """What --json prints."""
    ended = call("sweeps.status", str(paths.folder), "--json")
    assert ended.code == 0, ended.stderr
    facts: dict[str, Any] = json.loads(ended.stdout)
    assert facts["run"] == str(paths.folder)
    return facts


def complete(paths: RunPaths) -> None:
    """The search ends, its finals are held, in which a seed of the loser is lucky, and test is
    looked at."""
    controller = open_controller(paths.folder, CONFIG, is_resumed=True)
    for trial_id in ("t0000", "t0002"):
        controller.next_trial()
        for step in CONFIG.rungs:
            controller.report(make_report(trial_id, step, 6.0 + step))
    values = {"f0000s1": 7.0, "f0000s2": 8.0, "f0002s1": 2.0, "f0002s2": 20.0}
    for run_id, value in values.items():
        run = controller.next_trial()
        assert run is not None and run.trial_id == run_id
        for step in CONFIG.rungs:
            controller.report(make_report(run_id, step, value))
        assert look(paths)["best"]["trial_id"] in ("t0000", "t0002")
    result = {"winner": "t0000", "test/rougeLsum": 6.5, "test_base/rougeLsum": 1.5}
    log = EventLog(paths.events)
    log.append("summary", values=result, confusion=None)
    log.append("sweep_ended", predicted={}, actual={"wall_s": 9.0, "gpu_hours": 0.0}, gpu_time={})


def test_a_sweep_that_runs(paths: RunPaths) -> None:
    with lock_run(paths, "sweep"):
        assert look(paths)["left_s"] is None
        write_heartbeat(paths, 100.0, FACTS)
        facts = look(paths)
        text = call("sweeps.status", str(paths.folder)).stdout
    assert (facts["state"], facts["phase"], facts["num_trials"]) == ("running", "search", 3)
    assert facts["trials"] == {"running": 2, "stopped": 1} and facts["finals"] == {}
    best = {"trial_id": "t0000", "step": 3, "value": 4.5, "num_seeds": 0}
    assert facts["best"] == best  # 5.0 is a lower rung's
    assert 90.0 < facts["left_s"] <= 100.0 and facts["num_packs"] == 2
    assert facts["running"][0] == {"trial_id": "t0000", "step": 3, "value": 4.5}
    assert "invented: running (search), process" in text and "left: 0:01:" in text
    assert "  t0000 step 3/9, rougeLsum 4.5\n" in text and "sweeps.ask '" in text
    assert "GPUs: 2, packs: 2," in text


def test_a_process_that_ends_early_says_why_or_is_dead(paths: RunPaths) -> None:
    resume = (
        f"python -m sweeps.run samsum --tiny --name invented --runs-dir '{paths.folder.parent}'"
    )
    facts = look(paths)
    assert (facts["state"], facts["trials"]) == ("dead", {"unfinished": 2, "stopped": 1})
    assert facts["next"] == [f"{resume} --resume"] and not facts["running"]
    with lock_run(paths, "sync"):  # it runs no trials
        assert look(paths)["state"] == "dead"
    EventLog(paths.events).append("sweep_interrupted", reason="the \x1b[31mdisk is full")
    assert look(paths)["state"] == "interrupted"
    text = call("sweeps.status", str(paths.folder)).stdout
    assert "invented: interrupted: the [31mdisk is full\n" in text and "\x1b" not in text


def test_a_sweep_that_has_ended(paths: RunPaths) -> None:
    complete(paths)
    facts = look(paths)
    assert (facts["state"], facts["left_s"]) == ("ended", None)
    assert facts["result"] == {"winner": "t0000", "test": {"tuned": 6.5, "base": 1.5}}
    assert facts["finals"] == {"completed": 4}
    assert facts["best"] == {"trial_id": "t0000", "step": 9, "value": 7.5, "num_seeds": 2}
    text = call("sweeps.status", str(paths.folder)).stdout
    assert "best: rougeLsum 7.5 at step 9 (t0000, mean of 2 seeds)\n" in text
    assert "winner: t0000, on test: rougeLsum tuned 6.5" in text


def test_a_log_that_is_being_written_is_read_up_to_its_last_whole_line(paths: RunPaths) -> None:
    torn = '{"time": "2026-'
    with paths.events.open("a") as file:
        file.write(torn)
    assert look(paths)["trials"] == {"unfinished": 2, "stopped": 1}
    assert paths.events.read_text().endswith(torn)


def test_a_damaged_line_is_named(paths: RunPaths) -> None:
    paths.events.write_text("nonsense\n" + paths.events.read_text())
    error, fix = call("sweeps.status", str(paths.folder)).refusal()
    assert "line 1 of" in error and fix


def test_a_run_whose_first_event_is_to_come(paths: RunPaths) -> None:
    paths.events.unlink()
    with lock_run(paths, "sweep"):
        facts = look(paths)
    assert (facts["state"], facts["phase"], facts["best"]) == ("running", "start", None)


def test_long_silence_is_a_stall_by_what_reports_take(paths: RunPaths) -> None:
    lines = [json.loads(line) for line in paths.events.read_text().splitlines()]
    at = datetime.now(UTC) - timedelta(hours=3)
    for line in lines:  # a report every 100 s
        at += timedelta(seconds=100 if line["kind"] == "report" else 0)
        line["time"] = at.isoformat()
    paths.events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with lock_run(paths, "sweep"):
        # t0000 is to make 6 steps of 75 to 200 s, t0002 its first
        assert read_status(paths, at + timedelta(seconds=1000)).state == "running"
        late = read_status(paths, at + timedelta(seconds=10_000))
        assert late.state == "stalled" and "nothing happened" in late.reason
    assert read_status(paths, at + timedelta(seconds=10_000)).state == "dead"


def test_a_sweep_of_another_machine_lives_as_long_as_its_heart_beats(paths: RunPaths) -> None:
    paths.lock.write_text(json.dumps({"work": "sweep", "host": "a; b", "pid": 7}))
    facts = look(paths)
    assert facts["state"] == "unknown" and facts["next"][0] == "ssh 'a; b' ps -p 7"
    text = call("sweeps.status", str(paths.folder)).stdout
    assert "process 7 on a; b gives no sign of life, but locks of other machines" in text
    write_heartbeat(paths, None, FACTS)
    assert (look(paths)["state"], look(paths)["host"]) == ("running", "a; b")
    now = datetime.now(UTC) + timedelta(minutes=5)
    assert read_status(paths, now).state == "unknown"
    paths.heartbeat.write_text("{damaged")
    assert look(paths)["state"] == "unknown"


def test_a_folder_of_runs_has_a_line_each(paths: RunPaths) -> None:
    complete(paths)
    damaged = paths.folder.parent / "damaged"
    damaged.mkdir()
    (damaged / "sweep.json").write_text("{")
    ended = call("sweeps.status", str(paths.folder.parent))
    assert ended.code == 0
    head, *rows = ended.stdout.splitlines()
    assert head.split() == ["run", "state", "trials", "best", "left", "last", "event"]
    assert rows[0].startswith("damaged   unreadable") and "cannot be read" in rows[0]
    assert rows[1].startswith(
        "invented  ended       3/3     rougeLsum 7.5 at step 9 (t0000, mean of"
    )
    shown = json.loads(call("sweeps.status", str(paths.folder.parent), "--json").stdout)
    assert [run["state"] for run in shown["runs"]] == ["unreadable", "ended"]


def test_a_run_that_cannot_be_read_hides_no_other(
    paths: RunPaths,
) -> None:
    other = RunPaths(shutil.copytree(paths.folder, paths.folder.parent / "other"))
    other.events.unlink()
    other.events.symlink_to("/proc/self/mem")  # root too may not read its beginning
    with pytest.raises(SweepAborted, match=r"events.jsonl cannot be read: Input/output error"):
        read_status(other)
    shown = json.loads(call("sweeps.status", str(paths.folder.parent), "--json").stdout)
    states = {Path(run["run"]).name: run["state"] for run in shown["runs"]}
    assert states == {"invented": "dead", "other": "unreadable"}


def test_watching_ends_with_the_sweep(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "WATCH_INTERVAL_S", 0.1)
    has_looked = threading.Event()
    read: Callable[..., Any] = read_status

    def read_and_tell(*args: Any) -> Any:
        status = read(*args)
        has_looked.set()
        return status

    monkeypatch.setattr(command, "read_status", read_and_tell)

    def end_it() -> None:
        with lock_run(paths, "sweep"):
            has_looked.wait(10.0)
            time.sleep(0.3)
            complete(paths)

    thread = threading.Thread(target=end_it, daemon=True)
    thread.start()
    while not find_lock_owner(paths).is_alive:
        time.sleep(0.01)
    ended = call("sweeps.status", str(paths.folder), "--watch")
    thread.join()
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("invented: running") and lines[-1].startswith("invented: ended")
    assert all(line != following for line, following in pairwise(lines))


def test_watching_a_silent_run_of_another_machine_ends(paths: RunPaths) -> None:
    paths.lock.write_text(json.dumps({"work": "sweep", "host": "elsewhere", "pid": 7}))
    lines = [json.loads(line) for line in paths.events.read_text().splitlines()]
    at = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    paths.events.write_text("".join(json.dumps(line | {"time": at}) + "\n" for line in lines))
    for folder in (paths.folder, paths.folder.parent):
        assert "unknown" in call("sweeps.status", str(folder), "--watch").stdout


def test_it_is_quick_and_loads_little(paths: RunPaths) -> None:
    code = (
        "import sys; from sweeps.status import main; main([sys.argv[1]]);"
        "print(sorted({'torch', 'ray', 'wandb', 'pandas', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(paths.folder)], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_no_run_is_told(tmp_path: Path) -> None:
    error, fix = call("sweeps.status", str(tmp_path)).refusal()
    assert "there is no sweep in" in error and "sweeps.status RUN" in fix
