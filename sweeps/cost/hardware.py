"""What the cluster that was found has for a sweep."""

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.connect import Cluster
from cluster.gpus import local_gpus, visible_gpus
from sweeps.cost.allocation import Hardware


def of_cluster(cluster: Cluster) -> Hardware:
    """Its cores and GPUs; the nodes with GPUs are asked for their memory."""
    found = (_here() if cluster.is_local else _on_nodes()) if cluster.num_gpus else []
    return Hardware(
        num_cpus=cluster.num_cpus, num_gpus=cluster.num_gpus, gpu_gib=min(found, default=None)
    )


def _here() -> list[float]:
    """GiB of each GPU; a process that could be asked would start in half a second."""
    return [gpu.gib for gpu in visible_gpus()]


def _on_nodes() -> list[float]:
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    ask = ray.remote(num_cpus=0)(local_gpus)
    asked = [
        ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in nodes
    ]
    return [gpu.gib for gpus in ray.get(asked) for gpu in gpus]
