"""Trials are handed out while packs load, and start once the packs' throughput is known."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import ray
from ray.actor import ActorHandle

from cluster.connect import connect
from sweeps.control import startup_gate
from sweeps.control.controller import TrialController
from sweeps.control.startup_gate import StartupGate
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
from sweeps.search.study import Search
from tests.sweeps.control.pack_stubs import make_pool, make_status
from tests.sweeps.invented_sweep import METRIC, SPACE, make_config
from tests.sweeps.small_costs import make_throughput
from trainables.errors import SweepAborted
from trainables.packing.service.events import LoadFault, PackStatus
from trainables.packing.sizing.throughput import Throughput

LIMIT_S = 60.0
Start = Callable[[Path], ActorHandle]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts packs that load until a file says what comes of it."""

    class Loading:
        def __init__(self, file: Path) -> None:
            self._file = file

        def get_status(self) -> PackStatus:
            told = self._file.read_text() if self._file.exists() else ""
            if told == "broken":
                fault = LoadFault(1, "a pack cannot start", "see Ray's logs")
                return make_status(is_loaded=False, throughput=None, fault=fault)
            if not told:
                return make_status(is_loaded=False, throughput=None)
            return make_status(throughput=make_throughput(step_fixed_s=float(told)))

    with connect(num_local_cpus=2):
        actors: list[ActorHandle] = []

        def started(file: Path) -> ActorHandle:
            loading = ray.remote(num_cpus=0, concurrency_groups={"status": 1})(Loading)
            actors.append(loading.remote(file))
            return actors[-1]

        yield started


class Opened:
    """An opening over packs that load, and what the sweep is told."""

    def __init__(self, folder: Path, start: Start, num_packs: int) -> None:
        self.paths = RunPaths(folder)
        self.files = [folder / f"pack{number}" for number in range(num_packs)]
        self.predicted: list[Throughput | None] = []
        log = EventLog(self.paths.events)
        search = Search(optuna.create_study(), SPACE, 0, num_startup_trials=9)
        config = make_config(start_points=())
        self.controller = TrialController(config, self.paths, METRIC, search, log)
        actors = [start(file) for file in self.files]
        self.pool = make_pool(actors, folder)
        self.gate = StartupGate(self.controller, self.pool, self._tell)
        self.gate.close()

    def _tell(self, throughput: Throughput | None) -> None:
        self.predicted.append(throughput)
        assert not self.num_started

    @property
    def num_started(self) -> int:
        events = read_events(self.paths.events) if self.paths.events.exists() else []
        return sum(event["kind"] == "trial_started" for event in events)

    def answers(self, number: int, seconds: str) -> None:
        """A pack has measured its throughput, and has told it."""
        self.files[number].write_text(seconds)
        num_loaded = len(self.pool.loaded)
        self.pool.wait(lambda: len(self.pool.loaded) > num_loaded)

    def poll_until_predicted(self) -> None:
        deadline_s = time.monotonic() + LIMIT_S
        while not self.predicted and time.monotonic() < deadline_s:
            self.gate.poll()


def test_trials_start_when_the_last_pack_has_been_measured(tmp_path: Path, start: Start) -> None:
    opened = Opened(tmp_path, start, num_packs=2)
    assert opened.controller.next_trial() is not None
    opened.answers(0, "1.0")
    opened.gate.poll()
    assert not opened.predicted and opened.num_started == 0
    opened.files[1].write_text("3.0")
    opened.poll_until_predicted()
    assert [t.step_fixed_s for t in opened.predicted if t] == [3.0]
    assert opened.num_started == 1
    assert opened.controller.next_trial() is not None and opened.num_started == 2
    opened.gate.open()
    assert len(opened.predicted) == 1


def test_trials_start_a_while_after_the_first_pack_whatever_becomes_of_the_others(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup_gate, "OTHERS_WAIT_S", 1.0)
    opened = Opened(tmp_path, start, num_packs=2)
    opened.controller.next_trial()
    opened.answers(0, "1.0")
    began_s = time.monotonic()
    opened.poll_until_predicted()
    assert time.monotonic() - began_s >= 1.0
    assert [t.step_fixed_s for t in opened.predicted if t] == [1.0]
    assert opened.num_started == 1


def test_opening_that_a_result_ends_does_without_packs_that_still_load(
    tmp_path: Path, start: Start
) -> None:
    opened = Opened(tmp_path, start, num_packs=2)
    opened.controller.next_trial()
    opened.answers(0, "1.0")
    opened.gate.open()
    assert [t.step_fixed_s for t in opened.predicted if t] == [1.0]
    assert opened.num_started == 1


def test_pack_that_cannot_load_ends_the_sweep_before_any_trial(
    tmp_path: Path, start: Start
) -> None:
    opened = Opened(tmp_path, start, num_packs=1)
    opened.controller.next_trial()
    opened.files[0].write_text("broken")
    with pytest.raises(SweepAborted, match="a pack cannot start"):
        opened.poll_until_predicted()
    assert opened.num_started == 0


def test_sweep_without_packs_opens_at_once(tmp_path: Path, start: Start) -> None:
    opened = Opened(tmp_path, start, num_packs=0)
    opened.gate.poll()
    assert opened.predicted == [None]
