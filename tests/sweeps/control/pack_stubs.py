"""How a pack is, for stand-ins of packs."""

import os
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from sweeps.control.gpu_places import GpuPlaces
from sweeps.control.pack_pool import PackPool
from sweeps.records.events import EventLog
from tests.sweeps.small_costs import make_throughput
from trainables.packing.service.events import PackStatus, Place


def make_status(**changes: Any) -> PackStatus:
    """That of a pack which has loaded, on the node and the GPU of this process."""
    gpu = ", ".join(str(number) for number in ray.get_gpu_ids())
    node_id = ray.get_runtime_context().get_node_id()
    status = PackStatus(
        place=Place(node_id, ray.util.get_node_ip_address(), gpu),
        pack_id=str(os.getpid()),
        has_imported=True,
        is_loaded=True,
        throughput=make_throughput(),
        num_slots=4,
        num_trials=2,
        fault=None,
    )
    return status._replace(**changes)


def make_pool(actors: list[ActorHandle], folder: Path) -> PackPool:
    """A pool of packs that have been started already; none of them is replaced."""
    places = GpuPlaces(has_gpu=False)
    pool = PackPool(lambda *_: actors[0], 0, places=places, log=EventLog(folder / "events.jsonl"))
    for actor in actors:
        pool._add_pack(actor)
    return pool
