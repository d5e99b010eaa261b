"""A run folder as an object says what the run's files say, also while the sweep is on its way."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps import load_run, report, status
from sweeps.records.events import read_events
from sweeps.records.trial_record import replay, replay_all, replay_finals
from tests.sweeps import small_sweep
from tests.sweeps.commands import PROJECT
from tests.sweeps.small_sweep import Finished
from trainables.errors import SweepAborted
from trainables.files import encode_lines, to_strict_json


def test_finished_run_has_what_its_files_say(finished: Finished) -> None:
    run = load_run(finished.folder)
    told = json.loads((finished.folder / "finals.json").read_text())
    events = small_sweep.events_of(finished.folder)
    assert run.is_ended and run.name == finished.name and run.metric.name == "rougeLsum"
    assert list(run.trials) == replay(events) and list(run.final_runs) == replay_finals(events)
    assert run.finals is not None and run.finals.winner is not None
    assert run.best is not None and run.best.trial_id == told["winner"]
    assert run.finals.winner.trial_id == told["winner"]
    assert (run.adapter_id, run.adapter) == (told["adapter"], finished.folder / "best")
    assert run.finals.interval == tuple(told["interval"])
    assert run.best_params == run.best.params
    (tested,) = [event["scores"] for event in events if event["kind"] == "final_scores"]
    assert run.test_scores == tested["test"]
    assert run.scores["the untuned base"]["test"] == tested["test_base"]
    assert len(run.scores) == 3 and run.lead_intervals.keys() == run.scores.keys() - {
        "best adapter"
    }
    assert run.score_interval is not None
    low, high = run.score_interval
    assert low < run.test_scores["rougeLsum"] < high
    shown = repr(run)
    assert told["winner"] in shown and str(finished.folder) in shown and len(shown) < 300
    facts = to_strict_json(run.to_json())
    assert facts["best"]["trial_id"] == told["winner"] and facts["adapter"] == str(run.adapter)
    assert facts["finals"]["interval"] == told["interval"]
    assert sum(facts["trials"].values()) == 6


def test_tables_are_of_numbers(finished: Finished) -> None:
    run = load_run(str(finished.folder))
    frame = run.to_pandas()
    with (finished.folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(frame.columns) == list(rows[0]) and len(frame) == len(rows) == 6
    assert frame["steps"].dtype == "int64" and frame["use_rslora"].dtype == "bool"
    assert frame["learning_rate"].tolist() == [float(row["learning_rate"]) for row in rows]
    assert frame["reason"].tolist() == [row["reason"] for row in rows]
    reports = run.reports_to_pandas()
    records = replay_all(small_sweep.events_of(finished.folder))
    assert len(reports) == sum(len(record.reports) for record in records)
    last = reports[reports.trial_id == run.adapter_id].iloc[-1]
    assert last.rougeLsum == run.scores["best adapter"]["validation"]["rougeLsum"]
    assert {"step", "train_loss", "eval_loss", "final_of", "tokens_per_s"} <= set(reports.columns)


def test_run_that_is_on_its_way_has_its_leader_and_no_test(
    finished: Finished, tmp_path: Path
) -> None:
    for name in ("sweep.json", "rows"):
        copy = shutil.copytree if (finished.folder / name).is_dir() else shutil.copy
        copy(finished.folder / name, tmp_path / name)
    events = read_events(finished.folder / "events.jsonl")
    first_end = [event["kind"] for event in events].index("trial_ended")
    for kept in (events[:1], events[:first_end]):
        (tmp_path / "events.jsonl").write_bytes(encode_lines(kept))
        run = load_run(tmp_path)
        assert not run.is_ended and run.adapter is None and not run.test_scores
        assert len(run.to_pandas()) == len(run.trials)
        assert (run.best is None) == (len(kept) == 1)
    assert run.best is not None and run.best.reports
    assert set(run.to_pandas()["status"]) == {"unfinished"}  # its process is gone
    assert set(replace(run, is_running=True).to_pandas()["status"]) == {"running"}
    assert to_strict_json(run.to_json())["finals"] is None


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepAborted, match="there is no sweep in"):
        load_run(tmp_path)


@pytest.mark.slow
def test_programs_are_told_what_json_has(finished: Finished, tmp_path: Path) -> None:
    facts = load_run(finished.folder).to_json()
    best, finals = facts["best"], facts["finals"]
    assert isinstance(best, dict) and isinstance(finals, dict)
    assert facts.keys() | best.keys() <= told_keys("sweeps.run")
    assert told_keys("sweeps.run") <= facts.keys() | best.keys() | finals.keys()
    told = status.main([str(finished.folder)]).facts
    assert isinstance(told["best"], dict) and told["best"]["trial_id"] == best["trial_id"]
    assert told_keys("sweeps.status") <= told.keys() | told["best"].keys()
    words = [str(finished.folder), "--output", str(tmp_path / "page.html")]
    assert told_keys("sweeps.report") == report.main(words).facts.keys()


def told_keys(command: str) -> set[str]:
    """The keys that AGENTS.md says the command's object has."""
    text = (PROJECT / "AGENTS.md").read_text("utf-8")
    row = re.search(rf"^\| `{command}` \| (.*) \|$", text, re.MULTILINE)
    assert row
    return set(re.findall(r'`"(\w+)"`', row[1]))


@pytest.mark.slow
def test_reading_a_run_loads_neither_torch_nor_ray(finished: Finished) -> None:
    code = f"""
import sys
import sweeps
assert not [name for name in sys.modules if name.startswith("sweeps.")]
run = sweeps.load_run({str(finished.folder)!r})
run.to_json(), run.to_pandas(), run.reports_to_pandas()
from sweeps import run_sweep
assert not {{"torch", "ray"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
