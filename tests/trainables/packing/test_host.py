"""A pack as a service: trials that come, go, fall silent and fail each get what they get alone."""

import dataclasses
import errno
import functools
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_packs import longer, trial_of

import trainables.packing.evaluation.score
import trainables.packing.host
from trainables import final
from trainables.checkpoint import ADAPTER_NAMES, checkpoint_folder, last_report
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.packing import alone
from trainables.packing.capacity import Capacity
from trainables.packing.events import (
    Aborted,
    Event,
    Failed,
    Finished,
    LeaseLost,
    Reported,
    Stopped,
)
from trainables.packing.host import PackHost
from trainables.packing.pack import Pack
from trainables.packing.rounds import NO_ROOM

KINDS = (
    Hyperparameters(lora_rank=4, lora_alpha=8, learning_rate=3e-3),
    Hyperparameters(lora_rank=2, lora_alpha=64, learning_rate=1e-2, lora_dropout=0.5),
    Hyperparameters(lora_rank=16, lora_alpha=16, learning_rate=5e-4, lora_dropout=0.1),
    Hyperparameters(
        lora_rank=8, lora_alpha=4, learning_rate=1e-3, use_rslora=True,
        target_modules=("q_proj", "down_proj"),
    ),
)  # fmt: skip
EXPLODING = dataclasses.replace(KINDS[0], learning_rate=1e30)
TINY_RATE = dataclasses.replace(KINDS[0], learning_rate=1e-9)
STEPS = (2, 4, 6)

Numbers = dict[int, tuple[float, dict[str, float]]]


@pytest.fixture
def settings(settings: TrainingSettings) -> TrainingSettings:
    """Six steps with three reports."""
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
    with ThreadPoolExecutor(1) as pool:
        loop = pool.submit(host.run)
        try:
            yield host
        finally:
            host.close()
        loop.result()


def test_nobody_is_waited_for_once_all_trials_of_a_search_are_there(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    """The other slots are for its finals."""
    kinds = [Hyperparameters(lora_rank=4, lora_alpha=4, learning_rate=1e-3)] * 2
    trials = trials_of(settings, tmp_path, kinds)
    capacity = dataclasses.replace(capacity_of(4), num_searching=2)
    with running(settings, capacity, admit_wait_s=600.0) as host, ThreadPoolExecutor(2) as pool:
        found = list(pool.map(functools.partial(events_of, host), trials))
    assert [len(reports_in(events)) for events in found] == [len(settings.rungs)] * 2


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
        event = host.next_event(lease, 60.0)
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
        alone.train(trial_of("alone", params, settings, Path(folder)), reports.append)
    return {report.step: (report.train_loss, report.metrics) for report in reports}


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
        checkpoint = checkpoint_folder(trial.folder, STEPS[-1])
        assert [path.name for path in trial.folder.iterdir()] == [checkpoint.name]
        assert sorted(path.name for path in checkpoint.iterdir()) == sorted(ADAPTER_NAMES)


def change_pack(monkeypatch: pytest.MonkeyPatch, change: Callable[[Pack], None]) -> None:
    """Do something to every pack that a host makes."""
    make = trainables.packing.host.new_pack

    def changed(*args: Any) -> Pack:
        pack = make(*args)
        change(pack)
        return pack

    monkeypatch.setattr(trainables.packing.host, "new_pack", changed)


def num_trials(pack: Pack, num_slots: int) -> int:
    return num_slots - len(pack.free_slots())


def test_many_trials_through_few_slots_each_give_what_they_give_alone(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trials = trials_of(settings, tmp_path, KINDS * 2)
    with running(settings, capacity_of(3)) as host:
        found = all_events(host, trials)
    assert_all_as_alone(trials, found)


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
        event = host.next_event(lease, generator.random() * 0.4)
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
        assert isinstance(host.next_event(lease, 60.0), Reported)
        events = events_of(host, next_one)
        assert host.next_event(lease, 60.0) == LeaseLost()
        assert not host.renew(lease)
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
        assert host.next_event(lease, 60.0) == LeaseLost()


def wait_until(holds: Callable[[], bool]) -> None:
    """Look often, for a minute at most."""
    deadline_s = time.monotonic() + 60.0
    while not holds():
        assert time.monotonic() < deadline_s, "it never came to hold"
        time.sleep(0.01)


def test_trials_of_a_pack_that_died_go_on_in_another(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trials = trials_of(settings, tmp_path, KINDS)
    first: dict[str, TrialReport] = {}
    with running(settings, capacity_of(4), admit_wait_s=60.0) as host:
        leases = {trial.trial_id: host.join(trial) for trial in trials}
        for trial_id, lease in leases.items():
            event = host.next_event(lease, 60.0)
            assert isinstance(event, Reported) and event.report.step == 2
            first[trial_id] = event.report
    with running(settings, capacity_of(3)) as host:
        found = all_events(host, trials)
    assert_all_as_alone(trials, found)
    for trial, events in zip(trials, found, strict=True):
        again, before = reports_in(events)[0], first[trial.trial_id]
        assert dataclasses.replace(again, cohort=before.cohort) == before
    assert cohorts_in(found, STEPS[0]) == {"t0000 t0001 t0002", "t0003"}


def test_ended_trial_only_sends_its_report_again(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    (trial,) = trials_of(settings, tmp_path, KINDS[:1])
    with running(settings, capacity_of(1)) as host:
        events = events_of(host, trial)
        assert events_of(host, trial) == events[-2:]


def test_trials_that_join_together_start_together(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def count_steps(pack: Pack) -> None:
        step = pack.step

        def counted(most: int) -> Any:
            sizes.append(num_trials(pack, 4))
            return step(most)

        monkeypatch.setattr(pack, "step", counted)

    packs: list[Pack] = []
    change_pack(monkeypatch, count_steps)
    change_pack(monkeypatch, packs.append)
    trials = trials_of(settings, tmp_path, KINDS)
    with running(settings, capacity_of(4), admit_wait_s=60.0) as host:
        wait_until(lambda: bool(packs))
        with ThreadPoolExecutor(4) as pool:
            for trial in trials:
                pool.submit(events_of, host, trial)
                time.sleep(0.3)
    assert sizes == [4] * 6
    sizes.clear()
    with running(settings, capacity_of(4), admit_wait_s=0.5) as host:
        started_s = time.monotonic()
        all_events(host, trials_of(settings, tmp_path / "few", KINDS[:2]))
        assert time.monotonic() - started_s >= 0.5
    assert sizes == [2] * 6


def note_steps(steps: list[int], monkeypatch: pytest.MonkeyPatch, pack: Pack) -> None:
    """Have every step that a trial of the pack has made noted."""
    step = pack.step

    def noted(most: int) -> Any:
        results = step(most)
        steps.extend(result.step for result in results)
        return results

    monkeypatch.setattr(pack, "step", noted)


def test_pack_trains_on_while_a_trial_decides_but_not_past_its_next_rung(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    change_pack(monkeypatch, functools.partial(note_steps, steps, monkeypatch))
    (trial,) = trials_of(settings, tmp_path, KINDS[:1])
    with running(settings, capacity_of(1)) as host:
        lease = host.join(trial)
        assert isinstance(host.next_event(lease, 60.0), Reported)
        wait_until(lambda: steps == [1, 2, 3, 4])
        time.sleep(0.5)
        assert steps == [1, 2, 3, 4]
        seen = last_report(trial.folder)
        assert seen is not None and seen.step == 2
        assert isinstance(host.next_event(lease, 60.0), Reported)


def test_trials_that_are_scored_together_at_one_step_are_a_cohort(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    """The first one has made two steps before, so each round scores it at another step."""
    trials = trials_of(settings, tmp_path, KINDS[:3])
    with running(settings, capacity_of(1)) as host:
        lease = host.join(trials[0])
        assert isinstance(host.next_event(lease, 60.0), Reported)
    with running(settings, capacity_of(3), admit_wait_s=60.0) as host:
        found = all_events(host, trials)
    assert_all_as_alone(trials, found)
    for step in STEPS:
        assert cohorts_in(found, step) == {"t0000", "t0001 t0002"}


def test_pack_goes_on_once_the_sweep_has_decided_whoever_of_its_trials_has_heard(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trials = trials_of(settings, tmp_path, KINDS[:2])
    steps = iter(STEPS)
    with running(settings, capacity_of(2), admit_wait_s=60.0) as host:
        leases = [host.join(trial) for trial in trials]
        for step in steps:
            wait_until(functools.partial(stands_at, trials, step))
            host.decide(step, {trial.trial_id: True for trial in trials})
        found = [[host.next_event(lease, 60.0) for _ in range(4)] for lease in leases]
    assert_all_as_alone(trials, found)  # type: ignore[arg-type]


def stands_at(trials: Sequence[TrialConfig], step: int) -> bool:
    """Whether this is the last report of each."""
    last = [last_report(trial.folder) for trial in trials]
    return all(report is not None and report.step == step for report in last)


def test_stopped_trial_frees_its_slot_before_its_process_has_heard(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process finds its report and its end when it asks; its folder is left alone, though it
    stands at its next rung already."""
    made: list[int] = []
    change_pack(monkeypatch, functools.partial(note_steps, made, monkeypatch))
    stopped, other, next_one = trials_of(settings, tmp_path, KINDS[:3])
    with (
        running(settings, capacity_of(2), admit_wait_s=60.0) as host,
        ThreadPoolExecutor(2) as pool,
    ):
        lease = host.join(stopped)
        following = [pool.submit(events_of, host, trial) for trial in (other, next_one)]
        wait_until(lambda: made.count(STEPS[1]) == 2)
        before = files_in(stopped.folder)
        host.decide(STEPS[0], {stopped.trial_id: False, "unknown": False})
        found = [events.result() for events in following]
        heard = [host.next_event(lease, 60.0) for _ in range(3)]
        assert files_in(stopped.folder) == before
    assert_all_as_alone([other, next_one], found)
    assert isinstance(heard[0], Reported) and heard[1:] == [Stopped(), LeaseLost()]


def test_trial_that_is_stopped_while_it_waits_for_a_slot_gets_none(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    waiting, training = trials_of(settings, tmp_path, KINDS[:2])
    with running(settings, capacity_of(1)) as host, ThreadPoolExecutor(1) as pool:
        held = host.join(training)
        assert isinstance(host.next_event(held, 60.0), Reported)
        lease = host.join(waiting)
        host.decide(STEPS[0], {waiting.trial_id: False})
        assert host.next_event(lease, 60.0) == Stopped()
        host.leave(held)
        events = pool.submit(events_of, host, training).result()
    assert isinstance(events[-1], Finished) and not waiting.folder.exists()


def test_left_folder_is_written_to_no_more(settings: TrainingSettings, tmp_path: Path) -> None:
    trials = trials_of(settings, tmp_path, KINDS)
    with running(settings, capacity_of(4), admit_wait_s=60.0) as host:
        leases = [host.join(trial) for trial in trials]
        for lease in leases:
            assert isinstance(host.next_event(lease, 60.0), Reported)
        for lease in leases:
            host.next_event(lease, 0.0)
        before = []
        for lease, trial in zip(leases[:3], trials, strict=False):
            time.sleep(0.1)  # meanwhile the pack trains, saves and scores
            host.leave(lease)
            before.append(files_in(trial.folder))
        while host.next_event(leases[3], 60.0) != Finished():
            pass
        assert [files_in(trial.folder) for trial in trials[:3]] == before


def files_in(folder: Path) -> list[tuple[str, int]]:
    """Every file and when it was written."""
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


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

    expected_trials = trials_of(settings, tmp_path, KINDS[:3])
    for trial in expected_trials:
        numbers_alone(trial.params, settings)
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
    trials = trials_of(settings, tmp_path, KINDS)
    for trial in trials:
        numbers_alone(trial.params, settings)
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


def test_trial_that_does_not_fit_alone_fails_with_its_remedy(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    trials = trials_of(settings, tmp_path, KINDS[:3])
    for trial in trials:
        numbers_alone(trial.params, settings)
    score_slots = trainables.packing.evaluation.score.score_slots
    num_full = 0

    def filled(model: Any, slots: Sequence[int], *args: Any, **sizes: Any) -> Any:
        nonlocal num_full
        if len(slots) > most_slots or sizes["max_tokens_per_batch"] > most_tokens:
            num_full += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return score_slots(model, slots, *args, **sizes)

    monkeypatch.setattr(trainables.packing.evaluation.score, "score_slots", filled)
    with running(settings, capacity_of(3), admit_wait_s=0.5) as host:
        found = all_events(host, trials)
    assert num_full >= 4
    assert_all_as_alone(trials, found)


def test_evaluation_that_fits_no_single_row_fails_the_trials(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **sizes: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainables.packing.evaluation.score, "score_slots", full)
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
    assert str(tmp_path) in first.error and "--resume" in first.fix


def test_damaged_checkpoint_fails_its_own_trial(settings: TrainingSettings, tmp_path: Path) -> None:
    trials = trials_of(settings, tmp_path, KINDS[:2])
    with running(settings, capacity_of(2)) as host:
        lease = host.join(trials[0])
        assert isinstance(host.next_event(lease, 60.0), Reported)
    # the pack may have come to the next rung before it was closed
    last = max(trials[0].folder.glob("checkpoint-*"))
    damaged = last / "adapter_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with running(settings, capacity_of(2)) as host:
        bad, good = all_events(host, trials)
    assert isinstance(bad[-1], Failed) and str(last) in bad[-1].reason
    assert_all_as_alone(trials[1:], [good])


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
    ):
        assert events_of(host, trial) == [LeaseLost()]


def test_trial_of_another_sweep_or_rank_is_refused(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    host = PackHost(settings, capacity_of(1))
    with pytest.raises(ValueError, match="settings of t0000"):
        host.join(trials_of(longer(settings, 9), tmp_path, KINDS[:1])[0])
    large = dataclasses.replace(KINDS[0], lora_rank=17)
    with pytest.raises(ValueError, match="lora_rank is 17; it must be at most"):
        host.join(trials_of(settings, tmp_path, [large])[0])


def test_direct_run_ends_once_no_trial_is_left(settings: TrainingSettings, tmp_path: Path) -> None:
    trials = trials_of(settings, tmp_path, KINDS[:2])
    host = PackHost(settings, capacity_of(1), math.inf, admit_wait_s=0.0, decision_wait_s=0.0)
    leases = [host.join(trial) for trial in trials]
    host.run(until_empty=True)
    found = [[host.next_event(lease, 0.0) for _ in range(4)] for lease in leases]
    assert_all_as_alone(trials, [[event for event in events if event] for events in found])


@pytest.mark.parametrize("num_slots", [1, 3])
def test_final_scores_of_a_pack_are_those_of_transformers(
    settings: TrainingSettings, tmp_path: Path, num_slots: int
) -> None:
    """While another trial trains in the pack, and where base and winner must take turns."""
    settings = dataclasses.replace(settings, compute_dtype="float32")
    trial, other = (trial_of(name, KINDS[0], settings, tmp_path / name) for name in ("t0", "t1"))
    with running(settings, capacity_of(num_slots)) as host:
        (*_, last, _) = events_of(host, trial)
        assert isinstance(last, Reported)
        untrained = events_of(host, trial_of("t2", TINY_RATE, settings, tmp_path / "t2"))[-2]
        assert isinstance(untrained, Reported)
        if num_slots > 1:
            host.join(other)
        adapters = {"a": last.report.checkpoint, "b": untrained.report.checkpoint}
        found = host.final_scores(adapters).result(60)
    expected = final.score(settings, adapters, capacity=None)
    assert found.keys() == expected.keys() == {"validation_base", "test_base", "a", "b"}
    for name, scores in expected.items():
        assert found[name].metrics == pytest.approx(scores.metrics, rel=1e-5)
        assert found[name].answers == scores.answers
    assert found["a"].metrics["eval_loss"] < found["b"].metrics["eval_loss"] - 1e-3
    base_loss = found["test_base"].metrics["eval_loss"]
    assert found["b"].metrics["eval_loss"] == pytest.approx(base_loss, rel=1e-3)


def test_final_scores_of_a_pack_that_ends_fail(settings: TrainingSettings, tmp_path: Path) -> None:
    with running(settings, capacity_of(1)) as host:
        host.close()
        with pytest.raises(RuntimeError, match="the pack has ended"):
            host.final_scores({"t0": tmp_path}).result(60)


def test_an_adapter_that_cannot_be_tested_leaves_the_pack_alive(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    with running(settings, capacity_of(2)) as host:
        with pytest.raises(OSError, match="nowhere"):
            host.final_scores({"t0": tmp_path / "nowhere"}).result(60)
        assert isinstance(
            events_of(host, trial_of("t0", KINDS[0], settings, tmp_path))[-1], Finished
        )


def test_ledger_sums_to_the_wall_time_of_the_loop(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    started_s = time.monotonic()
    with running(settings, capacity_of(2)) as host:
        reports = {
            name: reports_in(events_of(host, trial_of(name, KINDS[0], settings, tmp_path / name)))
            for name in ("t0", "t1")
        }
    wall_s = time.monotonic() - started_s
    ledger = host.ledger()
    assert sum(ledger.seconds.values()) == pytest.approx(wall_s, rel=0.02)
    assert all(ledger.seconds[name] > 0 for name in ("load", "train", "evaluate", "report", "idle"))
    assert all(share.seconds > 0 for share in ledger.shares.values())
    pure = sum(ledger.seconds[name] for name in ("load", "admit", "decide", "idle"))
    assert pure <= ledger.overhead_s + 1e-6 < wall_s
    assert ledger.trial_steps == 2 * settings.max_steps
    assert sum(share.trained_tokens for share in ledger.shares.values()) == ledger.real_tokens
    assert 0 < ledger.real_tokens <= ledger.computed_tokens
    for name, made in reports.items():
        charged_s = [report.gpu_seconds for report in made]
        assert 0 < charged_s[0] < charged_s[1] < charged_s[2] <= ledger.shares[name].seconds
    time.sleep(0.05)
    assert host.ledger() == ledger


def test_a_trial_that_comes_back_to_its_pack_is_charged_once(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trial = trial_of("t0", KINDS[0], settings, tmp_path / "t0")
    with running(settings, capacity_of(1)) as host:
        lease = host.join(trial)
        assert isinstance(host.next_event(lease, 60.0), Reported)
        host.leave(lease)
        *_, last = reports_in(events_of(host, trial))
    assert last.step == STEPS[-1]
    assert last.gpu_seconds <= host.ledger().shares["t0"].seconds


def test_a_trial_that_goes_on_elsewhere_carries_the_share_that_its_report_tells(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trial = trial_of("t0", KINDS[0], settings, tmp_path / "t0")
    with running(settings, capacity_of(1)) as host:
        lease = host.join(trial)
        first = host.next_event(lease, 60.0)
        assert isinstance(first, Reported)
        host.leave(lease)
    with running(settings, capacity_of(1)) as other:
        again, *later = reports_in(events_of(other, trial))
    assert again.step == first.report.step and again.gpu_seconds == first.report.gpu_seconds
    assert later[0].gpu_seconds > first.report.gpu_seconds
    last_s = other.ledger().shares["t0"].seconds
    assert later[-1].gpu_seconds == pytest.approx(first.report.gpu_seconds + last_s)
