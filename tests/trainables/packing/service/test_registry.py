"""Who has a claim on a pack, and what it is told."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.trainables.packing.small_packs import trial_of
from trainables.checkpoint import get_checkpoint_folder
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.packing.service.events import Failed, Finished, LeaseLost, Reported, Stopped
from trainables.packing.service.registry import TrialRegistry


@pytest.fixture
def trial(settings: TrainingSettings, params: Hyperparameters) -> TrialConfig:
    return trial_of("it", params, settings)


def report_of(trial: TrialConfig, step: int = 2) -> TrialReport:
    """Any report."""
    return TrialReport(
        trial_id=trial.trial_id,
        step=step,
        metrics={},
        train_loss=1.0,
        learning_rate=1e-4,
        epoch=0.1,
        tokens=9,
        tokens_per_s=9.0,
        seconds=1.0,
        peak_gib=0.0,
        checkpoint=get_checkpoint_folder(Path("/none"), step),
    )


def test_events_come_in_order_and_the_lease_ends_with_the_last(trial: TrialConfig) -> None:
    registry = TrialRegistry(2, math.inf, math.inf)
    lease = registry.join(trial)
    (packed,) = registry.list_waiting()
    assert registry.take_event(lease, 0.0) is None
    report = Reported(report_of(trial))
    registry.post_event(packed, report)
    registry.post_event(packed, Finished())
    assert registry.get_presence().trial_ids == () and registry.list_waiting() == []
    assert registry.take_event(lease, 0.0) == report
    assert registry.take_event(lease, 0.0) == Finished()
    assert registry.take_event(lease, 0.0) == LeaseLost()


def test_event_wakes_the_trial_that_waits_for_it(trial: TrialConfig) -> None:
    registry = TrialRegistry(2, math.inf, math.inf)
    lease = registry.join(trial)
    (packed,) = registry.list_waiting()
    threading.Timer(0.1, registry.post_event, (packed, Failed("why"))).start()
    assert registry.take_event(lease, 60.0) == Failed("why")


def test_silent_trial_loses_its_lease_and_one_that_is_heard_keeps_it(trial: TrialConfig) -> None:
    registry = TrialRegistry(2, 0.3, math.inf)
    silent, renewing, listening = (
        registry.join(trial_of(name, trial.params, trial.settings)) for name in "abc"
    )
    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(registry.take_event, listening, 0.8)
        for _ in range(6):
            time.sleep(0.1)
            assert registry.renew_lease(renewing)
            registry.drop_silent_leases()
        assert not registry.renew_lease(silent)
        assert registry.take_event(silent, 60.0) == LeaseLost()
        assert waited.result() is None
    assert [packed.lease for packed in registry.list_waiting()] == [renewing, listening]


def test_second_lease_of_a_trial_ends_its_first(trial: TrialConfig) -> None:
    registry = TrialRegistry(2, math.inf, math.inf)
    first = registry.join(trial)
    (old,) = registry.list_waiting()
    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(registry.take_event, first, 60.0)
        second = registry.join(trial)
        assert waited.result() == LeaseLost()
    assert not old.is_open
    assert [packed.lease for packed in registry.list_waiting()] == [second] != [first]


def test_joins_at_the_same_time_leave_one_lease(trial: TrialConfig) -> None:
    registry = TrialRegistry(2, math.inf, math.inf)
    with ThreadPoolExecutor(8) as pool:
        leases = list(pool.map(registry.join, [trial] * 200))
    assert len(set(leases)) == 200
    assert [packed.lease for packed in registry.list_waiting()] == [max(leases)]


def test_leaving_twice_is_leaving_once(trial: TrialConfig) -> None:
    registry = TrialRegistry(2, math.inf, math.inf)
    lease = registry.join(trial)
    registry.leave(lease)
    registry.leave(lease)
    registry.evict(trial.trial_id)
    assert registry.list_waiting() == [] and registry.get_presence().trial_ids == ()


def test_who_leaves_in_the_middle_is_on_the_way_to_another_pack(trial: TrialConfig) -> None:
    """Neither who has ended nor who has died is. A pack does not know its slots at first."""
    registry = TrialRegistry(0, math.inf, math.inf)
    trials = [trial_of(name, trial.params, trial.settings) for name in ("moves", "ends", "dies")]
    leases = [registry.join(one) for one in trials]
    registry.decide(0, {"ends": False})
    for lease in leases[:2]:
        registry.leave(lease)
    registry.evict("dies")
    presence = registry.get_presence()
    assert (presence.trial_ids, presence.num_moving) == ((), 1)


def test_evicted_trial_is_told(trial: TrialConfig) -> None:
    registry = TrialRegistry(2, math.inf, math.inf)
    lease = registry.join(trial)
    other = registry.join(trial_of("other", trial.params, trial.settings))
    registry.evict(trial.trial_id)
    assert registry.take_event(lease, 60.0) == LeaseLost()
    assert [packed.lease for packed in registry.list_waiting()] == [other]


def test_leaving_waits_for_what_is_being_written(trial: TrialConfig) -> None:
    registry = TrialRegistry(2, math.inf, math.inf)
    lease = registry.join(trial)
    (packed,) = registry.list_waiting()
    with ThreadPoolExecutor(1) as pool:
        with packed.folder_lock:
            left = pool.submit(registry.leave, lease)
            time.sleep(0.1)
            assert not left.done() and not packed.is_open
        left.result(timeout=60.0)


def test_trial_has_decided_once_it_asks_for_more(trial: TrialConfig) -> None:
    registry = TrialRegistry(2, math.inf, decision_wait_s=0.1)
    lease = registry.join(trial)
    (packed,) = registry.list_waiting()
    assert packed.is_decided
    registry.post_event(packed, Reported(report_of(trial)))
    assert not packed.is_decided
    registry.take_event(lease, 0.0)
    assert not packed.is_decided
    started_s = time.monotonic()
    registry.wait_for_decisions([packed])
    assert time.monotonic() - started_s >= 0.1
    registry.take_event(lease, 0.0)
    assert packed.is_decided
    registry.post_event(packed, Reported(report_of(trial)))
    registry.leave(lease)
    assert packed.is_decided


def test_sweep_decides_for_a_trial_that_has_not_heard_of_its_report(trial: TrialConfig) -> None:
    registry = TrialRegistry(2, math.inf, math.inf)
    lease = registry.join(trial)
    (packed,) = registry.list_waiting()
    registry.post_event(packed, Reported(report_of(trial, 2)))
    registry.decide(2, {"another": True})
    assert not packed.is_decided
    registry.decide(2, {trial.trial_id: True})
    assert packed.is_decided
    registry.post_event(packed, Reported(report_of(trial, 4)))
    registry.decide(2, {trial.trial_id: True})
    for _ in range(2):
        assert not packed.is_decided
        assert isinstance(registry.take_event(lease, 0.0), Reported)
    assert registry.take_event(lease, 0.0) is None and packed.is_decided


def test_stopped_trial_still_hears_its_report_and_nothing_that_comes_later(
    trial: TrialConfig,
) -> None:
    registry = TrialRegistry(2, math.inf, math.inf)
    lease = registry.join(trial)
    (packed,) = registry.list_waiting()
    registry.post_event(packed, Reported(report_of(trial)))
    assert packed.is_live
    registry.decide(2, {trial.trial_id: False})
    assert packed.is_open and not packed.is_live
    assert registry.get_presence().trial_ids == () and registry.list_waiting() == []
    registry.wait_for_decisions([packed])
    # It was being written when the trial was stopped.
    registry.post_event(packed, Reported(report_of(trial, 4)))
    assert not packed.is_live and registry.get_presence().trial_ids == ()
    registry.decide(2, {trial.trial_id: False})
    assert isinstance(registry.take_event(lease, 0.0), Reported)
    assert registry.take_event(lease, 0.0) == Stopped()
    assert registry.take_event(lease, 0.0) == LeaseLost()


def test_events_can_be_taken_from_a_closed_pack(trial: TrialConfig) -> None:
    registry = TrialRegistry(2, math.inf, math.inf)
    lease = registry.join(trial)
    (packed,) = registry.list_waiting()
    registry.post_event(packed, Reported(report_of(trial)))
    registry.close()
    assert not registry.renew_lease(lease)
    assert isinstance(registry.take_event(lease, 60.0), Reported)
    assert registry.take_event(lease, 60.0) == LeaseLost()


def test_slots_are_counted_without_ending_anything(trial: TrialConfig) -> None:
    registry = TrialRegistry(2, math.inf, math.inf)
    lease = registry.join(trial)
    assert registry.count_free_slots(trial.trial_id) == 2
    assert registry.count_free_slots("other") == 1
    assert registry.get_presence().trial_ids == (trial.trial_id,)
    assert registry.renew_lease(lease)


def test_who_was_told_of_more_free_slots_than_are_left_gets_none(trial: TrialConfig) -> None:
    """The trial itself, whose older lease is lost, takes no slot from itself."""
    registry = TrialRegistry(2, math.inf, math.inf)
    other, third = (trial_of(name, trial.params, trial.settings) for name in ("other", "third"))
    first = registry.try_join(trial, 2)
    assert first is not None
    assert registry.try_join(other, 2) is None
    assert registry.try_join(other, 1) is not None
    assert registry.try_join(third, 1) is None
    assert registry.try_join(trial, 1) is not None
    assert registry.take_event(first, 0.0) == LeaseLost()
    registry.join(third)
    assert registry.count_free_slots("fourth") == -1


def test_ended_and_silent_trials_leave_their_slots_before_the_loop_has_seen_it(
    trial: TrialConfig,
) -> None:
    registry = TrialRegistry(3, 0.2, math.inf)
    other, silent = (trial_of(name, trial.params, trial.settings) for name in ("other", "silent"))
    registry.join(trial)
    registry.join(silent)
    time.sleep(0.3)
    registry.join(other)
    assert registry.get_presence().trial_ids == ("other",) and registry.count_free_slots("new") == 2
    registry.decide(2, {"other": False})
    assert registry.get_presence().trial_ids == () and registry.count_free_slots("new") == 3


def test_restarted_pack_does_not_know_its_predecessors_leases(trial: TrialConfig) -> None:
    stale = TrialRegistry(2, math.inf, math.inf).join(trial)
    restarted = TrialRegistry(2, math.inf, math.inf)
    assert restarted.join(trial) > stale
    assert restarted.take_event(stale, 0.0) == LeaseLost()
    assert not restarted.renew_lease(stale)
