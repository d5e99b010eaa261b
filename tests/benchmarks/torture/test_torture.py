"""A sweep whose processes are killed at random ends whole; and the checks would see if not."""

import json
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.cli import parse
from sweeps.records.trial_record import replay
from sweeps.tracking.wandb_tracker import COMPLETE_FILE
from tests.benchmarks.torture import checks, curves, kills, namespaces, side_by_side
from tests.benchmarks.torture.__main__ import main
from tests.benchmarks.torture.args import TortureArgs
from tests.benchmarks.torture.one_sweep import torture_sweep
from tests.benchmarks.torture.result import Result, append_result
from tests.sweeps.small_sweep import Finished
from trainables.errors import SweepAborted

TRIAL_RUNS = "UPDATE trials SET state = 'RUNNING' WHERE number = 2"
VALUE_IS_FORGOTTEN = "DELETE FROM trial_intermediate_values WHERE trial_intermediate_value_id = 1"
SHORT = TortureArgs(seed=5, kills=3, num_trials=4, max_steps=9, finals=False)


@pytest.mark.sweep
def test_a_kill_of_each_kind_loses_nothing(tmp_path: Path) -> None:
    result = torture_sweep(SHORT, tmp_path)
    assert result.faults == []
    assert result.num_hits.keys() == {"trial", "pack", "driver"}
    assert result.num_hits.total() == SHORT.kills
    assert result.num_drivers > result.num_hits["driver"]
    assert result.num_reports >= result.num_curves >= SHORT.num_trials
    assert 0 <= result.largest_loss_difference < 1e-4


@pytest.mark.lab
@pytest.mark.timeout(1800)
def test_faults_of_a_clusters_nodes_lose_nothing(tmp_path: Path) -> None:
    args = replace(SHORT, nodes=2, kills=7)
    result = torture_sweep(args, tmp_path)
    assert result.faults == []
    assert result.num_hits == dict.fromkeys(args.shares, 1)
    assert result.num_reports >= result.num_curves >= SHORT.num_trials


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("nodes", [0, 3])
def test_plan_is_the_seeds_and_hits_each_kind(seed: int, nodes: int) -> None:
    args = TortureArgs(seed=seed, kills=8, fill_disk=True, nodes=nodes, cut_s=float(nodes))
    hits = kills.plan_hits(args, random.Random(seed))
    assert hits == kills.plan_hits(args, random.Random(seed))
    counts = Counter(hits)
    assert counts["disk"] == 1 and hits[0] not in ("disk", "cut") and hits[-1] == "driver"
    assert counts["cut"] == (nodes > 0)
    assert counts.total() - counts["disk"] - counts["cut"] == args.kills
    assert all(counts[kind] >= 1 for kind in args.shares)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--kills", "2"], "kills is 2; it must be at least 3"),
        (["--nodes", "3", "--kills", "6"], "kills is 6; it must be at least 7"),
        (["--nodes", "1"], "nodes is 1; it must be 0, or at least 2"),
        (["--cut-s", "30"], "--cut-s is 30 without nodes"),
        (["--at-once", "0"], "--at-once is 0; it must be at least 1"),
        (["--num-runs", "2", "--runs-dir", "x"], "--runs-dir holds one sweep"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], rule: str) -> None:
    with pytest.raises(SweepAborted, match=rule):
        main(words)


@given(num_cores=st.integers(1, 40), num_places=st.integers(1, 20))
def test_every_core_is_some_places_and_no_place_lacks_one(num_cores: int, num_places: int) -> None:
    cores = list(range(100, 100 + num_cores))
    shares = [side_by_side.choose_cores(cores, index, num_places) for index in range(num_places)]
    assert all(len(set(share)) == len(share) >= min(num_cores, 2) for share in shares)
    assert {core for share in shares for core in share} == set(cores)


def test_run_of_many_has_the_flags_of_all_and_its_own_seed() -> None:
    args = TortureArgs(
        seed=3, num_runs=4, at_once=2, fill_disk=True, finals=False, results=Path("r.jsonl")
    )
    one = parse(TortureArgs, side_by_side.list_words(args, 5), "torture")
    assert one == replace(args, seed=5, num_runs=1, at_once=1)


def test_runs_that_have_a_result_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = TortureArgs(seed=3, num_runs=3, nodes=2, cut_s=30.0, results=tmp_path / "r.jsonl")
    started = []
    monkeypatch.setattr(
        side_by_side, "_run_torture", lambda _, seed, cores: started.append(seed) or 0
    )
    assert args.results is not None
    empty = Result(
        hits=[],
        seed=4,
        num_drivers=1,
        num_trials=4,
        num_final_runs=0,
        num_curves=0,
        num_reports=0,
        largest_loss_difference=0,
        judged_by_spread=[],
        seconds=0,
        check_seconds=0,
        faults=[],
        left_out=["cut"],
    )
    append_result(args.results, args, empty)
    append_result(args.results, replace(args, nodes=3), replace(empty, seed=5))
    assert side_by_side.run_all(args) == [0, 0]
    assert started == [3, 5]


def test_what_a_machine_does_not_allow_is_left_out_aloud(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = TortureArgs(nodes=2, cut_s=30.0, fill_disk=True)
    monkeypatch.setenv(namespaces.POSSIBLE, "disk,cut")
    assert namespaces.leave_out_impossible(args) == (args, [])
    monkeypatch.setenv(namespaces.POSSIBLE, "cut")
    assert namespaces.leave_out_impossible(args) == (replace(args, fill_disk=False), ["disk"])
    assert "left out" in capsys.readouterr().out
    monkeypatch.setenv(namespaces.POSSIBLE, "")
    assert namespaces.leave_out_impossible(args)[1] == ["disk", "cut"]


def test_another_loss_is_a_fault_of_the_curve(finished: Finished) -> None:
    history = replay(_read_events(finished.folder))[0]
    assert curves.find_faults(history, history.reports) == []
    last = history.reports[-1]
    other = [*history.reports[:-1], replace(last, train_loss=last.train_loss * 1.001)]
    (fault,) = curves.find_faults(history, other)
    assert fault.startswith(f"{history.trial_id} at step {last.step}: train_loss")
    far = [*history.reports[:-1], replace(last, train_loss=last.train_loss * 1.0022)]
    beyond = [*history.reports[:-1], replace(last, train_loss=last.train_loss * 0.9995)]
    assert len(curves.find_faults(history, other, far)) == 0  # no farther off than they are apart
    assert len(curves.find_faults(history, other, other)) == 1
    assert len(curves.find_faults(history, far, other, beyond)) == 0
    (fault,) = curves.find_faults(history, history.reports[:-1])
    assert fault == f"{history.trial_id} at step {last.step}: a second training has no such report"


def test_undisturbed_sweep_has_no_fault(finished: Finished) -> None:
    faults = checks.find_faults(finished.folder, finished.name, finished.num_trials)
    assert faults == []


def test_missing_trial_is_a_fault(finished: Finished) -> None:
    faults = checks.find_faults(finished.folder, finished.name, finished.num_trials + 1)
    assert _list_checks(faults) == {"check_whole", "check_rows"}


def _drop_line(name: str, index: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines(keepends=True)
        del lines[index]
        (folder / name).write_text("".join(lines))

    return damage


def _repeat_last_line(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join([*lines, lines[-1]]))

    return damage


def _repeat(kind: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        events = _read_events(folder)
        _write_events(folder, [*events, _find_first(events, kind)])

    return damage


def _drop(kind: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        events = _read_events(folder)
        events.remove(_find_first(events, kind))
        _write_events(folder, events)

    return damage


def _change_score(folder: Path) -> None:
    events = _read_events(folder)
    _find_first(events, "report")["metrics"]["rougeLsum"] += 1.0
    _write_events(folder, events)


def _fail_trial(folder: Path) -> None:
    events = _read_events(folder)
    _find_first(events, "trial_ended").update(status="failed", reason="its process ended")
    _write_events(folder, events)


def _change_study(statement: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with sqlite3.connect(folder / "optuna.db") as study:
            assert study.execute(statement).rowcount == 1

    return damage


def _drop_wandb_run(folder: Path) -> None:
    shutil.rmtree(next(folder.glob("wandb/offline-run-*")))


def _repeat_wandb_run(folder: Path) -> None:
    first = next(folder.glob("wandb/offline-run-*"))
    shutil.copytree(first, first.with_name(f"{first.name}-again"))


def _take_another_adapter(folder: Path) -> None:
    adapter = folder / "best" / checks.ADAPTER
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize(
    ("damage", "seen_by"),
    [
        (_drop_line("trials.csv", 2), {"check_whole", "check_rows"}),
        (_repeat_last_line("trials.csv"), {"check_rows"}),
        (_repeat_last_line("finals.csv"), {"check_finals"}),
        (_repeat("report"), {"check_whole"}),
        (_repeat("trial_ended"), {"check_whole"}),
        (_repeat("final_scores"), {"check_best"}),
        (_drop("report"), {"check_whole", "check_wandb"}),
        (_drop("trial_ended"), {"check_whole", "check_wandb"}),
        (_drop("final_scores"), {"check_best"}),
        (_change_score, {"check_whole", "check_wandb"}),
        (_fail_trial, {"check_whole", "check_none_failed", "check_wandb"}),
        (_change_study(TRIAL_RUNS), {"check_whole", "check_study"}),
        (_change_study(VALUE_IS_FORGOTTEN), {"check_whole"}),
        (_drop_wandb_run, {"check_whole", "check_wandb"}),
        (_repeat_wandb_run, {"check_whole", "offline_runs"}),
        (_drop_line(f"wandb/{COMPLETE_FILE}", -1), {"check_whole"}),
        (_take_another_adapter, {"check_best"}),
    ],
)
def test_damage_is_seen(
    finished: Finished, tmp_path: Path, damage: Callable[[Path], None], seen_by: set[str]
) -> None:
    folder = tmp_path / finished.name
    shutil.copytree(finished.folder, folder)
    damage(folder)
    assert _list_checks(checks.find_faults(folder, finished.name, finished.num_trials)) == seen_by


def _list_checks(faults: list[str]) -> set[str]:
    return {fault.split(",")[0] for fault in faults}


def _find_first(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(event for event in events if event["kind"] == kind)


def _read_events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def _write_events(folder: Path, events: list[dict[str, Any]]) -> None:
    lines = [json.dumps(event) + "\n" for event in events]
    (folder / "events.jsonl").write_text("".join(lines))
