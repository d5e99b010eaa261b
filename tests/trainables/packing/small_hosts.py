"""Hosts of packs with small trials, and what each of those gives in a pack of one."""

import dataclasses
import functools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import trainables.packing.service.loading
from tests.trainables.packing.small_packs import trial_of
from trainables.checkpoint import ADAPTER_NAMES, get_checkpoint_folder
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.packing.compute.pack import Pack
from trainables.packing.service import in_process, loop
from trainables.packing.service.events import (
    Event,
    Finished,
    Reported,
)
from trainables.packing.service.host import PackHost
from trainables.packing.sizing.capacity import Capacity

KINDS = (
    Hyperparameters(lora_rank=4, lora_alpha=8, learning_rate=3e-3),
    Hyperparameters(lora_rank=2, lora_alpha=64, learning_rate=1e-2, lora_dropout=0.5),
    Hyperparameters(lora_rank=16, lora_alpha=16, learning_rate=5e-4, lora_dropout=0.1),
    Hyperparameters(
        lora_rank=8, lora_alpha=4, learning_rate=1e-3, use_rslora=True,
        target_modules=("q_proj", "down_proj"),
    ),
)  # fmt: skip
STEPS = (2, 4, 6)

Numbers = dict[int, tuple[float, dict[str, float]]]


def of_six_steps(settings: TrainingSettings) -> TrainingSettings:
    """With three reports."""
    return dataclasses.replace(settings, max_steps=6, rungs=STEPS, eval_rows=3)


def capacity_of(num_slots: int, **sizes: int) -> Capacity:
    """Room for trials of up to rank 16."""
    known: dict[str, Any] = {"max_tokens": 2048, "eval_tokens": 8192, **sizes}
    return Capacity(
        num_slots=num_slots, max_rank=16, is_dequantised=True, predicted_gib=0.0, **known
    )


@contextmanager
def running(settings: TrainingSettings, capacity: Capacity, **options: Any) -> Iterator[PackHost]:
    """A host whose loop runs until the block ends; raises what the loop raised."""
    options = {"lease_timeout_s": 60.0, "admit_wait_s": 0.0, "decision_wait_s": math.inf, **options}
    host = PackHost(settings, capacity, **options)
    with host.run_in_thread():
        yield host


@contextmanager
def running_once_full(settings: TrainingSettings, capacity: Capacity) -> Iterator[PackHost]:
    """A host that begins when every slot has its trial, however late a busy machine brings it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SETTLE_S", 600.0)
        with running(settings, capacity, admit_wait_s=600.0) as host:
            yield host


def trials_of(
    settings: TrainingSettings, folder: Path, kinds: Sequence[Hyperparameters]
) -> list[TrialConfig]:
    """A trial of each kind."""
    return [
        trial_of(f"t{place:04}", params, settings, folder / f"t{place:04}")
        for place, params in enumerate(kinds)
    ]


def events_of(host: PackHost, trial: TrialConfig) -> list[Event]:
    """What happens to a trial that does what it is told."""
    lease = host.join(trial)
    events: list[Event] = []
    while not events or isinstance(events[-1], Reported):
        event = host.take_event(lease, 60.0)
        assert event is not None, "nothing happened for a minute"
        events.append(event)
    return events


def all_events(host: PackHost, trials: Sequence[TrialConfig]) -> list[list[Event]]:
    """The same of several trials at once."""
    with ThreadPoolExecutor(len(trials)) as pool:
        return list(pool.map(lambda trial: events_of(host, trial), trials))


def reports_in(events: Sequence[Event]) -> list[TrialReport]:
    return [event.report for event in events if isinstance(event, Reported)]


def cohorts_in(found: Sequence[Sequence[Event]], step: int) -> set[str]:
    """The ids of those that reported together at a step; each brings the reports of the others."""
    made = {one.trial_id: one for events in found for one in reports_in(events) if one.step == step}
    for one in made.values():
        for other in one.cohort:
            assert dataclasses.replace(made[other.trial_id], cohort=()) == other
    return {
        " ".join(sorted([one.trial_id, *(other.trial_id for other in one.cohort)]))
        for one in made.values()
    }


@functools.cache
def numbers_alone(params: Hyperparameters, settings: TrainingSettings) -> Numbers:
    """What a trial of this kind gives in a pack of one."""
    reports: list[TrialReport] = []
    with tempfile.TemporaryDirectory() as folder:
        in_process.train(trial_of("alone", params, settings, Path(folder)), reports.append)
    return {report.step: (report.train_loss, report.metrics) for report in reports}


def trials_known_alone(
    settings: TrainingSettings, folder: Path, kinds: Sequence[Hyperparameters]
) -> list[TrialConfig]:
    """A trial of each kind; what each gives alone is known before a test changes any pack."""
    trials = trials_of(settings, folder, kinds)
    for trial in trials:
        numbers_alone(trial.params, settings)
    return trials


def assert_as_alone(trial: TrialConfig, reports: Sequence[TrialReport]) -> None:
    """Every rung was reported, and whenever it was, with the numbers of a pack of one."""
    expected = numbers_alone(trial.params, trial.settings)
    assert list(expected) == list(STEPS) == sorted({report.step for report in reports})
    for report in reports:
        train_loss, metrics = expected[report.step]
        assert report.trial_id == trial.trial_id
        assert report.train_loss == pytest.approx(train_loss, rel=1e-5)
        assert report.metrics == pytest.approx(metrics, rel=1e-5)


def assert_all_as_alone(trials: Sequence[TrialConfig], found: Sequence[Sequence[Event]]) -> None:
    """Each trial finished, with each of its reports once."""
    for trial, events in zip(trials, found, strict=True):
        assert events[-1] == Finished()
        assert len(events) == len(STEPS) + 1
        assert_as_alone(trial, reports_in(events))
        checkpoint = get_checkpoint_folder(trial.folder, STEPS[-1])
        assert [path.name for path in trial.folder.iterdir()] == [checkpoint.name]
        assert sorted(path.name for path in checkpoint.iterdir()) == sorted(ADAPTER_NAMES)


def change_pack(monkeypatch: pytest.MonkeyPatch, change: Callable[[Pack], None]) -> None:
    """Do something to every pack that a host makes."""
    make = trainables.packing.service.loading.make_pack

    def changed(*args: Any) -> Pack:
        pack = make(*args)
        change(pack)
        return pack

    monkeypatch.setattr(trainables.packing.service.loading, "make_pack", changed)


def num_trials(pack: Pack, num_slots: int) -> int:
    return num_slots - len(pack.free_slots())


def wait_until(holds: Callable[[], bool]) -> None:
    """Look often, for a minute at most."""
    deadline_s = time.monotonic() + 60.0
    while not holds():
        assert time.monotonic() < deadline_s, "it never came to hold"
        time.sleep(0.01)
