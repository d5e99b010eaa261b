"""A pack as a service: trials come and go together, are decided, tested and charged."""

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.packing.small_hosts import (
    KINDS,
    STEPS,
    all_events,
    assert_all_as_alone,
    capacity_of,
    change_pack,
    cohorts_in,
    events_of,
    num_trials,
    of_six_steps,
    reports_in,
    running,
    running_once_full,
    trials_of,
    wait_until,
)
from tests.trainables.packing.small_packs import longer, trial_of
from trainables import final_test
from trainables.checkpoint import read_last_report
from trainables.config import TrainingSettings, TrialConfig
from trainables.packing.compute.pack import Pack
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.service.events import (
    Finished,
    LeaseLost,
    Reported,
    Stopped,
)
from trainables.packing.service.host import PackHost

TINY_RATE = dataclasses.replace(KINDS[0], learning_rate=1e-9)


@pytest.fixture
def settings(settings: TrainingSettings) -> TrainingSettings:
    """Six steps with three reports."""
    return of_six_steps(settings)


def test_an_empty_pack_begins_with_those_that_wait_once_nobody_else_comes(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trials = trials_of(settings, tmp_path, KINDS[:2])
    with running(settings, capacity_of(4), admit_wait_s=600.0) as host:
        found = all_events(host, trials)
    assert cohorts_in(found, STEPS[0]) == {"t0000 t0001"}
    assert_all_as_alone(trials, found)


def test_many_trials_through_few_slots_each_give_what_they_give_alone(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trials = trials_of(settings, tmp_path, KINDS * 2)
    with running(settings, capacity_of(3)) as host:
        found = all_events(host, trials)
    assert_all_as_alone(trials, found)


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
    packs: list[Pack] = []
    change_pack(monkeypatch, functools.partial(note_sizes, sizes, monkeypatch))
    change_pack(monkeypatch, packs.append)
    trials = trials_of(settings, tmp_path, KINDS)
    with running_once_full(settings, capacity_of(4)) as host:
        wait_until(lambda: bool(packs))
        with ThreadPoolExecutor(4) as pool:
            for trial in trials:
                pool.submit(events_of, host, trial)
                time.sleep(0.1)
    assert sizes == [4] * 6


def test_who_comes_while_others_train_waits_for_more_to_enter_with(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    change_pack(monkeypatch, functools.partial(note_sizes, sizes, monkeypatch))
    first, second = trials_of(settings, tmp_path, KINDS[:2])
    with (
        running(settings, capacity_of(4), admit_wait_s=600.0) as host,
        ThreadPoolExecutor(1) as pool,
    ):
        following = pool.submit(events_of, host, first)
        wait_until(lambda: bool(sizes))
        found = [events_of(host, second), following.result()]
    assert_all_as_alone([second, first], found)
    assert sizes == [1] * 12


def note_sizes(sizes: list[int], monkeypatch: pytest.MonkeyPatch, pack: Pack) -> None:
    """Have it noted how many trials make each step."""
    step = pack.step

    def noted(most: int) -> Any:
        sizes.append(num_trials(pack, 4))
        return step(most)

    monkeypatch.setattr(pack, "step", noted)


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
        assert isinstance(host.take_event(lease, 60.0), Reported)
        wait_until(lambda: steps == [1, 2, 3, 4])
        time.sleep(0.5)
        assert steps == [1, 2, 3, 4]
        seen = read_last_report(trial.folder)
        assert seen is not None and seen.step == 2
        assert isinstance(host.take_event(lease, 60.0), Reported)


def test_trials_that_are_scored_together_at_one_step_are_a_cohort(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    """The first one has made two steps before, so each round scores it at another step."""
    trials = trials_of(settings, tmp_path, KINDS[:3])
    with running(settings, capacity_of(1)) as host:
        lease = host.join(trials[0])
        assert isinstance(host.take_event(lease, 60.0), Reported)
    with running_once_full(settings, capacity_of(3)) as host:
        found = all_events(host, trials)
    assert_all_as_alone(trials, found)
    for step in STEPS:
        assert cohorts_in(found, step) == {"t0000", "t0001 t0002"}


def test_pack_goes_on_once_the_sweep_has_decided_whoever_of_its_trials_has_heard(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trials = trials_of(settings, tmp_path, KINDS[:2])
    steps = iter(STEPS)
    with running_once_full(settings, capacity_of(2)) as host:
        leases = [host.join(trial) for trial in trials]
        for step in steps:
            wait_until(functools.partial(stands_at, trials, step))
            host.decide(step, {trial.trial_id: True for trial in trials})
        found = [[host.take_event(lease, 60.0) for _ in range(4)] for lease in leases]
    assert_all_as_alone(trials, found)  # type: ignore[arg-type]


def stands_at(trials: Sequence[TrialConfig], step: int) -> bool:
    """Whether this is the last report of each."""
    last = [read_last_report(trial.folder) for trial in trials]
    return all(report is not None and report.step == step for report in last)


def test_stopped_trial_frees_its_slot_before_its_process_has_heard(
    settings: TrainingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process finds its report and its end when it asks; its folder is left alone, though it
    stands at its next rung already."""
    made: list[int] = []
    num_scored: list[int] = []
    evaluate = PackEvaluator.evaluate

    def counted(evaluator: PackEvaluator, model: Any, slots: Sequence[int], *args: Any) -> Any:
        num_scored.append(len(slots))
        return evaluate(evaluator, model, slots, *args)

    monkeypatch.setattr(PackEvaluator, "evaluate", counted)
    change_pack(monkeypatch, functools.partial(note_steps, made, monkeypatch))
    stopped, other, next_one = trials_of(settings, tmp_path, KINDS[:3])
    with (
        running_once_full(settings, capacity_of(2)) as host,
        ThreadPoolExecutor(2) as pool,
    ):
        lease = host.join(stopped)
        following = [pool.submit(events_of, host, trial) for trial in (other, next_one)]
        wait_until(lambda: made.count(STEPS[1]) == 2)
        before = files_in(stopped.folder)
        host.decide(STEPS[0], {stopped.trial_id: False, "unknown": False})
        found = [events.result() for events in following]
        heard = [host.take_event(lease, 60.0) for _ in range(3)]
        assert files_in(stopped.folder) == before
    assert_all_as_alone([other, next_one], found)
    assert isinstance(heard[0], Reported) and heard[1:] == [Stopped(), LeaseLost()]
    assert sum(num_scored) == 1 + 2 * len(STEPS)  # the stopped one's second rung is not scored


def test_trial_that_is_stopped_while_it_waits_for_a_slot_gets_none(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    waiting, training = trials_of(settings, tmp_path, KINDS[:2])
    with running(settings, capacity_of(1)) as host, ThreadPoolExecutor(1) as pool:
        held = host.join(training)
        assert isinstance(host.take_event(held, 60.0), Reported)
        lease = host.join(waiting)
        host.decide(STEPS[0], {waiting.trial_id: False})
        assert host.take_event(lease, 60.0) == Stopped()
        host.leave(held)
        events = pool.submit(events_of, host, training).result()
    assert isinstance(events[-1], Finished) and not waiting.folder.exists()


def test_left_folder_is_written_to_no_more(settings: TrainingSettings, tmp_path: Path) -> None:
    trials = trials_of(settings, tmp_path, KINDS)
    with running_once_full(settings, capacity_of(4)) as host:
        leases = [host.join(trial) for trial in trials]
        for lease in leases:
            assert isinstance(host.take_event(lease, 60.0), Reported)
        for lease in leases:
            host.take_event(lease, 0.0)
        before = []
        for lease, trial in zip(leases[:3], trials, strict=False):
            time.sleep(0.1)  # meanwhile the pack trains, saves and scores
            host.leave(lease)
            before.append(files_in(trial.folder))
        while host.take_event(leases[3], 60.0) != Finished():
            pass
        assert [files_in(trial.folder) for trial in trials[:3]] == before


def files_in(folder: Path) -> list[tuple[str, int]]:
    """Every file and when it was written."""
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def test_trial_of_another_sweep_or_rank_is_refused(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    host = PackHost(settings, capacity_of(1))
    with pytest.raises(ValueError, match="settings of t0000"):
        host.join(trials_of(longer(settings, 9), tmp_path, KINDS[:1])[0])
    large = dataclasses.replace(KINDS[0], lora_rank=17)
    with pytest.raises(ValueError, match="lora_rank is 17; it must be at most"):
        host.join(trials_of(settings, tmp_path, [large])[0])


def test_trials_that_joined_before_the_loop_began_are_trained(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trials = trials_of(settings, tmp_path, KINDS[:2])
    host = PackHost(settings, capacity_of(1), math.inf, admit_wait_s=0.0, decision_wait_s=0.0)
    leases = [host.join(trial) for trial in trials]
    with host.run_in_thread():
        found = [[host.take_event(lease, 60.0) for _ in range(4)] for lease in leases]
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
        found = host.run_final_test(adapters)
        one = host.run_final_test({"a": adapters["a"]}, has_base=False)
    assert one.keys() == {"a"} and one["a"].answers == found["a"].answers
    assert one["a"].metrics == pytest.approx(found["a"].metrics, rel=1e-5)
    expected = final_test.score_final_test(settings, adapters, capacity=None)
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
            host.run_final_test({"t0": tmp_path})


def test_an_adapter_that_cannot_be_tested_leaves_the_pack_alive(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    with running(settings, capacity_of(2)) as host:
        with pytest.raises(OSError, match="nowhere"):
            host.run_final_test({"t0": tmp_path / "nowhere"})
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
    ledger = host.read_ledger()
    assert sum(ledger.seconds.values()) == pytest.approx(wall_s, rel=0.1)
    assert all(ledger.seconds[name] > 0 for name in ("load", "train", "evaluate", "report", "idle"))
    assert all(share.seconds > 0 for share in ledger.shares.values())
    pure = sum(ledger.seconds[name] for name in ("load", "admit", "decide", "idle"))
    overhead_s = ledger.wall_s - sum(share.seconds for share in ledger.shares.values())
    assert pure <= overhead_s + 1e-6 < wall_s
    assert ledger.trial_steps == 2 * settings.max_steps
    assert sum(share.trained_tokens for share in ledger.shares.values()) == ledger.real_tokens
    assert 0 < ledger.real_tokens <= ledger.computed_tokens
    for name, made in reports.items():
        charged_s = [report.gpu_seconds for report in made]
        assert 0 < charged_s[0] < charged_s[1] < charged_s[2] <= ledger.shares[name].seconds
    places = {name: {(r.pack, r.slot, r.device) for r in made} for name, made in reports.items()}
    assert {len(of_trial) for of_trial in places.values()} == {1}  # none has moved
    slots = {slot for ((_, slot, _),) in places.values()}
    assert places.keys() == reports.keys() and slots == {0}  # one after another
    for ((pack, _, device),) in places.values():
        assert pack == ledger.pack_id != "" and device == ledger.device
    entered = {report.entered for made in reports.values() for report in made}
    assert ledger.started < min(entered) and max(entered) < time.time()
    time.sleep(0.05)
    assert host.read_ledger() == ledger


def test_a_trial_that_comes_back_to_its_pack_is_charged_once(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trial = trial_of("t0", KINDS[0], settings, tmp_path / "t0")
    with running(settings, capacity_of(1)) as host:
        lease = host.join(trial)
        assert isinstance(host.take_event(lease, 60.0), Reported)
        host.leave(lease)
        *_, last = reports_in(events_of(host, trial))
    assert last.step == STEPS[-1]
    assert last.gpu_seconds <= host.read_ledger().shares["t0"].seconds


def test_a_trial_that_goes_on_elsewhere_carries_the_share_that_its_report_tells(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    trial = trial_of("t0", KINDS[0], settings, tmp_path / "t0")
    with running(settings, capacity_of(1)) as host:
        lease = host.join(trial)
        first = host.take_event(lease, 60.0)
        assert isinstance(first, Reported)
        host.leave(lease)
    with running(settings, capacity_of(1)) as other:
        again, *later = reports_in(events_of(other, trial))
    assert again.step == first.report.step and again.gpu_seconds == first.report.gpu_seconds
    assert later[0].gpu_seconds > first.report.gpu_seconds
    last_s = other.read_ledger().shares["t0"].seconds
    assert later[-1].gpu_seconds == pytest.approx(first.report.gpu_seconds + last_s)
