"""Every trial of a sweep trained again with nothing killed: the curves must be the same."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.config import SweepConfig, from_json
from sweeps.records.paths import RunPaths
from sweeps.records.run import read_record
from sweeps.records.trial_record import TrialRecord, replay_all
from tests.sweeps import small_sweep
from trainables.config import TrialConfig, TrialReport
from trainables.models.model_facts import read_model_facts
from trainables.packing.service.events import Reported
from trainables.packing.sizing.choose import choose_capacity

if TYPE_CHECKING:  # loads torch, which the kills do without
    from trainables.packing.service.host import PackHost

NUM_SLOTS = 8
NUM_BESIDE = 3
"""Trials beside one that is trained in all ways."""
EVENT_WAIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How the curves of a sweep's trials differ from undisturbed ones."""

    num_curves: int = 0
    num_reports: int = 0
    largest_loss_difference: float = 0
    """Relative, over training and evaluation losses of all reports."""
    judged_by_spread: list[str] = field(default_factory=list)
    """Trials that differ from one second training by more than roundings mostly do."""
    faults: list[str] = field(default_factory=list)


def compare_curves(folder: Path, scratch: Path) -> Compared:
    """Trains every trial again, with nothing killed, up to the last report that it made.

    Which trials come far depends on when they report, and so do later proposals; so another sweep
    would have other trials, and a curve is compared with that of a training of the same
    hyperparameters and seed, in one undisturbed pack and without Ray.

    A trial of a high learning rate lets roundings grow: alone, beside others, and on other numbers
    of threads, none of them disturbed, its losses differ. One that differs from its second training
    is trained in all these ways, and is at fault if it lies outside their spread.
    """
    config = from_json(read_record(RunPaths(folder))["config"])
    config = replace(config, runs_dir=str(folder.parent), name=folder.name)
    histories = [h for h in replay_all(small_sweep.events_of(folder)) if h.reports]
    scratch /= "again"
    again = _train_again(config, histories, scratch, NUM_SLOTS)
    pairs = list(zip(histories, again, strict=True))
    faults, by_spread = [], []
    for history, other in pairs:
        if find_faults(history, other):
            by_spread.append(history.trial_id)
            ways = _train_in_all_ways(config, history, histories, scratch)
            faults += find_faults(history, other, *ways)
    return Compared(
        num_curves=len(histories),
        num_reports=sum(len(history.reports) for history in histories),
        largest_loss_difference=max(
            (d for pair in pairs for d in _list_loss_differences(*pair)), default=0
        ),
        judged_by_spread=by_spread,
        faults=faults,
    )


def find_faults(
    history: TrialRecord, again: Sequence[TrialReport], *others: Sequence[TrialReport]
) -> list[str]:
    """Reports that differ from those of a second training.

    Args:
        others: further trainings; a value within the spread of all is no fault.
    """
    faults: list[str] = []
    trainings = [{report.step: report for report in one} for one in (again, *others)]
    for report in history.reports:
        where = f"{history.trial_id} at step {report.step}"
        if any(report.step not in training for training in trainings):
            faults.append(f"{where}: a second training has no such report")
            continue
        undisturbed = [_list_values(training[report.step]) for training in trainings]
        for name, value in _list_values(report).items():
            expected = [values[name] for values in undisturbed]
            if not _is_within_spread(name, value, expected):
                shown = ", ".join(map(str, expected))
                faults.append(f"{where}: {name} is {value}, undisturbed {shown}")
    return faults


def _is_within_spread(name: str, value: float, undisturbed: Sequence[float]) -> bool:
    """Whether it is one of them, or lies among them: no farther out than they are apart."""
    tolerance = {"abs_tol": small_sweep.ROUGE_TOLERANCE} if name.startswith("rouge") else {}
    if any(
        math.isclose(value, one, rel_tol=small_sweep.LOSS_TOLERANCE, **tolerance)
        for one in undisturbed
    ):
        return True
    spread = max(undisturbed) - min(undisturbed)
    return min(undisturbed) - spread <= value <= max(undisturbed) + spread


def _list_loss_differences(history: TrialRecord, again: Sequence[TrialReport]) -> Iterator[float]:
    """Relative ones, in the reports that both trainings have."""
    other = {report.step: report for report in again}
    for report in history.reports:
        if report.step in other:
            undisturbed = _list_values(other[report.step])
            for name in ("train_loss", "eval_loss"):
                yield abs(_list_values(report)[name] / undisturbed[name] - 1)


def _list_values(report: TrialReport) -> dict[str, float]:
    return {
        "train_loss": report.train_loss,
        "learning_rate": report.learning_rate,
        "epoch": report.epoch,
        "tokens": report.tokens,
        **{name: report.metrics[name] for name in ("eval_loss", "rougeLsum")},
    }


def _train_in_all_ways(
    config: SweepConfig, trial: TrialRecord, histories: Sequence[TrialRecord], scratch: Path
) -> Iterator[list[TrialReport]]:
    """The trial's reports alone and beside others, each with one thread and with all."""
    import torch

    all_threads = torch.get_num_threads()
    beside = [other for other in histories if other is not trial][:NUM_BESIDE]
    try:
        for number, (others, num_threads) in enumerate(
            product(([], beside), sorted({1, all_threads}))
        ):
            torch.set_num_threads(num_threads)
            together = [trial, *others]
            folder = scratch / f"{trial.trial_id}-{number}"
            yield _train_again(config, together, folder, len(together))[0]
    finally:
        torch.set_num_threads(all_threads)


def _train_again(
    config: SweepConfig, histories: Sequence[TrialRecord], folder: Path, num_slots: int
) -> list[list[TrialReport]]:
    """The reports of all, each up to its last of the sweep; all wait for slots of one pack."""
    from trainables.packing.service.host import PackHost  # loads torch

    settings = config.settings
    facts = read_model_facts(config.model)
    capacity = choose_capacity(facts, settings, max(config.space.lora_ranks), None, num_slots)
    host = PackHost(settings, capacity, lease_timeout_s=math.inf, decision_wait_s=math.inf)
    leases = [host.join(_make_trial(config, history, folder)) for history in histories]
    last_steps = [history.reports[-1].step for history in histories]
    with host.run_in_thread(), ThreadPoolExecutor(len(leases)) as pool:
        return list(pool.map(partial(_collect_reports, host), leases, last_steps))


def _collect_reports(host: "PackHost", lease: int, last_step: int) -> list[TrialReport]:
    """The reports of a lease; it leaves after its last."""
    reports: list[TrialReport] = []
    while True:
        match host.take_event(lease, EVENT_WAIT_S):
            case Reported(made):
                reports.append(made)
                if made.step >= last_step:
                    host.leave(lease)
                    return reports
            case None:
                pass
            case _:
                return reports


def _make_trial(config: SweepConfig, history: TrialRecord, folder: Path) -> TrialConfig:
    seed = config.seed if history.seed is None else history.seed
    return TrialConfig(
        trial_id=history.trial_id,
        params=history.params,
        settings=replace(config.settings, seed=seed),
        folder=folder / history.trial_id,
    )
