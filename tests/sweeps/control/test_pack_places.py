"""Packs come, go, hang and fail with the GPUs of a real Ray cluster, whose GPUs are made up."""

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import pytest
import ray
from ray.actor import ActorHandle
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

import trainables.files
from sweeps.control import gpu_places, pack_pool
from sweeps.control.gpu_places import MAX_START_FAILURES, GpuPlaces
from sweeps.control.pack_pool import PackPool
from sweeps.records.events import EventLog, read_events
from tests.sweeps.control.pack_stubs import make_status
from trainables.errors import SweepAborted
from trainables.packing.service.client import find_packs
from trainables.packing.service.events import LoadFault, PackFault, PackPreempted, PackStatus

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests

LIMIT_S = 60.0
FIX = "mend it"
pytestmark = pytest.mark.slow


class PackStub:
    """A pack as far as its pool goes. It cannot load on nodes, or start on any, as files say."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._dies = (folder / "packs die while they load").exists()
        if (folder / "no pack can start").exists():
            raise FileNotFoundError("no such folder. Is it mounted?")
        is_broken = (folder / ray.get_runtime_context().get_node_id()).exists()
        self._fault: PackFault | None = (
            LoadFault(os.getpid(), "a pack cannot start: CUDA", FIX) if is_broken else None
        )

    def preempt(self, reason: str, timeout_s: float) -> None:
        self._fault = PackPreempted(os.getpid(), reason)
        (self._folder / "preempted").write_text(reason)

    def get_status(self) -> PackStatus:
        if self._dies:
            os._exit(1)
        if self._fault is None:
            return make_status()
        if isinstance(self._fault, PackPreempted):
            return make_status(is_loaded=False, fault=self._fault)
        return make_status(is_loaded=False, throughput=None, fault=self._fault)


class Scene:
    """A pool of stand-ins, with the log that it writes."""

    def __init__(self, folder: Path, most: int, places: GpuPlaces) -> None:
        self.folder = folder
        self.log = EventLog(folder / "events.jsonl")
        self.pool = PackPool(self._start, most, places=places, log=self.log)

    num_cpus = 0
    """Of a pack."""

    def _start(self, number: int, avoided: Sequence[str], is_probed: bool) -> ActorHandle:
        stub = ray.remote(concurrency_groups={"status": 1})(PackStub).options(
            name=f"pack-{number}",
            num_cpus=self.num_cpus,
            num_gpus=1,
            label_selector={"ray.io/node-id": f"!in({','.join(avoided)})"} if avoided else None,
        )
        actor: ActorHandle = stub.remote(self.folder)
        return actor

    def wait(self, is_enough: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + LIMIT_S

        def is_over() -> bool:
            assert time.monotonic() < deadline_s
            return is_enough()

        self.pool.wait(is_over)

    def wait_loaded(self, num_packs: int) -> None:
        self.wait(lambda: len(self.pool.loaded) == num_packs)

    def events(self, kind: str) -> list[dict[str, object]]:
        return [
            event for event in read_events(self.folder / "events.jsonl") if event["kind"] == kind
        ]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node with a GPU, to which tests add others."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="ray") as folder:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_TMPDIR", folder)  # or whoever looks for a cluster here finds this one
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1})
        ray.init(made.address, log_to_driver=False, logging_level=logging.ERROR)
        yield made
        ray.shutdown()
        made.shutdown()


def _remove(cluster: Cluster, node: Any) -> None:
    """Kills a node, and waits until the cluster knows."""
    cluster.remove_node(node, allow_graceful=False)
    while any(known["Alive"] and known["NodeID"] == node.node_id for known in ray.nodes()):
        time.sleep(0.1)


class Begin(Protocol):
    """Begins a pool of at most so many packs."""

    def __call__(self, most: int, **places: Any) -> Scene: ...


@pytest.fixture
def begin(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """The packs are gone after the test."""
    monkeypatch.setattr(pack_pool, "COUNT_INTERVAL_S", 0.2)
    scenes: list[Scene] = []

    def begin_one(most: int, **places: Any) -> Scene:
        scenes.append(Scene(tmp_path, most, GpuPlaces(has_gpu=True, **places)))
        return scenes[-1]

    yield begin_one
    for scene in scenes:
        scene.pool.stop()


def test_a_full_disk_ends_a_sweep_that_waits_for_its_packs(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that join cannot write either, and nothing else is written meanwhile."""
    scene = begin(1, find_fault=lambda _: "it cannot write")
    scene.pool.poll()
    monkeypatch.setattr(trainables.files, "FULL_BYTES", 2**80)
    with pytest.raises(SweepAborted, match=r"events.jsonl: No space left") as aborted:
        scene.wait(lambda: False)
    assert aborted.value.is_resumable


def test_first_pack_is_enough_and_the_others_are_waited_for_aloud(
    begin: Begin,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another job has one of two GPUs; a third comes later; then one leaves."""
    monkeypatch.setattr(gpu_places, "FIRST_WAIT_S", 1.0)
    node = cluster.add_node(num_cpus=0, num_gpus=1)
    other_job = ray.remote(num_cpus=0, num_gpus=1)(PackStub).remote(Path("/nowhere"))
    place = ray.get(other_job.__ray_call__.remote(lambda stub: stub.get_status().place))
    scene = begin(3)
    scene.wait_loaded(1)
    assert len(find_packs()) == 2
    scene.wait(lambda: "waiting for 1 of 2 GPUs: in use by other jobs" in caplog.text)
    ray.kill(other_job)
    scene.wait_loaded(2)
    late = cluster.add_node(num_cpus=0, num_gpus=1)
    scene.wait_loaded(3)
    assert len(scene.events("pack_started")) == 3
    assert scene.pool.num_slots == 3 * 4
    _remove(cluster, late)
    scene.wait(lambda: len(scene.pool.actors) == 2)
    assert scene.pool.num_slots == 2 * 4
    lost = f"a pack was lost (node {place.node}, GPU 0): its 2 trials wait for a GPU: "
    assert lost in caplog.text and "Traceback" not in caplog.text
    (event,) = scene.events("pack_lost")
    assert (event["node"], event["gpu"], event["num_trials"]) == (place.node, "0", 2)
    _remove(cluster, node)


def test_core_that_another_job_has_is_waited_for_aloud(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pack needs one beside its GPU."""
    monkeypatch.setattr(gpu_places, "FIRST_WAIT_S", 1.0)
    monkeypatch.setattr(Scene, "num_cpus", 1)
    other_job = ray.remote(num_cpus=2)(PackStub).remote(Path("/nowhere"))
    ray.get(other_job.__ray_ready__.remote())
    scene = begin(1)
    scene.wait(lambda: "waiting for a CPU core: in use by other jobs" in caplog.text)
    ray.kill(other_job)
    scene.wait_loaded(1)


def test_node_that_drains_has_its_pack_hand_on_its_trials_and_gets_no_other(
    begin: Begin, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    node = cluster.add_node(num_cpus=0, num_gpus=1)
    scene = begin(2)
    scene.wait_loaded(2)
    gcs = ray._raylet.GcsClient(address=cluster.address)
    minute_ms = int((time.time() + 60) * 1000)
    reason = autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    is_accepted, _ = gcs.drain_node(node.node_id, reason, "of the test", minute_ms)
    assert is_accepted
    scene.wait(lambda: len(scene.events("pack_lost")) == 1)
    (event,) = scene.events("pack_lost")
    assert "its node is about to leave the cluster" in str(event["reason"])
    assert event["num_trials"] == 2 and "its 2 trials wait for a GPU" in caplog.text
    scene.wait(lambda: len(scene.pool.actors) == len(scene.pool.loaded) == 1)
    time.sleep(5 * pack_pool.COUNT_INTERVAL_S)
    scene.pool.poll()
    assert len(scene.pool.actors) == 1  # the node that is about to leave is not waited for
    scene.pool.save_and_end("the sweep was interrupted")
    assert (scene.folder / "preempted").read_text() == "the sweep was interrupted"
    assert not scene.pool.actors and not find_packs()
    _remove(cluster, node)


@pytest.mark.parametrize("is_constructor", [True, False])
def test_sweep_ends_with_the_cause_where_no_pack_can_start(
    begin: Begin, cluster: Cluster, tmp_path: Path, is_constructor: bool
) -> None:
    names = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    (tmp_path / ("no pack can start" if is_constructor else names[0])).touch()
    scene = begin(4)
    with pytest.raises(SweepAborted) as told:
        scene.wait_loaded(1)
    cause = "FileNotFoundError: no such folder. Is it mounted?" if is_constructor else "CUDA"
    assert f"a pack cannot start: {cause} (node " in told.value.error
    assert is_constructor or told.value.fix == FIX
    assert len(scene.events("pack_lost")) == 1  # there is no other GPU


def test_node_on_which_no_pack_starts_is_left_alone_also_once_no_other_is_there(
    begin: Begin,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(gpu_places, "FIRST_WAIT_S", 1.0)
    (tmp_path / str(cluster.head_node.node_id)).touch()
    good = cluster.add_node(num_cpus=0, num_gpus=1)
    scene = begin(2)
    scene.wait(lambda: len(scene.events("pack_lost")) == MAX_START_FAILURES)
    scene.wait(lambda: len(scene.pool.actors) == len(scene.pool.loaded) == 1)
    assert "a pack could not start (node " in caplog.text and "CUDA" in caplog.text
    _remove(cluster, good)
    scene.wait(lambda: "waiting for a GPU: packs cannot start on those" in caplog.text)
    late = cluster.add_node(num_cpus=0, num_gpus=1)
    scene.wait_loaded(1)
    assert len(scene.events("pack_lost")) == MAX_START_FAILURES + 1
    _remove(cluster, late)


def test_sweep_whose_only_node_leaves_while_its_pack_loads_goes_on_elsewhere(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies = tmp_path / "packs die while they load"
    dies.touch()
    scene = begin(1)
    with monkeypatch.context() as patch:
        patch.setattr(ray, "nodes", lambda: [])
        scene.wait(lambda: len(scene.events("pack_lost")) == 1)
    dies.unlink()
    scene.wait_loaded(1)


def test_pack_that_is_stopped_is_killed_and_replaced(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pack_pool, "HANG_TIMEOUT_S", 2.0)
    scene = begin(1)
    scene.wait_loaded(1)
    pid = int(str(scene.events("pack_started")[0]["pack"]))
    os.kill(pid, signal.SIGSTOP)
    scene.wait(lambda: len(scene.events("pack_started")) == 2)
    assert "its 2 trials wait for a GPU: it has not answered for 2 s" in caplog.text
    assert not os.path.exists(f"/proc/{pid}")


def test_node_that_joins_is_used_once_it_is_found_good(
    begin: Begin, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pack that waits for any GPU comes to the new node before it is checked, and leaves it."""
    monkeypatch.setattr(gpu_places, "FIRST_WAIT_S", 2 * LIMIT_S)  # the red one is not asked again
    head_id = str(cluster.head_node.node_id)
    asked: list[str] = []
    found: Queue[str] = Queue()

    def find_fault(node_id: str) -> str:
        asked.append(node_id)
        return found.get()

    scene = begin(2, find_fault=find_fault, is_usable={head_id: False})
    scene.wait(lambda: len(scene.pool.actors) == 1)
    red = cluster.add_node(num_cpus=0, num_gpus=1)
    scene.wait(lambda: asked == [red.node_id])
    found.put("no folder")
    good = cluster.add_node(num_cpus=0, num_gpus=1)
    scene.wait(lambda: asked == [red.node_id, good.node_id])
    until_s = time.monotonic() + 3.0  # which is long enough for a pack to start there
    scene.wait(lambda: time.monotonic() > until_s)
    assert scene.events("pack_started") == [] and scene.pool.num_slots == 0
    found.put("")
    scene.wait_loaded(1)
    assert asked == [red.node_id, good.node_id]
    (pack,) = scene.pool.actors
    place = ray.get(pack.get_status.remote()).place
    assert place.node_id == good.node_id
    assert len(scene.pool.actors) == 1
    assert scene.events("pack_lost") == []
    _remove(cluster, red)
    _remove(cluster, good)


def test_node_that_is_not_good_yet_is_told_and_asked_again(
    begin: Begin,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its check fails, then its folder is missing, twice, then it has been mounted."""
    monkeypatch.setattr(gpu_places, "FIRST_WAIT_S", 0.2)
    found: list[Exception | str] = [OSError("gone\nagain"), "no folder", "no folder", ""]
    asked_s: list[float] = []

    def find_fault(node_id: str) -> str:
        asked_s.append(time.monotonic())
        answer = found[len(asked_s) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    head = {str(cluster.head_node.node_id): False}
    scene = begin(1, find_fault=find_fault, is_usable=head)
    late = cluster.add_node(num_cpus=0, num_gpus=1)
    scene.wait_loaded(1)
    told = [text for text in caplog.messages if text.startswith("node ")]
    assert [re.sub(r"node \S+ \(\S+\) is not used, and ", "", text) for text in told] == [
        "asked again in 0 s: its check failed: gone again",
        "asked again in 1 s: no folder",
    ]
    first_s, second_s, third_s = (b - a for a, b in pairwise(asked_s))
    assert first_s > 0.2 and second_s > 0.6 and third_s > 1.8
    _remove(cluster, late)
