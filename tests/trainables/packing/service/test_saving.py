"""Checkpoints are written by threads while their trials are scored; slots are kept until then."""

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables.packing.small_hosts import (
    KINDS,
    STEPS,
    all_events,
    assert_all_as_alone,
    capacity_of,
    change_pack,
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
from trainables.config import TrainingSettings
from trainables.errors import SweepAborted
from trainables.packing.compute.pack import Pack
from trainables.packing.compute.pass_runner import capture_graph
from trainables.packing.compute.transfer import Staging
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.service import packed_trial, saving
from trainables.packing.service.events import Aborted, Event, Failed, Finished, Reported
from trainables.packing.service.packed_trial import PackedTrial
from trainables.packing.service.registry import TrialRegistry
from trainables.packing.service.saving import (
    BYTES_PER_WRITER,
    MAX_WRITERS,
    STAGING_BYTES,
    Saver,
    Writers,
)

ROWS = [torch.ones(3)]


@pytest.fixture
def settings(settings: TrainingSettings) -> TrainingSettings:
    return of_six_steps(settings)


@pytest.fixture(autouse=True)
def _cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than any machine of ours has to have."""
    monkeypatch.setattr(saving, "count_cores", lambda: 8)


def test_trials_are_saved_side_by_side_while_they_are_scored(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "BYTES_PER_WRITER", 1)
    trials = trials_known_alone(settings, tmp_path, KINDS[:2])
    meeting = threading.Barrier(3, timeout=30.0)  # two saves and the scoring of both
    change_pack(monkeypatch, lambda pack: _change_save(monkeypatch, pack, lambda _: meeting.wait()))
    evaluate = PackEvaluator.evaluate

    def met(*args: Any) -> Any:
        meeting.wait()
        return evaluate(*args)

    monkeypatch.setattr(PackEvaluator, "evaluate", met)
    with running_once_full(settings, capacity_of(2)) as host:
        found = all_events(host, trials)
    assert_all_as_alone(trials, found)


def test_a_trial_keeps_its_slot_until_it_is_saved(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here two of three lose theirs to an evaluation that has room for a pack of one."""
    trials = trials_known_alone(settings, tmp_path, KINDS[:3])
    packs: list[Pack] = []
    being_saved: set[int] = set()
    left: list[bool] = []

    is_waited_for = threading.Event()
    wait_saved = Saver.wait_saved

    def waited(saver: Saver, trial: PackedTrial) -> None:
        is_waited_for.set()
        wait_saved(saver, trial)

    monkeypatch.setattr(Saver, "wait_saved", waited)

    def slow(slot: int) -> None:
        being_saved.add(slot)
        # Until a trial that is being saved is about to leave, and some time after that.
        is_waited_for.wait(30.0)
        time.sleep(0.3 if len(left) < 2 else 0.0)
        being_saved.remove(slot)

    def watch(pack: Pack) -> None:
        packs.append(pack)
        leave = pack.leave
        _change_save(monkeypatch, pack, slow)
        monkeypatch.setattr(
            pack, "leave", lambda slot: (left.append(slot in being_saved), leave(slot))
        )

    change_pack(monkeypatch, watch)
    evaluate = PackEvaluator._evaluate_together

    def filled(*args: Any) -> Any:
        if num_trials(packs[0], 3) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate(*args)

    monkeypatch.setattr(PackEvaluator, "_evaluate_together", filled)
    with running(settings, capacity_of(3), admit_wait_s=0.5) as host:
        found = all_events(host, trials)
    assert_all_as_alone(trials, found)
    assert len(left) == 5 and not any(left)


def _change_save(
    monkeypatch: pytest.MonkeyPatch, pack: Pack, before: Callable[[int], object]
) -> None:
    save = pack.save

    def changed(slot: int, *args: Any) -> None:
        before(slot)
        save(slot, *args)

    monkeypatch.setattr(pack, "save", changed)


@pytest.mark.parametrize(
    ("slot_bytes", "num_threads"),
    [
        (1, 1),
        (2 * BYTES_PER_WRITER, 2),
        (2 * BYTES_PER_WRITER + 1, 3),
        (8 * BYTES_PER_WRITER, MAX_WRITERS),
        (STAGING_BYTES // 2, 2),
        (STAGING_BYTES + 1, 1),
    ],
)
def test_large_slots_are_written_at_once_as_far_as_memory_goes(
    slot_bytes: int, num_threads: int
) -> None:
    stagings: list[Staging] = []

    def make_staging() -> Staging:
        stagings.append(Staging(ROWS))
        return stagings[-1]

    pool = Writers(slot_bytes, make_staging)
    meeting = threading.Barrier(num_threads, timeout=30.0)
    num_writes = MAX_WRITERS * num_threads
    used = [pool.submit(lambda staging: (meeting.wait(), staging)[1]) for _ in range(num_writes)]
    assert {id(one.result()) for one in used} == {id(one) for one in stagings}
    assert len(stagings) == num_threads
    assert pool.submit(lambda staging: staging).result() in stagings


def test_a_fault_of_a_write_is_its_own(tmp_path: Path) -> None:
    pool = Writers(1, lambda: Staging(ROWS))
    broken = pool.submit(lambda _: (tmp_path / "none" / "file").write_text(""))
    assert isinstance(broken.exception(), FileNotFoundError)
    assert pool.submit(lambda staging: staging.on_host(ROWS)).result() == ROWS


@pytest.mark.gpu
def test_numbers_are_fetched_while_a_graph_is_captured() -> None:
    rows = list(torch.randn(3, 1 << 20, device="cuda"))
    torch.cuda.synchronize()
    pool = Writers(1, lambda: Staging(rows))
    source, graph = torch.ones(1000, device="cuda"), torch.cuda.CUDAGraph()
    pool.submit(lambda staging: staging.on_host(rows)).result()
    fetched = []
    with capture_graph(graph, torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        for _ in range(50):
            made = source * 2
            one = pool.submit(lambda staging: [row.clone() for row in staging.on_host(rows)])
            fetched.append(one)
        fetched[-1].result()
    graph.replay()
    torch.cuda.synchronize()
    assert made.eq(2).all()
    for one in fetched:
        for row, held in zip(rows, one.result(), strict=True):
            assert torch.equal(row.cpu(), held)


def test_pack_trains_on_while_it_uploads_and_a_report_is_told_once_its_checkpoint_is_there(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    there: list[Path] = []
    publish, post = saving.publish, TrialRegistry.post_event

    def note_steps(pack: Pack) -> None:
        step = pack.step

        def stepped(most: int) -> Any:
            results = step(most)
            made.extend(result.step for result in results)
            return results

        pack.step = stepped  # type: ignore[method-assign]

    def publish_slowly(url: str | None, checkpoint: Path, *, has_ended: bool) -> None:
        step = int(checkpoint.name.removeprefix("checkpoint-"))
        wait_until(lambda: has_ended or max(made) > step)
        publish(url, checkpoint, has_ended=has_ended)
        there.append(checkpoint)

    def post_after_upload(registry: TrialRegistry, trial: PackedTrial, event: Event) -> None:
        assert not isinstance(event, Reported) or event.report.checkpoint in there
        post(registry, trial, event)

    monkeypatch.setattr(saving, "publish", publish_slowly)
    monkeypatch.setattr(TrialRegistry, "post_event", post_after_upload)
    change_pack(monkeypatch, note_steps)
    settings = dataclasses.replace(settings, storage=f"file://{tmp_path}/bucket")
    trials = trials_of(settings, tmp_path, KINDS[:2])
    with running_once_full(settings, capacity_of(2)) as host:
        for events in all_events(host, trials):
            assert [report.step for report in reports_in(events)] == list(STEPS)
            assert events[-1] == Finished()


def test_trial_that_fails_during_its_upload_is_told_its_report_first(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_failed = threading.Event()
    publish = saving.publish

    def fail_third_step(pack: Pack) -> None:
        step = pack.step

        def stepped(most: int) -> Any:
            results = step(most)
            if any(result.step > STEPS[0] for result in results):
                has_failed.set()
                return [dataclasses.replace(result, failed="it is NaN") for result in results]
            return results

        pack.step = stepped  # type: ignore[method-assign]

    def publish_late(url: str | None, checkpoint: Path, *, has_ended: bool) -> None:
        assert has_failed.wait(30.0)
        publish(url, checkpoint, has_ended=has_ended)

    monkeypatch.setattr(saving, "publish", publish_late)
    change_pack(monkeypatch, fail_third_step)
    settings = dataclasses.replace(settings, storage=f"file://{tmp_path}/bucket")
    (trial,) = trials_of(settings, tmp_path, KINDS[:1])
    with running(settings, capacity_of(1)) as host:
        reported, failed = events_of(host, trial)
    assert isinstance(reported, Reported) and reported.report.step == STEPS[0]
    assert failed == Failed("it is NaN")


def test_uploads_that_fail_while_a_trial_fails_are_told_and_the_pack_lives(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_failed = threading.Event()
    aborted = SweepAborted("the storage cannot be used", "look at it")

    def fail_third_step(pack: Pack) -> None:
        step = pack.step

        def stepped(most: int) -> Any:
            first, *others = step(most)
            if first.step > STEPS[0]:
                has_failed.set()
                first = dataclasses.replace(first, failed="it is NaN")
            return [first, *others]

        pack.step = stepped  # type: ignore[method-assign]

    def refuse_late(*_: Any, **__: Any) -> None:
        assert has_failed.wait(30.0)
        raise aborted

    monkeypatch.setattr(saving, "publish", refuse_late)
    change_pack(monkeypatch, fail_third_step)
    settings = dataclasses.replace(settings, storage=f"file://{tmp_path}/bucket")
    with running_once_full(settings, capacity_of(2)) as host:
        found = all_events(host, trials_of(settings, tmp_path, KINDS[:2]))
    assert Aborted(aborted.error, aborted.fix) in [events[-1] for events in found]


def test_trial_that_comes_back_enters_once_what_is_uploaded_of_it_is_there(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads, has_fetched = threading.Event(), threading.Event()
    publish, fetch_last = saving.publish, packed_trial.fetch_last

    def publish_slowly(url: str | None, checkpoint: Path, *, has_ended: bool) -> None:
        if not uploads.is_set():
            uploads.set()
            assert not has_fetched.wait(0.8)
        publish(url, checkpoint, has_ended=has_ended)

    def fetch(url: str | None, folder: Path) -> None:
        if uploads.is_set():
            has_fetched.set()
        fetch_last(url, folder)

    monkeypatch.setattr(saving, "publish", publish_slowly)
    monkeypatch.setattr(packed_trial, "fetch_last", fetch)
    settings = dataclasses.replace(settings, storage=f"file://{tmp_path}/bucket")
    (trial,) = trials_of(settings, tmp_path, KINDS[:1])
    with running(settings, capacity_of(1)) as host:
        host.join(trial)
        assert uploads.wait(30.0)
        events = events_of(host, trial)  # its first lease is lost
    assert has_fetched.is_set()
    assert [report.step for report in reports_in(events)] == list(STEPS)


def test_checkpoints_of_trials_that_enter_together_are_fetched_side_by_side(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = threading.Barrier(2, timeout=30.0)
    monkeypatch.setattr(packed_trial, "fetch_last", lambda *_: meeting.wait())
    settings = dataclasses.replace(settings, max_steps=1, rungs=(1,))
    with running_once_full(settings, capacity_of(2)) as host:
        found = all_events(host, trials_of(settings, tmp_path, KINDS[:2]))
    assert [events[-1] for events in found] == [Finished()] * 2
