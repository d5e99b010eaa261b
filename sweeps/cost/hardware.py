"""What there is for a sweep: the cores and GPUs of this machine, or of a cluster."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.gpus import Gpu, local_gpus, oldest_gpu, visible_gpus
from trainables.process import num_cores

if TYPE_CHECKING:  # loads Ray, which a dry run does without
    from cluster.connect import Cluster


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Cores and GPUs."""

    num_cpus: int
    num_gpus: int
    gpu_gib: float | None
    """Memory of the smallest GPU; None where it is not known, or without a GPU."""
    oldest_gpu: Gpu | None = None
    """That of the lowest compute capability; None as above."""

    @classmethod
    def of_this_machine(cls) -> "Hardware":
        """As a local Ray would offer it."""
        gpus = visible_gpus()
        return cls._of_gpus(max(num_cores(), 2), len(gpus), gpus)

    @classmethod
    def of_cluster(cls, cluster: "Cluster") -> "Hardware":
        """As the connected Ray tells it; the nodes with GPUs are asked for their memory."""
        gpus: list[Gpu] = []
        if cluster.num_gpus:  # a process that is asked starts in half a second
            gpus = visible_gpus() if cluster.is_local else _ask_nodes()
        return cls._of_gpus(cluster.num_cpus, cluster.num_gpus, gpus)

    @classmethod
    def _of_gpus(cls, num_cpus: int, num_gpus: int, gpus: Sequence[Gpu]) -> "Hardware":
        return cls(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            gpu_gib=min((gpu.gib for gpu in gpus), default=None),
            oldest_gpu=oldest_gpu(gpus),
        )


def _ask_nodes() -> list[Gpu]:
    """Each GPU of the cluster."""
    import ray  # a dry run does without
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0)(local_gpus)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    gpus: list[Gpu] = []
    for asked in [ask.options(scheduling_strategy=node).remote() for node in there]:
        with contextlib.suppress(RayError):  # of a node that has left meanwhile
            gpus += ray.get(asked)
    return gpus
