"""A sweep whose processes are killed at random ends whole; and the checks would see if not."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torture
import torture_checks
from conftest import Finished

from sweeps.tracking.events import replay
from trainables.errors import SweepAborted

SHORT = torture.TortureArgs(seed=5, kills=5, num_trials=8, max_steps=9, finals=False)


def test_five_kills_lose_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert torture.torture(SHORT, tmp_path) == []
    log = capfd.readouterr().out
    hits = Counter(line.split("SIGKILL ")[1].split()[0] for line in log.splitlines()
                   if "SIGKILL" in line)  # fmt: skip
    assert hits.keys() == {"trial", "pack", "driver"}
    assert hits.total() == SHORT.kills


@pytest.mark.parametrize("seed", range(20))
def test_plan_is_the_seeds_and_hits_each_kind(seed: int) -> None:
    args = torture.TortureArgs(seed=seed, kills=4, fill_disk=True)
    hits = torture.plan(args, random.Random(seed))
    assert hits == torture.plan(args, random.Random(seed))
    counts = Counter(hits)
    assert counts["disk"] == 1 and hits[0] != "disk"
    assert counts.total() - counts["disk"] == args.kills
    assert all(counts[kind] >= 1 for kind in torture.SHARES)


def test_too_few_kills_are_refused() -> None:
    with pytest.raises(SweepAborted, match="kills is 2; it must be at least 3"):
        torture.main(["--kills", "2"])


def test_another_loss_is_a_fault_of_the_curve(finished: Finished) -> None:
    history = replay(_events(finished.folder))[0]
    assert torture_checks.curve_faults(history, history.reports) == []
    last = history.reports[-1]
    other = [*history.reports[:-1], replace(last, train_loss=last.train_loss * 1.001)]
    (fault,) = torture_checks.curve_faults(history, other)
    assert fault.startswith(f"{history.trial_id} at step {last.step}: train_loss")
    (fault,) = torture_checks.curve_faults(history, history.reports[:-1])
    assert fault == f"{history.trial_id} at step {last.step}: a second training has no such report"


def test_undisturbed_sweep_has_no_fault(finished: Finished) -> None:
    found = torture_checks.faults(finished.folder, finished.name, finished.num_trials)
    assert found == []


def test_missing_trial_is_a_fault(finished: Finished) -> None:
    with pytest.raises(AssertionError):
        torture_checks.check_rows(finished.folder, finished.num_trials + 1)
    found = torture_checks.faults(finished.folder, finished.name, finished.num_trials + 1)
    assert [fault.split(",")[0] for fault in found] == ["check_whole", "check_rows"]


def _events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
