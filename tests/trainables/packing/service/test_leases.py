"""Who has a claim on a pack, and what it is told."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.trainables.packing.small_packs import trial_of
from trainables.checkpoint import checkpoint_folder
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.packing.service.events import Failed, Finished, LeaseLost, Reported, Stopped
from trainables.packing.service.leases import Leases


@pytest.fixture
def trial(settings: TrainingSettings, params: Hyperparameters) -> TrialConfig:
    return trial_of("it", params, settings)


def report_of(trial: TrialConfig, step: int = 2) -> TrialReport:
    """Any report."""
    return TrialReport(
        trial_id=trial.trial_id, step=step, metrics={}, train_loss=1.0, learning_rate=1e-4,
        epoch=0.1, tokens=9, tokens_per_s=9.0, seconds=1.0, peak_gib=0.0,
        checkpoint=checkpoint_folder(Path("/none"), step),
    )  # fmt: skip


def test_events_come_in_order_and_the_lease_ends_with_the_last(trial: TrialConfig) -> None:
    leases = Leases(math.inf)
    number = leases.join(trial)
    (lease,) = leases.waiting()
    assert leases.next_event(number, 0.0) is None
    report = Reported(report_of(trial))
    leases.post(lease, report, Finished())
    assert leases.is_done and leases.waiting() == []
    assert leases.next_event(number, 0.0) == report
    assert leases.next_event(number, 0.0) == Finished()
    assert leases.next_event(number, 0.0) == LeaseLost()


def test_event_wakes_the_trial_that_waits_for_it(trial: TrialConfig) -> None:
    leases = Leases(math.inf)
    number = leases.join(trial)
    (lease,) = leases.waiting()
    threading.Timer(0.1, leases.post, (lease, Failed("why"))).start()
    assert leases.next_event(number, 60.0) == Failed("why")


def test_silent_trial_loses_its_lease_and_one_that_is_heard_keeps_it(trial: TrialConfig) -> None:
    leases = Leases(0.3)
    silent, renewing, listening = (
        leases.join(trial_of(name, trial.params, trial.settings)) for name in "abc"
    )
    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(leases.next_event, listening, 0.8)
        for _ in range(6):
            time.sleep(0.1)
            assert leases.renew(renewing)
            leases.drop_silent()
        assert not leases.renew(silent)
        assert leases.next_event(silent, 60.0) == LeaseLost()
        assert waited.result() is None
    assert [lease.number for lease in leases.waiting()] == [renewing, listening]


def test_second_lease_of_a_trial_ends_its_first(trial: TrialConfig) -> None:
    leases = Leases(math.inf)
    first = leases.join(trial)
    (old,) = leases.waiting()
    with ThreadPoolExecutor(1) as pool:
        waited = pool.submit(leases.next_event, first, 60.0)
        second = leases.join(trial)
        assert waited.result() == LeaseLost()
    assert not old.is_open
    assert [lease.number for lease in leases.waiting()] == [second] != [first]


def test_joins_at_the_same_time_leave_one_lease(trial: TrialConfig) -> None:
    leases = Leases(math.inf)
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(leases.join, [trial] * 200))
    assert len(set(numbers)) == 200
    assert [lease.number for lease in leases.waiting()] == [max(numbers)]


def test_leaving_twice_is_leaving_once(trial: TrialConfig) -> None:
    leases = Leases(math.inf)
    number = leases.join(trial)
    leases.leave(number)
    leases.leave(number)
    leases.evict(trial.trial_id)
    assert leases.waiting() == [] and leases.is_done


def test_evicted_trial_is_told(trial: TrialConfig) -> None:
    leases = Leases(math.inf)
    number = leases.join(trial)
    other = leases.join(trial_of("other", trial.params, trial.settings))
    leases.evict(trial.trial_id)
    assert leases.next_event(number, 60.0) == LeaseLost()
    assert [lease.number for lease in leases.waiting()] == [other]


def test_leaving_waits_for_what_is_being_written(trial: TrialConfig) -> None:
    leases = Leases(math.inf)
    number = leases.join(trial)
    (lease,) = leases.waiting()
    with ThreadPoolExecutor(1) as pool:
        with lease.folder_lock:
            left = pool.submit(leases.leave, number)
            time.sleep(0.1)
            assert not left.done() and not lease.is_open
        left.result(timeout=60.0)


def test_trial_has_decided_once_it_asks_for_more(trial: TrialConfig) -> None:
    leases = Leases(math.inf)
    number = leases.join(trial)
    (lease,) = leases.waiting()
    assert lease.is_decided
    leases.post(lease, Reported(report_of(trial)))
    assert not lease.is_decided
    leases.next_event(number, 0.0)
    assert not lease.is_decided
    started_s = time.monotonic()
    leases.wait_decided([lease], 0.1)
    assert time.monotonic() - started_s >= 0.1
    leases.next_event(number, 0.0)
    assert lease.is_decided
    leases.post(lease, Reported(report_of(trial)))
    leases.leave(number)
    leases.wait_decided([lease], math.inf)


def test_sweep_decides_for_a_trial_that_has_not_heard_of_its_report(trial: TrialConfig) -> None:
    leases = Leases(math.inf)
    number = leases.join(trial)
    (lease,) = leases.waiting()
    leases.post(lease, Reported(report_of(trial, 2)))
    leases.decide(2, {"another": True})
    assert not lease.is_decided
    leases.decide(2, {trial.trial_id: True})
    assert lease.is_decided
    leases.post(lease, Reported(report_of(trial, 4)))
    leases.decide(2, {trial.trial_id: True})
    for _ in range(2):
        assert not lease.is_decided
        assert isinstance(leases.next_event(number, 0.0), Reported)
    assert leases.next_event(number, 0.0) is None and lease.is_decided


def test_stopped_trial_still_hears_its_report_and_nothing_that_comes_later(
    trial: TrialConfig,
) -> None:
    leases = Leases(math.inf)
    number = leases.join(trial)
    (lease,) = leases.waiting()
    leases.post(lease, Reported(report_of(trial)))
    assert lease.is_live
    leases.decide(2, {trial.trial_id: False})
    assert lease.is_open and not lease.is_live
    assert leases.is_done and leases.waiting() == []
    leases.wait_decided([lease], math.inf)
    leases.post(lease, Reported(report_of(trial, 4)))  # was being written when it was stopped
    assert not lease.is_live and leases.is_done
    leases.decide(2, {trial.trial_id: False})
    assert isinstance(leases.next_event(number, 0.0), Reported)
    assert leases.next_event(number, 0.0) == Stopped()
    assert leases.next_event(number, 0.0) == LeaseLost()


def test_events_can_be_taken_from_a_closed_pack(trial: TrialConfig) -> None:
    leases = Leases(math.inf)
    number = leases.join(trial)
    (lease,) = leases.waiting()
    leases.post(lease, Reported(report_of(trial)))
    leases.close()
    assert not leases.renew(number)
    assert isinstance(leases.next_event(number, 60.0), Reported)
    assert leases.next_event(number, 60.0) == LeaseLost()
