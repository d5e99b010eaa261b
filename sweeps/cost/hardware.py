"""What there is for a sweep: the cores and GPUs of this machine, or of a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.gpus import Gpu, find_oldest_gpu, list_visible_gpus
from trainables.process import count_cores

if TYPE_CHECKING:  # loads Ray, which a dry run does without
    from cluster.check import Node
    from cluster.connect import Cluster


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Cores and GPUs."""

    num_cpus: int
    num_gpus: int
    gpu_gibs: tuple[float, ...] = ()
    """Memory of each GPU, the smallest first; empty where it is not known."""
    oldest_gpu: Gpu | None = None
    """That of the lowest compute capability; None where it is not known, or without a GPU."""

    @property
    def gpu_gib(self) -> float | None:
        """Memory of the smallest GPU; None where it is not known, or without a GPU."""
        return self.gpu_gibs[0] if self.gpu_gibs else None

    @classmethod
    def detect(cls) -> "Hardware":
        """As a local Ray would offer it."""
        gpus = list_visible_gpus()
        return cls._from_gpus(max(count_cores(), 2), [(len(gpus), gpus)])

    @classmethod
    def from_cluster(cls, cluster: "Cluster", nodes: "Sequence[Node]") -> "Hardware":
        """As the connected Ray tells it.

        Args:
            nodes: of a cluster that was joined, without those that are left out.
        """
        if cluster.is_local:
            gpus = list_visible_gpus() if cluster.num_gpus else []
            return cls._from_gpus(cluster.num_cpus, [(cluster.num_gpus, gpus)])
        machines = [(node.num_gpus, node.facts.gpus) for node in nodes if node.facts]
        return cls._from_gpus(cluster.num_cpus, machines)

    @classmethod
    def _from_gpus(cls, num_cpus: int, machines: Sequence[tuple[int, Sequence[Gpu]]]) -> "Hardware":
        """The hardware of machines, each with the GPUs that Ray counts and those that nvidia-smi
        tells of: where these are more or fewer, the smallest are taken for the others."""
        gibs: list[float] = []
        for num_gpus, gpus in machines:
            known = sorted(gpu.gib for gpu in gpus)[:num_gpus]
            gibs += [*known, *known[:1] * (num_gpus - len(known))]
        return cls(
            num_cpus=num_cpus,
            num_gpus=sum(num_gpus for num_gpus, _ in machines),
            gpu_gibs=tuple(sorted(gibs)),
            oldest_gpu=find_oldest_gpu([gpu for num, gpus in machines if num for gpu in gpus]),
        )
