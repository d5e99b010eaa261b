"""What one node of a cluster says of itself. Runs there; standard library only."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.gpus import Gpu, list_local_gpus

TRAINING_PACKAGES = (
    *("torch", "ray", "transformers", "peft", "bitsandbytes", "trl", "rouge-score"),
)
"""What trains and scores a trial; nodes with other versions would give other results."""
NOT_INSTALLED = "not installed"
PRODUCT_TIMEOUT_S = 25.0
"""How long a 4-bit product may take, most of it the import of torch."""
SLOW = "no answer in"
"""Begins what is told of a product that took longer."""
_PRODUCT = """
import sys
import torch
from bitsandbytes.nn import Linear4bit
needed, seen = int(sys.argv[1]), torch.cuda.device_count()
if seen < needed:
    raise SystemExit(f"torch {torch.__version__} sees {seen} of {needed} GPUs")
for device in range(seen) or ["cpu"]:
    layer = Linear4bit(64, 64, compute_dtype=torch.float32, quant_type="nf4").to(device)
    if not layer(torch.ones(1, 64, device=device)).isfinite().all():
        raise SystemExit(f"device {device} gives numbers that are not finite")
"""


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """A node, as a process on it finds it."""

    num_cpus: int
    memory_gib: float
    gpus: tuple[Gpu, ...]
    """As nvidia-smi tells."""
    python: str
    versions: dict[str, str]
    """Installed versions of the TRAINING_PACKAGES, by name."""
    free_gib: float
    """On the disk of the shared folder or that of temporary files, whichever has less."""
    folder_fault: str = ""
    """Why the shared folder cannot be used; empty if it can."""
    storage_fault: str = ""
    """Why the object storage that takes its place cannot; empty if it can, or there is none."""
    model_fault: str = ""
    """Why the model's folder cannot be used; empty if it can, or none was asked for."""
    product_fault: str = ""
    """Why a 4-bit product failed; empty if it did not."""


class NodeProbe:
    """Answers from one node; made as an actor there."""

    def inspect(
        self,
        folder: Path,
        token: str,
        answer: str,
        model: Path | None,
        files: dict[str, int],
        num_gpus: int,
        use_storage: Callable[[], str] | None = None,
    ) -> NodeFacts:
        """Looks at everything.

        Args:
            folder: shared; it holds a file called token with that text, which is copied to one
                called answer.
            model: folder of a model, whose files have these sizes.
            num_gpus: those that torch has to see.
            use_storage: writes where nodes share no folder, and says why it cannot.
        """
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        folder_fault = "" if use_storage else _use_folder(folder, token, answer)
        is_shared = not (use_storage or folder_fault)
        disks = [Path(tempfile.gettempdir()), *([folder] if is_shared else [])]
        return NodeFacts(
            num_cpus=os.cpu_count() or 1,
            memory_gib=round(memory_bytes / 2**30, 1),
            gpus=tuple(list_local_gpus()),
            python=platform.python_version(),
            versions=list_versions(TRAINING_PACKAGES),
            free_gib=min(shutil.disk_usage(disk).free for disk in disks) / 2**30,
            folder_fault=folder_fault,
            storage_fault=use_storage() if use_storage else "",
            model_fault=_compare_files(model, files) if model else "",
            product_fault=_try_product(num_gpus),
        )

    def read_clock(self) -> float:
        """This node's Unix time."""
        return time.time()


def list_versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed versions of packages."""
    installed = {}
    for name in packages:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = NOT_INSTALLED
    return installed


def list_files(folder: Path) -> dict[str, int]:
    """Sizes of the files in a folder, by name."""
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}


def _use_folder(folder: Path, token: str, answer: str) -> str:
    """Reads the driver's token there, and writes this node's answer."""
    try:
        if (folder / "token").read_text() != token:
            return "another folder is there"
        (folder / answer).write_text(token)
    except FileNotFoundError:
        return "it is not there"
    except OSError as refused:
        return f"it cannot be used: {refused.strerror}"
    return ""


def _compare_files(model: Path, files: dict[str, int]) -> str:
    try:
        there = list_files(model)
        for name in files.keys() & there.keys():
            with (model / name).open("rb") as file:
                file.read(1)
    except FileNotFoundError:
        return "it is not there"
    except OSError as refused:
        return f"{refused.filename} cannot be read: {refused.strerror}"
    differing = sorted(name for name in files if files[name] != there.get(name))
    return f"other or no {', '.join(differing)} there" if differing else ""


def _try_product(num_gpus: int) -> str:
    """Multiplies in 4 bits on each GPU, in a process of its own, which may crash or hang."""
    try:
        ended = subprocess.run(
            [sys.executable, "-c", _PRODUCT, str(num_gpus)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PRODUCT_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"{SLOW} {PRODUCT_TIMEOUT_S:.0f} s"
    if ended.returncode == 0:
        return ""
    return (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"])[-1]
