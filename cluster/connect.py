"""Joins the Ray cluster that is there, or starts a local one for this sweep."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cluster.find import address_to_join

_PROJECT = Path(__file__).resolve().parent.parent
_PACKAGES = ("sweeps", "trainables", "search_spaces", "cluster")
_OBJECT_STORE_BYTES = 256 * 2**20  # a sweep passes configs and scores, never tensors


@dataclass(frozen=True)
class Cluster:
    """The resources of a connected Ray cluster; leaving the context disconnects."""

    address: str
    """Address that was joined, or "local" for one started here."""
    num_nodes: int
    """Nodes that are alive."""
    num_cpus: int
    num_gpus: int

    @property
    def is_local(self) -> bool:
        """Whether it is this machine alone, and ends with this process."""
        return self.address == "local"

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()


def connect(num_local_cpus: int) -> Cluster:
    """Connects this process to Ray.

    A cluster that RAY_ADDRESS names, or that `ray start` left running on this machine, is
    joined; otherwise one is started that ends with this process. Workers find this project's
    packages before any installed package of the same name.

    Args:
        num_local_cpus: CPU slots that a cluster started here offers.

    Raises:
        ConnectionError: RAY_ADDRESS names a cluster that does not answer.
        RuntimeError: it runs another Ray or Python.
        ValueError: RAY_ADDRESS is no address.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_PROJECT), *inherited])
    address = address_to_join()
    options: dict[str, Any]
    if address is None:
        options = {"num_cpus": num_local_cpus, "object_store_memory": _OBJECT_STORE_BYTES}
        options["include_dashboard"] = False
    else:
        packages = [str(_PROJECT / name) for name in _PACKAGES]
        options = {"runtime_env": {"py_modules": packages}}
    ray.init(
        address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options
    )
    resources = ray.cluster_resources()
    return Cluster(
        address=address or "local",
        num_nodes=sum(node["Alive"] for node in ray.nodes()),
        num_cpus=int(resources.get("CPU", 0)),
        num_gpus=int(resources.get("GPU", 0)),
    )
