"""The final test is shared by the packs that are up, and done whichever of them are not; and a
decision goes to the pack that it is about."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import ray
from ray.actor import ActorHandle

from cluster.connect import connect
from sweeps.control import packed_final_test, stages
from sweeps.control.packed_final_test import run_final_test
from sweeps.cost.allocation import Allocation
from tests.sweeps.control.pack_stubs import make_pool, make_status
from tests.sweeps.invented_sweep import make_config
from trainables.errors import SweepAborted
from trainables.packing.service.events import PackStatus

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests

ALLOCATION = Allocation(
    num_slots=1, most_trials=1, most_runs=1, num_cpus=2, num_gpus=0, slots_per_gpu=1
)
BASE = {"validation_base", "test_base"}
Asked = list[tuple[list[str], bool]]
Start = Callable[..., ActorHandle]


class PackStub:
    """A pack as far as the final test goes: its answers name it and what it was asked."""

    def __init__(self, name: str, dies_of: str | None) -> None:
        self._name = name
        self._dies_of = dies_of
        self._asked: Asked = []
        self._decided: list[int] = []

    def run_final_test(self, adapters: Mapping[str, Path], has_base: bool) -> dict[str, str]:
        self._asked.append((list(adapters), has_base))
        if self._dies_of in adapters or (self._dies_of == "base" and has_base):
            os._exit(1)
        return {
            name: f"{name} by {self._name}" for name in (BASE if has_base else set()) | {*adapters}
        }

    def get_status(self) -> PackStatus:
        return make_status()

    def decide(self, step: int, should_continue: dict[str, bool]) -> None:
        self._decided.append(step)

    def decided(self) -> list[int]:
        return self._decided

    def asked(self) -> Asked:
        return self._asked


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with connect(num_local_cpus=2):

        def started(name: str, dies_of: str | None = None) -> ActorHandle:
            return ray.remote(num_cpus=0, concurrency_groups={"status": 1})(PackStub).remote(
                name, dies_of
            )

        yield started


def scores_of(actors: list[ActorHandle], names: Sequence[str], folder: Path) -> dict[str, str]:
    pool = make_pool(actors, folder)
    pool.wait(lambda: len(pool.loaded) == len(actors))
    adapters = {name: Path(name) for name in names}
    scores = run_final_test(pool, ALLOCATION, make_config().settings, adapters)
    assert scores.keys() == BASE | {*names}
    return {name: str(scored) for name, scored in scores.items()}


def test_sweep_in_a_process_that_is_connected_to_ray_is_told(start: Start) -> None:
    with pytest.raises(SweepAborted, match="connected to Ray already") as told:
        stages._connect_cluster()
    assert "ray.shutdown()" in told.value.fix


@pytest.mark.parametrize("num_packs", [1, 2, 3, 5])
def test_one_pack_has_the_base_and_the_others_share_the_adapters(
    start: Start, num_packs: int, tmp_path: Path
) -> None:
    names = ["a", "b", "c"]
    actors = [start(str(number)) for number in range(num_packs)]
    scores_of(actors, names, tmp_path)
    asked = [part for actor in actors for part in ray.get(actor.asked.remote())]
    assert sorted(name for part, _ in asked for name in part) == names
    assert [has_base for _, has_base in asked] == [True, *[False] * (min(num_packs, 4) - 1)]
    sizes = [len(part) for part, _ in asked]
    assert num_packs == 1 or (sizes[0] == 0 and max(sizes[1:]) - min(sizes[1:]) <= 1)


def test_decision_goes_to_its_pack_alone_or_to_all_if_that_is_not_there(
    start: Start, tmp_path: Path
) -> None:
    actors = [start(str(number)) for number in range(3)]
    pool = make_pool(actors, tmp_path)
    pool.wait(lambda: len(pool.loaded) == 3)
    pool.decide(1, {"t0000": False}, ray.get(actors[1].get_status.remote()).pack_id)
    pool.decide(3, {"t0000": False})
    pool.decide(9, {"t0000": False}, "of a pack that was lost before its reports were heard")
    assert ray.get([actor.decided.remote() for actor in actors]) == [[3, 9], [1, 3, 9], [3, 9]]


@pytest.mark.parametrize(("dead", "dies_of"), [(0, "base"), (1, "a"), (2, "b")])
def test_what_a_pack_dies_of_another_does_with_all_the_rest(
    start: Start, dead: int, dies_of: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    actors = [start(str(place), dies_of if place == dead else None) for place in range(3)]
    scores = scores_of(actors, ["a", "b"], tmp_path)
    (by,) = {scored.split()[-1] for scored in scores.values()}
    assert by != str(dead)
    told = [r.getMessage() for r in caplog.records if "the final test" in r.getMessage()]
    assert told and not any("\n" in line for line in told)


def test_a_test_that_finds_no_gpu_says_so_and_ends(
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """This cluster has none."""
    monkeypatch.setattr(packed_final_test, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(packed_final_test, "START_TIMEOUT_S", 1.0)
    with pytest.raises(SweepAborted, match="no GPU was free for the final test in 1 s") as told:
        run_final_test(
            make_pool([], tmp_path), replace(ALLOCATION, num_gpus=1), make_config().settings, {}
        )
    assert told.value.is_resumable
    assert "the final test waits for a GPU, for 1 s at most" in caplog.text


class TesterStub:
    """Its process dies as often as the adapter's file has letters."""

    def score(self, _: object, adapters: Mapping[str, Path], __: object) -> dict[str, str]:
        (path,) = adapters.values()
        if left := path.read_text():
            path.write_text(left[1:])
            os._exit(1)
        return dict.fromkeys(adapters, "scored")


def test_a_final_test_that_is_lost_with_its_node_begins_again(
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(packed_final_test, "_Tester", TesterStub)
    adapters = {"a": tmp_path / "deaths"}
    ask = partial(run_final_test, make_pool([], tmp_path), ALLOCATION, make_config().settings)
    adapters["a"].write_text("xx")
    assert ask(adapters) == {"a": "scored"}
    assert caplog.text.count("the final test was lost: ") == 2
    adapters["a"].write_text("xxx")
    with pytest.raises(SweepAborted, match="lost 3 times") as told:
        ask(adapters)
    assert told.value.is_resumable


def test_a_final_test_that_never_began_is_not_counted_among_the_lost(
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As those whose nodes have gone before Ray knows of it."""
    starts, deaths = tmp_path / "starts", tmp_path / "deaths"

    class Starting(TesterStub):
        def __init__(self) -> None:
            if left := starts.read_text():
                starts.write_text(left[1:])
                os._exit(1)

    monkeypatch.setattr(packed_final_test, "_Tester", Starting)
    monkeypatch.setattr(packed_final_test, "PAUSE_S", 0.1)
    starts.write_text("xx")
    deaths.write_text("xx")
    found = run_final_test(
        make_pool([], tmp_path), ALLOCATION, make_config().settings, {"a": deaths}
    )
    assert found == {"a": "scored"}
    assert caplog.text.count("the final test was lost before it began: ") == 2
