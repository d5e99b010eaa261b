"""Packs behind real Ray: trials of other processes train in them, whoever of the two dies."""

import dataclasses
import itertools
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from cluster.connect import connect
from trainables.checkpoint import read_progress
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.errors import SweepAborted, TrialFailed
from trainables.packing.service import actor, client, in_process
from trainables.packing.service.events import (
    Finished,
    LeaseLost,
    LoadFault,
    PackFault,
    PackPreempted,
)
from trainables.packing.sizing.capacity import Capacity

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests

PARAMS = Hyperparameters(lora_rank=4, lora_alpha=8, learning_rate=5e-3)
LIMIT_S = 240.0
NUMBERS = itertools.count()
Start = Callable[..., ActorHandle]


@dataclass(frozen=True)
class Followed:
    """What a trial's process saw."""

    reports: list[TrialReport]
    failed: str | None
    aborted: SweepAborted | None
    modules: set[str]


def follow(
    trial: TrialConfig,
    actors: Sequence[ActorHandle] | None,
    max_failures: int = 2,
    hold_s: float = 0.0,
    last_step: int | None = None,
    hold_until: Path | None = None,
) -> Followed:
    """Trains a trial as Tune's process does, in these packs or in all that there are; every report
    leaves a file, and may take its time, or as long as a file is not there."""
    reports: list[TrialReport] = []

    def report(made: TrialReport) -> None:
        reports.append(made)
        (trial.folder.parent / f"{trial.trial_id}.{made.step}").write_text(str(os.getpid()))
        time.sleep(hold_s)
        while hold_until is not None and not hold_until.exists():
            time.sleep(0.05)
        if made.step == last_step:
            raise SystemExit(0)

    failed, aborted = None, None
    try:
        list_packs = client.find_packs if actors is None else lambda: actors
        client.train(trial, list_packs, report, max_failures)
    except SystemExit:
        pass
    except TrialFailed as raised:
        failed = str(raised)
    except SweepAborted as raised:
        aborted = raised
    return Followed(reports, failed, aborted, set(sys.modules))


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A Ray of these tests' own, with room for two packs."""
    with connect(num_local_cpus=3):
        yield


@pytest.fixture
def start(settings: TrainingSettings, tmp_path: Path) -> Iterator[Start]:
    """Starts packs of the small model, which end with the test."""
    started = []

    def start_one(num_slots: int = 2, lease_timeout_s: float = 30.0, **changes: Any) -> ActorHandle:
        capacity = Capacity(
            num_slots=num_slots,
            max_rank=4,
            max_tokens=2048,
            eval_tokens=8192,
            is_dequantised=True,
            predicted_gib=0.0,
        )
        pack = actor.start_pack(
            dataclasses.replace(settings, **changes),
            capacity,
            tmp_path,
            number=next(NUMBERS),
            has_gpu=False,
            lease_timeout_s=lease_timeout_s,
        )
        started.append(pack)
        return pack

    yield start_one
    for pack in started:
        ray.kill(pack)


@pytest.fixture
def trial(settings: TrainingSettings, tmp_path: Path) -> TrialConfig:
    """Four steps with reports at 2 and 4."""
    return trial_of("t0000", settings, tmp_path)


def trial_of(trial_id: str, settings: TrainingSettings, folder: Path) -> TrialConfig:
    return TrialConfig(
        trial_id=trial_id, params=PARAMS, settings=settings, folder=folder / trial_id
    )


def begin(*args: Any, **options: Any) -> Any:
    """follow() in a process of Ray's; the result to wait for."""
    return ray.remote(num_cpus=0.01, max_retries=0)(follow).remote(*args, **options)


def ended(result: Any) -> Followed:
    found: Followed = ray.get(result, timeout=LIMIT_S)
    return found


def wait_for_report(trial: TrialConfig, step: int) -> int:
    """The process in which the trial made its report of the step."""
    path = trial.folder.parent / f"{trial.trial_id}.{step}"
    deadline_s = time.monotonic() + LIMIT_S
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return int(path.read_text())


def pid_of(pack: ActorHandle) -> int:
    """The process of a pack; waits until there is one."""
    pid: int = ray.get(pack.__ray_call__.remote(lambda _: os.getpid()), timeout=LIMIT_S)
    return pid


def numbers(reports: Sequence[TrialReport]) -> list[dict[str, float]]:
    return [
        {"step": report.step, "train_loss": report.train_loss, **report.metrics}
        for report in reports
    ]


def near(reports: Sequence[TrialReport]) -> list[Any]:
    """Their numbers, but for the rounding of products of another size."""
    return [pytest.approx(each, rel=1e-7) for each in numbers(reports)]


def test_trial_in_a_pack_reports_what_it_reports_alone_and_loads_no_torch(
    start: Start, trial: TrialConfig, tmp_path: Path
) -> None:
    found = ended(begin(trial, [start()]))
    reports: list[TrialReport] = []
    in_process.train(dataclasses.replace(trial, folder=tmp_path / "alone"), reports.append)
    assert [report.step for report in found.reports] == [2, 4]
    assert numbers(found.reports) == near(reports)
    assert "ray" in found.modules and "torch" not in found.modules


def test_pack_that_is_killed_costs_no_report(
    start: Start, trial: TrialConfig, tmp_path: Path
) -> None:
    """The trial waits for the next one, and finds it by its name."""
    following = begin(trial, None, hold_s=2.0)
    pack = start()
    wait_for_report(trial, 2)
    os.kill(pid_of(pack), signal.SIGKILL)
    time.sleep(client.POLL_INTERVAL_S)
    start()
    found = ended(following)
    reports: list[TrialReport] = []
    in_process.train(dataclasses.replace(trial, folder=tmp_path / "alone"), reports.append)
    assert numbers(found.reports) == near(reports)


def test_pack_that_gets_sigterm_saves_its_trial_which_goes_on_in_the_next(
    start: Start, settings: TrainingSettings, tmp_path: Path
) -> None:
    """A tenth of a second or so into the 60 steps of its last rung; that is no loss of a pack."""
    trial = trial_of("t0000", dataclasses.replace(settings, max_steps=62, rungs=(2, 62)), tmp_path)
    following = begin(trial, None, max_failures=0)
    pack = start(max_steps=62, rungs=(2, 62))
    wait_for_report(trial, 2)
    os.kill(pid_of(pack), signal.SIGTERM)
    with pytest.raises(RayActorError):
        while True:
            fault = ray.get(pack.get_status.remote(), timeout=LIMIT_S).fault
            time.sleep(0.1)
    assert isinstance(fault, PackPreempted) and "SIGTERM" in str(fault)
    progress = read_progress(trial.folder)
    assert progress is not None and 2 < progress.step < 62
    start(max_steps=62, rungs=(2, 62))
    found = ended(following)
    reports: list[TrialReport] = []
    in_process.train(dataclasses.replace(trial, folder=tmp_path / "alone"), reports.append)
    assert numbers(found.reports) == near(reports)
    assert found.reports[1].train_loss == reports[1].train_loss


def test_trial_of_a_pack_that_keeps_dying_fails(start: Start, trial: TrialConfig) -> None:
    pack = start()
    following = begin(trial, [pack], max_failures=0, hold_s=2.0)
    wait_for_report(trial, 2)
    os.kill(pid_of(pack), signal.SIGKILL)
    found = ended(following)
    assert [report.step for report in found.reports] == [2]
    assert found.failed is not None and "its pack was lost 1 times" in found.failed


class DyingPack:
    """A pack whose loop has ended: its process says so until it is gone, and starts again."""

    def __init__(self) -> None:
        self._told = 0

    def _tell(self) -> None:
        self._told += 1
        if self._told <= 3:
            raise PackFault(1, "RuntimeError: of the test")

    def evict(self, trial_id: str) -> int:
        if self._told:
            self._tell()
        return 1

    def try_join(self, trial: TrialConfig, num_free: int) -> int:
        return 0

    def take_event(self, lease: int, timeout_s: float) -> Finished:
        self._tell()
        return Finished()

    def renew_lease(self, lease: int) -> bool:
        return True

    def leave(self, lease: int) -> None:
        pass


@pytest.mark.parametrize(("max_failures", "failed"), [(1, None), (0, "in process 1, Runtime")])
def test_one_death_of_a_pack_is_one_loss_however_often_it_is_met(
    trial: TrialConfig, max_failures: int, failed: str | None
) -> None:
    pack = ray.remote(num_cpus=0, concurrency_groups={"polls": 1})(DyingPack).remote()
    found = ended(begin(trial, [pack], max_failures=max_failures))
    if failed is None:
        assert found.failed is None
    else:
        assert found.failed is not None and failed in found.failed
        assert "lost 1 times" in found.failed and "Traceback" not in found.failed
        assert found.failed.count("\n") == 0


class BusyPack(DyingPack):
    """A pack that cannot answer the first time that it is asked."""

    def __init__(self) -> None:
        self._told = 3
        self._num_asked = 0

    def evict(self, trial_id: str) -> int:
        self._num_asked += 1
        if self._num_asked == 1:
            raise PackFault(1, "RuntimeError: of the test")
        return 1

    def try_join(self, trial: TrialConfig, num_free: int) -> int:
        assert self._num_asked > 1, "joined before the older lease was ended"
        return 0


def test_no_trial_joins_before_its_older_lease_is_known_to_have_ended(trial: TrialConfig) -> None:
    pack = ray.remote(num_cpus=0, concurrency_groups={"polls": 1})(BusyPack).remote()
    assert ended(begin(trial, [pack], max_failures=1)).failed is None
    assert ray.get(pack.__ray_call__.remote(lambda pack: pack._num_asked)) == 2


@pytest.mark.parametrize(
    "broken",
    [{"model": "/no/such/model"}, {"rows_dir": Path("/no/such/rows")}],
    ids=["model", "rows"],
)
def test_pack_that_cannot_load_says_why_and_costs_its_trial_nothing(
    start: Start, trial: TrialConfig, broken: dict[str, Any]
) -> None:
    pack = start(**broken)
    first = pid_of(pack)
    trial = dataclasses.replace(trial, settings=dataclasses.replace(trial.settings, **broken))
    lease = ray.get(pack.join.remote(trial), timeout=LIMIT_S)
    with pytest.raises(LoadFault, match="/no/such/"):
        client._forward_events(trial, pack, lease, lambda: [pack], {}, lambda report: None)
    status = ray.get(pack.get_status.remote(), timeout=LIMIT_S)
    assert isinstance(status.fault, LoadFault) and "/no/such/" in str(status.fault)
    assert not status.is_loaded and status.place.node
    deadline_s = time.monotonic() + LIMIT_S
    while os.path.exists(f"/proc/{first}"):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def test_trial_in_a_pack_that_cannot_load_goes_on_in_the_next(
    start: Start, trial: TrialConfig, model_dir: str, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    settings = dataclasses.replace(trial.settings, model=str(model))
    following = begin(dataclasses.replace(trial, settings=settings), None, max_failures=0)
    for _ in range(2):
        pack = start(model=str(model))
        with pytest.raises(RayActorError):
            while True:
                ray.get(pack.get_status.remote(), timeout=LIMIT_S)
                time.sleep(0.1)
    shutil.copytree(model_dir, model)
    start(model=str(model))
    assert [report.step for report in ended(following).reports] == [2, 4]


def test_stopped_trial_has_given_its_slot_back(start: Start, trial: TrialConfig) -> None:
    pack = start()
    assert ray.get(pack.count_free_slots.remote("t0001"), timeout=LIMIT_S) == 2
    found = ended(begin(trial, [pack], last_step=2))
    assert [report.step for report in found.reports] == [2]
    assert ray.get(pack.count_free_slots.remote("t0001")) == 2


def test_slot_of_a_stopped_trial_is_free_before_its_process_has_heard(
    start: Start, trial: TrialConfig
) -> None:
    endless = {"max_steps": 10**6, "rungs": (2, 10**6)}
    longer = dataclasses.replace(trial.settings, **endless)
    first, other = (trial_of(name, longer, trial.folder.parent) for name in ("t0000", "t0001"))
    pack = start(num_slots=1, **endless)
    begin(first, [pack], hold_s=2 * LIMIT_S)
    wait_for_report(first, 2)
    ray.get(pack.decide.remote(2, {"t0000": False, "t0009": True}), timeout=LIMIT_S)
    assert ray.get(pack.count_free_slots.remote("t0001")) == 1
    assert [report.step for report in ended(begin(other, [pack], last_step=2)).reports] == [2]


def test_trials_that_are_scored_together_bring_each_others_reports(
    start: Start, trial: TrialConfig
) -> None:
    pack = start(num_slots=2)
    trials = [trial, trial_of("t0001", trial.settings, trial.folder.parent)]
    with ThreadPoolExecutor(2) as pool:  # both wait before the pack has loaded, as no process might
        found = list(pool.map(lambda each: follow(each, [pack]), trials))
    by_id = [{(r.trial_id, r.step): r for r in one.reports} for one in found]
    for one, other in (by_id, by_id[::-1]):
        for report in one.values():
            assert [(r.trial_id, r.step) for r in report.cohort] == [
                (name, step) for name, step in other if step == report.step
            ]


def test_slow_decision_keeps_the_lease(start: Start, trial: TrialConfig) -> None:
    pack = start(lease_timeout_s=8.0)
    found = ended(begin(trial, [pack], max_failures=0, hold_s=10.0))
    assert [report.step for report in found.reports] == [2, 4]
    assert found.failed is None


def test_slot_of_a_dead_process_is_free_after_the_timeout(start: Start, trial: TrialConfig) -> None:
    endless = {"max_steps": 10**6, "rungs": (2, 10**6)}
    longer = dataclasses.replace(trial.settings, **endless)
    first, other = (trial_of(name, longer, trial.folder.parent) for name in ("t0000", "t0001"))
    pack = start(num_slots=1, lease_timeout_s=3.0, **endless)
    begin(first, [pack], hold_s=60.0)
    os.kill(wait_for_report(first, 2), signal.SIGKILL)
    found = ended(begin(other, [pack], last_step=2))
    assert [report.step for report in found.reports] == [2]


def test_new_process_of_a_trial_has_its_slot_at_once(start: Start, trial: TrialConfig) -> None:
    pack = start(num_slots=1, lease_timeout_s=2 * LIMIT_S)
    begin(trial, [pack], hold_s=60.0)
    os.kill(wait_for_report(trial, 2), signal.SIGKILL)
    found = ended(begin(trial, [pack], last_step=2))
    assert [report.step for report in found.reports] == [2]


def test_new_process_of_a_trial_evicts_it_from_other_packs(
    start: Start, trial: TrialConfig
) -> None:
    full, empty = start(num_slots=1), start(num_slots=3)
    lease = ray.get(full.join.remote(trial), timeout=LIMIT_S)
    ray.get(empty.count_free_slots.remote("t0001"), timeout=LIMIT_S)
    assert [report.step for report in ended(begin(trial, [full, empty])).reports] == [2, 4]
    assert isinstance(ray.get(full.take_event.remote(lease, 0.0)), LeaseLost)


def test_trial_of_a_full_pack_goes_on_in_one_that_stands_empty(
    start: Start, settings: TrainingSettings, tmp_path: Path
) -> None:
    """One of three, once all have left the other pack: half of the difference."""
    rungs = tuple(range(2, 32, 2))
    longer = {"max_steps": 30, "rungs": rungs}
    full, other = (start(num_slots=3, lease_timeout_s=LIMIT_S, **longer) for _ in range(2))
    settings = dataclasses.replace(settings, **longer)
    trials = [trial_of(f"t{number:04d}", settings, tmp_path) for number in range(3)]
    guests = [trial_of(f"guest{number}", settings, tmp_path) for number in range(3)]
    leases = ray.get([other.join.remote(guest) for guest in guests], timeout=LIMIT_S)
    has_room = tmp_path / "the other pack has room"
    hold = {"hold_s": 0.7, "hold_until": has_room}
    following = [begin(trial, [full, other], **hold) for trial in trials]
    for trial in trials:
        wait_for_report(trial, 2)
    ray.get([other.leave.remote(lease) for lease in leases], timeout=LIMIT_S)
    has_room.touch()
    found = [ended(one) for one in following]
    reports: list[TrialReport] = []
    in_process.train(trial_of("alone", settings, tmp_path), reports.append)
    for one in found:
        assert [report.step for report in one.reports] == list(rungs)
        for report, expected in zip(one.reports, reports, strict=True):
            assert report.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
            assert report.metrics["eval_loss"] == pytest.approx(
                expected.metrics["eval_loss"], rel=1e-5
            )
    shares = [set(ray.get(pack.read_ledger.remote()).shares) for pack in (full, other)]
    names = {trial.trial_id for trial in trials}
    assert shares[0] == names and len(shares[1] & names) == 1


def test_full_pack_lets_nobody_in(start: Start, settings: TrainingSettings, tmp_path: Path) -> None:
    """Trials that look at once are told of the same free slots; others stand in other packs."""
    pack = start(num_slots=2)
    trials = [trial_of(f"t{number:04d}", settings, tmp_path) for number in range(4)]
    leases = ray.get([pack.try_join.remote(trial, 1) for trial in trials], timeout=LIMIT_S)
    assert sum(lease is not None for lease in leases) == 2
    joined = next(trial for trial, lease in zip(trials, leases, strict=True) if lease is not None)
    assert ray.get(pack.try_join.remote(joined, 1), timeout=LIMIT_S) is not None


def test_trials_that_look_at_the_same_moment_fill_packs_evenly(
    start: Start, settings: TrainingSettings, tmp_path: Path
) -> None:
    packs = [start(num_slots=12), start(num_slots=12)]
    ray.get([pack.get_presence.remote() for pack in packs], timeout=LIMIT_S)
    trials = [trial_of(f"f{number:04d}", settings, tmp_path) for number in range(12)]
    with ThreadPoolExecutor(len(trials)) as pool:
        joined = list(pool.map(lambda trial: client._join(trial, lambda: packs, {}), trials))
    assert Counter(pack for pack, _ in joined) == dict.fromkeys(packs, 6)


class SilentPack:
    """A pack that does not answer, as one whose GPU the cluster has yet to bring."""

    def evict(self, trial_id: str) -> int:
        time.sleep(10 * LIMIT_S)  # a trial that waited for it would run into pytest's limit
        return 1


def test_a_pack_that_does_not_answer_lets_the_others_fill_at_once(
    start: Start, settings: TrainingSettings, tmp_path: Path
) -> None:
    pack = start(num_slots=8)
    ray.get(pack.get_presence.remote(), timeout=LIMIT_S)
    silent = ray.remote(num_cpus=0, max_concurrency=32)(SilentPack).remote()
    trials = [trial_of(f"t{number:04d}", settings, tmp_path) for number in range(6)]
    with ThreadPoolExecutor(len(trials)) as pool:
        joined = list(
            pool.map(lambda trial: client._join(trial, lambda: [pack, silent], {}), trials)
        )
    assert [found for found, _ in joined] == [pack] * len(trials)
    ray.kill(silent)


def test_trials_wait_for_events_at_once_and_never_before_other_calls(
    start: Start, settings: TrainingSettings, tmp_path: Path
) -> None:
    longer = dataclasses.replace(settings, max_steps=10**6, rungs=(10**6,))
    pack = start(num_slots=64, max_steps=10**6, rungs=(10**6,))
    trials = [trial_of(f"t{number:04d}", longer, tmp_path) for number in range(64)]
    leases = ray.get([pack.join.remote(trial) for trial in trials], timeout=LIMIT_S)
    poll = pack.take_event.options(concurrency_group="polls")
    polls = [poll.remote(lease, 10.0) for lease in leases]
    assert all(ray.get([pack.renew_lease.remote(lease) for lease in leases], timeout=9.0))
    assert ray.get(polls, timeout=120.0) == [None] * 64  # 640 s one after the other
