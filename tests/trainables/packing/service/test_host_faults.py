"""Trials that fall silent or fail, dead packs, full memories and disks: nobody else is moved."""

import dataclasses
import errno
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.packing.small_hosts import (
    KINDS,
    STEPS,
    all_events,
    assert_all_as_alone,
    assert_as_alone,
    capacity_of,
    change_pack,
    cohorts_in,
    events_of,
    num_trials,
    of_six_steps,
    reports_in,
    running,
    running_once_full,
    trials_known_alone,
    trials_of,
    wait_until,
)
from tests.trainables.packing.small_packs import longer
from trainables.config import TrainingSettings, TrialConfig, TrialReport
from trainables.packing.compute.pack import Pack
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.service.events import (
    Aborted,
    Failed,
    Finished,
    LeaseLost,
    PackFault,
    Reported,
)
from trainables.packing.service.final_scores import NO_ROOM
from trainables.packing.service.host import PackHost

EXPLODING = dataclasses.replace(KINDS[0], learning_rate=1e30)


@pytest.fixture
def settings(settings: TrainingSettings) -> TrainingSettings:
    """Six steps with three reports."""
    return of_six_steps(settings)


def test_failing_neighbour_frees_its_slot_and_moves_nobody(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trials = trials_of(settings, tmp_path, (EXPLODING, KINDS[0], KINDS[1], EXPLODING, KINDS[2]))
    with running(settings, capacity_of(2)) as host:
        found = all_events(host, trials)
    for place in (0, 3):
        last = found[place][-1]
        assert isinstance(last, Failed) and "non-finite" in last.reason and "step" in last.reason
    sound = (1, 2, 4)
    assert_all_as_alone([trials[i] for i in sound], [found[i] for i in sound])


def erratic(host: PackHost, trial: TrialConfig, seed: int, silence_s: float) -> list[TrialReport]:
    """Follow a trial to its end, but at times leave, join twice, or fall silent."""
    generator = random.Random(seed)
    whims = ["leave", "again", "silent", "evict"]
    reports: list[TrialReport] = []
    lease = host.join(trial)
    deadline_s = time.monotonic() + 120.0
    while time.monotonic() < deadline_s:
        event = host.take_event(lease, generator.random() * 0.4)
        if isinstance(event, Reported):
            reports.append(event.report)
        elif isinstance(event, LeaseLost):
            lease = host.join(trial)
        elif event is not None:
            assert event == Finished()
            return reports
        if whims and generator.random() < 0.5:
            whim = whims.pop(generator.randrange(len(whims)))
            if whim == "leave":
                host.leave(lease)
            elif whim == "again":
                lease = host.join(trial)
            elif whim == "silent":
                time.sleep(silence_s)
            else:
                host.evict(trial.trial_id)
    raise TimeoutError(f"{trial.trial_id} has not ended")


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.slow
def test_erratic_trials_get_every_rung_as_if_alone(
    settings: TrainingSettings, tmp_path: Path, seed: int
) -> None:
    trials = trials_of(settings, tmp_path, KINDS * 2)
    with running(settings, capacity_of(3), lease_timeout_s=0.7) as host:
        with ThreadPoolExecutor(len(trials)) as pool:
            followed = [
                pool.submit(erratic, host, trial, seed * 100 + place, 1.5)
                for place, trial in enumerate(trials)
            ]
        for trial, future in zip(trials, followed, strict=True):
            assert_as_alone(trial, future.result())


def test_silent_trial_gives_its_slot_to_the_next(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    silent, next_one = trials_of(settings, tmp_path, KINDS[:2])
    with running(settings, capacity_of(1), lease_timeout_s=1.0) as host:
        lease = host.join(silent)
        assert isinstance(host.take_event(lease, 60.0), Reported)
        events = events_of(host, next_one)
        assert host.take_event(lease, 60.0) == LeaseLost()
        assert not host.renew_lease(lease)
        again = events_of(host, silent)
    assert_all_as_alone([next_one], [events])
    assert [report.step for report in reports_in(again)] == list(STEPS)


def test_silent_trial_frees_its_slot_between_two_rungs(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs: list[Pack] = []
    change_pack(monkeypatch, packs.append)
    (trial,) = trials_of(longer(settings, 10_000), tmp_path, KINDS[:1])
    with running(trial.settings, capacity_of(1), lease_timeout_s=1.0) as host:
        lease = host.join(trial)
        for free in ([], [0]):
            wait_until(lambda free=free: bool(packs) and packs[0].free_slots() == free)
        assert host.take_event(lease, 60.0) == LeaseLost()


def test_trials_of_a_pack_that_died_go_on_in_another(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trials = trials_of(settings, tmp_path, KINDS)
    first: dict[str, TrialReport] = {}
    with running_once_full(settings, capacity_of(4)) as host:
        leases = {trial.trial_id: host.join(trial) for trial in trials}
        for trial_id, lease in leases.items():
            event = host.take_event(lease, 60.0)
            assert isinstance(event, Reported) and event.report.step == 2
            first[trial_id] = event.report
    with running(settings, capacity_of(3)) as host:
        found = all_events(host, trials)
    assert_all_as_alone(trials, found)
    for trial, events in zip(trials, found, strict=True):
        again, before = reports_in(events)[0], first[trial.trial_id]
        assert dataclasses.replace(again, cohort=before.cohort) == before
    assert cohorts_in(found, STEPS[0]) == {"t0000 t0001 t0002", "t0003"}


def test_out_of_memory_in_a_step_moves_no_number(
    settings: TrainingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []

    def fill_memory(pack: Pack) -> None:
        losses = pack.model.losses

        def filled(*args: Any) -> Any:
            calls.append(len(calls))
            if len(calls) in (3, 5):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return losses(*args)

        monkeypatch.setattr(pack.model, "losses", filled)

    expected_trials = trials_known_alone(settings, tmp_path, KINDS[:3])
    change_pack(monkeypatch, fill_memory)
    with running(settings, capacity_of(3)) as host:
        found = all_events(host, expected_trials)
    assert len(calls) > 5
    assert caplog.text.count("out of memory in a step") == 2
    assert "going on with" not in caplog.text
    assert_all_as_alone(expected_trials, found)


@pytest.mark.parametrize("num_roomy", [0, 3])
def test_pack_that_is_too_large_shrinks_and_every_trial_still_finishes(
    settings: TrainingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    num_roomy: int,
) -> None:
    """At once, or after so many passes: then the trials that wait have reported already."""
    trials = trials_known_alone(settings, tmp_path, KINDS)
    calls: list[int] = []

    def fill_memory(pack: Pack) -> None:
        losses = pack.model.losses

        def filled(*args: Any) -> Any:
            calls.append(len(calls))
            if len(calls) > num_roomy and num_trials(pack, 4) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return losses(*args)

        monkeypatch.setattr(pack.model, "losses", filled)

    change_pack(monkeypatch, fill_memory)
    with running(settings, capacity_of(4), admit_wait_s=2.0) as host:
        found = all_events(host, trials)
    assert [caplog.text.count(f"going on with {left} trials") for left in (3, 2, 1)] == [1, 1, 0]
    assert_all_as_alone(trials, found)


@pytest.mark.parametrize("is_queued", [False, True])
def test_trial_that_does_not_fit_alone_fails_with_its_remedy(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_queued: bool
) -> None:
    """Also on a device that is handed several steps at once: none is left to count."""
    monkeypatch.setattr(Pack, "is_queued", is_queued)

    def fill_memory(pack: Pack) -> None:
        def full(*args: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(pack.model, "losses", full)

    change_pack(monkeypatch, fill_memory)
    with running(settings, capacity_of(2)) as host:
        found = all_events(host, trials_of(settings, tmp_path, KINDS[:3]))
    assert found == [[Failed(NO_ROOM)]] * 3
    assert "max_length_tokens" in NO_ROOM


@pytest.mark.parametrize(("most_slots", "most_tokens"), [(3, 600), (1, 300)])
def test_out_of_memory_in_an_evaluation_makes_its_batches_smaller(
    settings: TrainingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most_slots: int,
    most_tokens: int,
) -> None:
    trials = trials_known_alone(settings, tmp_path, KINDS[:3])
    evaluate = PackEvaluator._evaluate_together
    num_full = 0

    def filled(evaluator: PackEvaluator, model: Any, slots: Sequence[int], *args: Any) -> Any:
        nonlocal num_full
        if len(slots) > most_slots or evaluator.max_tokens > most_tokens:
            num_full += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate(evaluator, model, slots, *args)

    monkeypatch.setattr(PackEvaluator, "_evaluate_together", filled)
    with running(settings, capacity_of(3), admit_wait_s=0.5) as host:
        found = all_events(host, trials)
    assert num_full >= 4
    assert_all_as_alone(trials, found)


def test_trial_whose_metric_fails_frees_its_slot_and_moves_nobody(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = trials_of(settings, tmp_path, KINDS[:3])
    evaluate, num_reports = PackEvaluator._evaluate_together, 0

    def fail_one(evaluator: PackEvaluator, model: Any, slots: Sequence[int], *args: Any) -> Any:
        nonlocal num_reports
        num_reports += 1
        results = evaluate(evaluator, model, slots, *args)
        if num_reports == 2:
            assert len(results) == 3
            results[1] = dataclasses.replace(results[1], failure="the metric f failed: so")
        return results

    monkeypatch.setattr(PackEvaluator, "_evaluate_together", fail_one)
    with running(settings, capacity_of(3), admit_wait_s=5.0) as host:
        found = all_events(host, trials)
    assert found[1][-1] == Failed("the metric f failed: so")
    assert [type(event) for event in found[1]] == [Reported, Failed]
    kept = [0, 2]
    assert_all_as_alone([trials[n] for n in kept], [found[n] for n in kept])


def test_evaluation_that_fits_no_single_row_fails_the_trials(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PackEvaluator, "_evaluate_together", full)
    with running(settings, capacity_of(3)) as host:
        found = all_events(host, trials_of(settings, tmp_path, KINDS[:3]))
    assert found == [[Failed(NO_ROOM)]] * 3


def test_full_disk_aborts_each_trial_as_it_reports(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_disk(pack: Pack) -> None:
        def full(*args: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(pack, "save", full)

    change_pack(monkeypatch, fill_disk)
    with running(settings, capacity_of(3)) as host:
        found = all_events(host, trials_of(settings, tmp_path, KINDS[:2]))
    (first,), (second,) = found
    assert isinstance(first, Aborted) and first == second
    assert str(tmp_path) in first.error and "then repeat the command" in first.fix


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "report.json"])
def test_damaged_checkpoint_fails_its_own_trial(
    settings: TrainingSettings, tmp_path: Path, name: str
) -> None:
    trials = trials_of(settings, tmp_path, KINDS[:2])
    with running(settings, capacity_of(2)) as host:
        lease = host.join(trials[0])
        assert isinstance(host.take_event(lease, 60.0), Reported)
    # the pack may have come to the next rung before it was closed
    last = max(trials[0].folder.glob("checkpoint-*"))
    damaged = last / name
    damaged.write_bytes(damaged.read_bytes()[:100])
    with running(settings, capacity_of(2)) as host:
        bad, good = all_events(host, trials)
    assert isinstance(bad[-1], Failed) and str(last) in bad[-1].reason
    assert_all_as_alone(trials[1:], [good])


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "report.json"])
def test_disk_that_does_not_answer_fails_no_trial(
    settings: TrainingSettings, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trial,) = trials_of(settings, tmp_path, KINDS[:1])
    with running(settings, capacity_of(1)) as host:
        assert isinstance(host.take_event(host.join(trial), 60.0), Reported)
    stale = OSError(errno.ESTALE, "Stale file handle")
    reading = Path.read_text

    def read_text(path: Path, *args: Any, **options: Any) -> str:
        if path.name == name:
            raise stale
        return reading(path, *args, **options)

    def fail_restore(pack: Pack) -> None:
        def fail(*_: Any) -> int:
            raise stale

        if name != "report.json":
            monkeypatch.setattr(pack, "restore", fail)

    change_pack(monkeypatch, fail_restore)
    monkeypatch.setattr(Path, "read_text", read_text)
    with running(settings, capacity_of(1)) as host:
        (found,) = all_events(host, [trial])
    assert isinstance(found[-1], Aborted)
    assert found[-1].error.endswith("does not answer") and "then repeat" in found[-1].fix


def test_any_other_error_ends_the_loop_and_frees_the_trials(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_step(pack: Pack) -> None:
        def broken(most: int) -> Any:
            raise ZeroDivisionError("a fault of ours")

        monkeypatch.setattr(pack, "step", broken)

    change_pack(monkeypatch, break_step)
    (trial,) = trials_of(settings, tmp_path, KINDS[:1])
    with (
        pytest.raises(ZeroDivisionError),
        running(settings, capacity_of(1)) as host,
        pytest.raises(PackFault, match="ZeroDivisionError: a fault of ours"),
    ):
        events_of(host, trial)
