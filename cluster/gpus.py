"""The GPUs of this machine, as nvidia-smi tells, and which of them a sweep here may use."""

import os
import shutil
import subprocess
from dataclasses import dataclass

_QUERY = ("nvidia-smi", "--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU."""

    uuid: str
    name: str
    gib: float
    """Its memory."""


def local_gpus() -> list[Gpu]:
    """All of this machine, in the order of their places on its bus; none without nvidia-smi."""
    if not shutil.which(_QUERY[0]):
        return []
    try:
        found = subprocess.run(_QUERY, capture_output=True, text=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:  # a driver that hangs tells nothing
        return []
    lines = found.stdout.strip().splitlines() if found.returncode == 0 else []
    rows = [line.split(", ") for line in lines]
    return [Gpu(row[0], row[1], float(row[2]) / 1024) for row in rows if row[-1].isdecimal()]


def visible_gpus() -> list[Gpu]:
    """Those of local_gpus that CUDA_VISIBLE_DEVICES leaves to this process.

    A number names a GPU in CUDA's order, which is the bus's with CUDA_DEVICE_ORDER=PCI_BUS_ID and
    otherwise begins with the fastest in a way of CUDA's own; so of unlike GPUs it stands for the
    smallest. What names a part of a GPU (MIG) is known to nobody here, and all GPUs are given.
    """
    found = local_gpus()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return found
    has_bus_order = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    numbered = found if has_bus_order else sorted(found, key=lambda gpu: gpu.gib)
    visible = []
    for place, word in enumerate(part.strip() for part in named.split(",")):
        if word.isdecimal():
            at = int(word) if has_bus_order else place
            visible += numbered[at : at + 1] if int(word) < len(found) else []
        elif word.startswith("GPU-"):
            visible += [gpu for gpu in found if gpu.uuid.startswith(word)]
        elif word.startswith("MIG-"):
            return found
    return visible
