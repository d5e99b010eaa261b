"""The GPUs of this machine, as nvidia-smi tells, and which of them a sweep here may use."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_FIELDS = "uuid,name,memory.total,compute_cap"
_QUERY = ("nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits")
_TIMEOUT_S = 30.0
"""Without nvidia-persistenced, each question loads the driver anew: one to two seconds a GPU."""

AMPERE = 8.0
"""Compute capability of NVIDIA's first GPUs with bfloat16, which FlashAttention-2 asks for too."""


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU."""

    uuid: str
    name: str
    gib: float
    """Its memory."""
    compute_capability: float
    """NVIDIA's number of its generation, e.g. 9.0."""


def list_local_gpus() -> list[Gpu]:
    """All GPUs of this machine in the order of the PCI bus; none if nvidia-smi tells nothing."""
    if not shutil.which(_QUERY[0]):
        return []
    try:
        answer = subprocess.run(
            _QUERY, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:  # a driver that hangs tells nothing
        return []
    lines = answer.stdout.strip().splitlines() if answer.returncode == 0 else []
    rows = [line.split(", ") for line in lines]
    return [
        Gpu(row[0], row[1], float(row[2]) / 1024, float(row[3]))
        for row in rows
        if len(row) == 4 and row[2].isdecimal() and row[3].replace(".", "").isdecimal()
    ]


def find_oldest_gpu(gpus: Sequence[Gpu]) -> Gpu | None:
    """The GPU of the lowest compute capability; None of none."""
    return min(gpus, key=lambda gpu: gpu.compute_capability, default=None)


def list_visible_gpus() -> list[Gpu]:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES leaves to this process.

    The numbers in it count the PCI bus with CUDA_DEVICE_ORDER=PCI_BUS_ID; otherwise CUDA counts
    from the fastest GPU in an order of its own, so a number stands for the smallest GPUs there are.
    A part of a GPU (MIG) cannot be told from here; then all GPUs are returned.
    """
    gpus = list_local_gpus()
    visible_names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible_names is None:
        return gpus
    has_bus_order = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    numbered = gpus if has_bus_order else sorted(gpus, key=lambda gpu: gpu.gib)
    visible = []
    for position, name in enumerate(part.strip() for part in visible_names.split(",")):
        if name.isdecimal():
            index = int(name) if has_bus_order else position
            visible += numbered[index : index + 1] if int(name) < len(gpus) else []
        elif name.startswith("GPU-"):
            visible += [gpu for gpu in gpus if gpu.uuid.startswith(name)]
        elif name.startswith("MIG-"):
            return gpus
    return visible
