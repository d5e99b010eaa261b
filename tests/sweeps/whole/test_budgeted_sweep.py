"""Whole sweeps: what was predicted, where the time went, and a budget that ends one cleanly."""

import csv
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sweeps.cost.eta import sum_spent_s
from sweeps.records.trial_record import replay, replay_all
from sweeps.records.trials_csv import BUDGET_REASON
from tests.sweeps import small_sweep
from tests.sweeps.small_sweep import Finished, count
from trainables.packing.service.ledger import read_ledgers

EXTRA_S = 25.0
"""What the resumed sweep may take; some of it, on a busy machine all, goes into its start."""


def last(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The last event of a kind."""
    return [event for event in events if event["kind"] == kind][-1]


def seconds_in(path: Path) -> float:
    """The GPU-seconds of all rows of a table."""
    with path.open() as file:
        return sum(float(row["gpu_seconds"] or 0.0) for row in csv.DictReader(file))


def check_sums(folder: Path) -> None:
    """Asserts that tables and overhead sum to the packs' wall time, and that to the clock's."""
    events = small_sweep.events_of(folder)
    ledgers = read_ledgers(folder / "checkpoints")
    assert ledgers
    wall_s = sum(ledger.wall_s for ledger in ledgers)
    spent_s = last(events, "sweep_ended")["gpu_time"]
    overhead_s = sum(spent_s["overhead_s"].values())
    assert spent_s["search_s"] + spent_s["finals_s"] + overhead_s == pytest.approx(wall_s, rel=0.02)
    shares_s = sum(s.seconds for ledger in ledgers for name, s in ledger.shares.items())
    assert shares_s == pytest.approx(spent_s["search_s"] + spent_s["finals_s"], rel=0.02)
    assert seconds_in(folder / "trials.csv") == pytest.approx(spent_s["search_s"], rel=0.02)
    ended = datetime.fromisoformat(last(events, "pack_ended")["time"]).timestamp()
    assert ledgers[-1].wall_s == pytest.approx(ended - ledgers[-1].started, rel=0.02, abs=0.5)


def test_a_sweep_tells_what_it_will_take_and_what_it_took(finished: Finished) -> None:
    assert finished.code == 0, finished.output
    lines = finished.output.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("t0000 started"))
    assert any(line.startswith("estimate: about ") for line in lines[:first])
    for begin in ("GPU time: ", "saved by ASHA: ", "time: "):
        assert any(line.startswith(begin) for line in lines[first:]), begin
    assert not any(" by packing: " in line for line in lines)  # a claim about GPUs
    events = small_sweep.events_of(finished.folder)
    kinds = [event["kind"] for event in events]
    assert kinds.index("predicted") < kinds.index("trial_started")
    ended = last(events, "sweep_ended")
    assert 0.2 < ended["actual"]["wall_s"] / ended["predicted"]["wall_s"] < 5.0
    check_sums(finished.folder)


def test_a_budget_cleanly_ends_a_finished_sweep_that_is_given_more_trials(
    finished: Finished, tmp_path: Path
) -> None:
    folder = tmp_path / finished.name
    shutil.copytree(finished.folder, folder)
    before = small_sweep.events_of(folder)
    budget_s = sum_spent_s(before, [], 1)[0] + EXTRA_S
    flags = ("--num-trials", "400", "--time-budget", f"{budget_s:.0f}s")
    code, output = small_sweep.resume(tmp_path, finished.name, *flags)
    assert code == 0, output
    events = small_sweep.events_of(folder)
    histories = replay_all(events)
    num_trials = sum(one.final_of is None for one in histories)
    assert finished.num_trials <= num_trials < 400
    searched = small_sweep.check_whole(folder, finished.name, num_trials)
    assert searched[: finished.num_trials] == replay(before)
    late = [one for one in histories if one.reason == BUDGET_REASON]
    assert all(one.status == "stopped" and one.final_of is None for one in late)
    assert count(events, "sweep_ended") == 2
    assert (folder / "best" / "adapter_model.safetensors").exists()
    assert "best: t0" in output
    check_sums(folder)
