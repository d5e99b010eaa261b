"""What must hold of a sweep whose processes were killed: one story everywhere, the same curves."""

import csv
import math
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import optuna
import pytest
import small_sweep
from optuna.trial import TrialState
from wandb_files import offline_runs

from sweeps import record
from sweeps.config import SweepConfig, from_json
from sweeps.paths import RunPaths
from sweeps.tracking.events import TrialHistory, replay_all
from trainables.config import TrialConfig, TrialReport
from trainables.packing.capacity import Capacity
from trainables.packing.events import Reported
from trainables.packing.host import PackHost

NUM_SLOTS = 4
EVENT_WAIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How the curves of a sweep's trials differ from undisturbed ones."""

    num_trials: int
    num_reports: int
    faults: list[str]


def faults(folder: Path, name: str, num_trials: int) -> list[str]:
    """Where log, table, study and W&B disagree, or lack or repeat a trial."""
    checks: list[Callable[[], object]] = [
        partial(small_sweep.check_whole, folder, name, num_trials),
        partial(check_rows, folder, num_trials),
        partial(check_study, folder, name),
        partial(check_none_failed, folder),
        partial(check_wandb, folder),
        partial(check_best, folder),
    ]
    return [fault for check in checks for fault in _fault_of(check)]


def check_rows(folder: Path, num_trials: int) -> None:
    """Every trial that was asked for has exactly one row, with a status that is final."""
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial_id"] for row in rows] == [f"t{n:04d}" for n in range(num_trials)]
    assert {row["status"] for row in rows} <= {"completed", "stopped", "failed"}


def check_study(folder: Path, name: str) -> None:
    """No trial of the study waits or runs."""
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/optuna.db")
    left = [t.number for t in study.trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert left == []


def check_none_failed(folder: Path) -> None:
    """A killed process is no fault of its trial."""
    ended = replay_all(small_sweep.events_of(folder))
    assert [(h.trial_id, h.reason) for h in ended if h.status == "failed"] == []


def check_wandb(folder: Path) -> None:
    """W&B's files have each trial's status and reports as the log has them."""
    runs = offline_runs(folder)
    del runs["summary"]
    histories = {history.trial_id: history for history in replay_all(small_sweep.events_of(folder))}
    assert runs.keys() == histories.keys()
    for trial_id, history in histories.items():
        run = runs[trial_id]
        assert run.summary["status"] == history.status, trial_id
        logged = {row["_step"]: row["rougeLsum"] for row in run.rows}
        assert len(logged) == len(run.rows), trial_id
        told = {report.step: report.metrics["rougeLsum"] for report in history.reports}
        assert logged == pytest.approx(told), trial_id


def check_best(folder: Path) -> None:
    """The winner's adapter is there."""
    assert (folder / "best" / "adapter_model.safetensors").is_file()


def compare_curves(folder: Path, scratch: Path) -> Compared:
    """Trains every trial again, with nothing killed, up to the last report that it made.

    Which trials come far depends on when they report, and so do later proposals; so another sweep
    would have other trials, and a curve is compared with that of a training of the same
    hyperparameters and seed, in one undisturbed pack and without Ray.
    """
    config = from_json(record.read(RunPaths(folder))["config"])
    histories = [h for h in replay_all(small_sweep.events_of(folder)) if h.reports]
    found: list[str] = []
    for history, again in zip(histories, _train_again(config, histories, scratch), strict=True):
        found += curve_faults(history, again)
    num_reports = sum(len(history.reports) for history in histories)
    return Compared(num_trials=len(histories), num_reports=num_reports, faults=found)


def curve_faults(history: TrialHistory, again: Sequence[TrialReport]) -> list[str]:
    """Reports that differ from those of a second training."""
    faults: list[str] = []
    other = {report.step: report for report in again}
    for report in history.reports:
        where = f"{history.trial_id} at step {report.step}"
        if report.step not in other:
            faults.append(f"{where}: a second training has no such report")
            continue
        pairs = _values(report), _values(other[report.step])
        for name, value in pairs[0].items():
            is_score = name.startswith("rouge")
            near = (
                pytest.approx(pairs[1][name], abs=small_sweep.ROUGE_TOLERANCE)
                if is_score
                else pytest.approx(pairs[1][name], rel=small_sweep.LOSS_TOLERANCE)
            )
            if value != near:
                faults.append(f"{where}: {name} is {value}, undisturbed {pairs[1][name]}")
    return faults


def _values(report: TrialReport) -> dict[str, float]:
    return {
        "train_loss": report.train_loss,
        "learning_rate": report.learning_rate,
        "epoch": report.epoch,
        "tokens": report.tokens,
        **{name: report.metrics[name] for name in ("eval_loss", "rougeLsum")},
    }


def _train_again(
    config: SweepConfig, histories: Sequence[TrialHistory], folder: Path
) -> list[list[TrialReport]]:
    """The reports of all, each up to its last of the sweep; all wait for slots of one pack."""
    settings = config.settings
    row_tokens = settings.max_length_tokens
    eval_tokens = settings.eval_batch_size * (row_tokens + settings.max_new_tokens)
    capacity = Capacity(
        num_slots=NUM_SLOTS,
        max_rank=max(config.space.lora_ranks),
        max_tokens=settings.micro_batch_size * row_tokens,
        eval_tokens=NUM_SLOTS * eval_tokens,
        is_dequantised=False,
        predicted_gib=0.0,
    )
    host = PackHost(settings, capacity, lease_timeout_s=math.inf, decision_wait_s=math.inf)
    leases = [host.join(_trial(config, history, folder)) for history in histories]
    with ThreadPoolExecutor(len(leases) + 1) as pool:
        loop = pool.submit(host.run, until_empty=True)
        last_steps = [history.reports[-1].step for history in histories]
        found = list(pool.map(partial(_listen, host), leases, last_steps))
        loop.result()
    return found


def _listen(host: PackHost, lease: int, last_step: int) -> list[TrialReport]:
    """The reports of a lease; it leaves after its last."""
    reports: list[TrialReport] = []
    while True:
        match host.next_event(lease, EVENT_WAIT_S):
            case Reported(made):
                reports.append(made)
                if made.step >= last_step:
                    host.leave(lease)
                    return reports
            case None:
                pass
            case _:
                return reports


def _trial(config: SweepConfig, history: TrialHistory, folder: Path) -> TrialConfig:
    seed = config.seed if history.seed is None else history.seed
    return TrialConfig(
        trial_id=history.trial_id,
        params=history.params,
        settings=replace(config.settings, seed=seed),
        folder=folder / "again" / history.trial_id,
    )


def _fault_of(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except (AssertionError, KeyError, OSError, ValueError) as fault:
        where = traceback.extract_tb(fault.__traceback__)[-1]
        return [f"{where.name}, {where.line}: {type(fault).__name__} {fault}"]
    return []
