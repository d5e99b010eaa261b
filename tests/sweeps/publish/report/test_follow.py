"""The page while a sweep runs: written by a process of its own, which ends with the sweep."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sweeps.publish.report import follow
from sweeps.publish.report.follow import keep_report
from sweeps.records.paths import RunPaths
from tests.sweeps.publish.report.many_trials import write_run

pytestmark = pytest.mark.slow
LIMIT_S = 120.0


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def find_writers(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "sweeps.publish.report.follow" in words and str(folder) in words:
            found.append(process)
    return found


def read_page(paths: RunPaths) -> str:
    return paths.report.read_text(encoding="utf-8") if paths.report.exists() else ""


def test_page_follows_the_log_and_is_written_at_the_end(tmp_path: Path) -> None:
    paths = write_run(tmp_path / "live", num_trials=12, is_ended=False)
    events = paths.events.read_text().splitlines(keepends=True)
    paths.events.write_text("".join(events[:1]))
    with keep_report(paths):
        wait_until(lambda: "No trial has started yet" in read_page(paths))
        assert 'data-refresh-s="' in read_page(paths)
        (writer,) = find_writers(paths.folder)
        assert writer.nice() == 19
        with paths.events.open("a") as log:
            log.writelines(events[1:])
        wait_until(lambda: "12 of 12 trials" in read_page(paths))
        with paths.events.open("a") as log:
            log.write(json.dumps(json.loads(events[-1]) | {"trial_id": "t0000"}) + "\n")
    assert "data-refresh-s" not in read_page(paths) and "not finished" in read_page(paths)
    assert find_writers(paths.folder) == []
    assert not list(paths.folder.glob(".report*"))


def test_writer_ends_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    paths = write_run(tmp_path / "killed", num_trials=4, is_ended=False)
    code = "import sys, time; from pathlib import Path; from sweeps.records.paths import RunPaths\n"
    code += "from sweeps.publish.report.follow import keep_report\n"
    code += "with keep_report(RunPaths(Path(sys.argv[1]))): time.sleep(600)"
    sweep = subprocess.Popen([sys.executable, "-c", code, str(paths.folder)])
    wait_until(lambda: read_page(paths) != "")
    assert len(find_writers(paths.folder)) == 1
    sweep.kill()
    sweep.wait()
    wait_until(lambda: not find_writers(paths.folder))
    assert "not finished" in read_page(paths)


def test_writer_is_gone_after_an_error_even_if_it_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "ERROR_TIMEOUT_S", 0.5)
    paths = write_run(tmp_path / "broken", num_trials=4, is_ended=False)
    with pytest.raises(KeyboardInterrupt), keep_report(paths):
        wait_until(lambda: len(find_writers(paths.folder)) == 1)
        find_writers(paths.folder)[0].suspend()
        raise KeyboardInterrupt
    assert find_writers(paths.folder) == []


def test_page_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = write_run(tmp_path / "stuck", num_trials=4, is_ended=False)
    os.mkdir(paths.report)
    (paths.report / "file").touch()
    with keep_report(paths):
        pass
    assert "warning: report.html could not be written" in capfd.readouterr().err
