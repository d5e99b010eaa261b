"""What a sweep runs on, for sweep.json: packages, this project's commit, and this machine."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cluster import node
from cluster.gpus import Gpu, list_local_gpus
from cluster.node import TRAINING_PACKAGES
from trainables.errors import SweepAborted

PACKAGES = (*TRAINING_PACKAGES, "optuna", "datasets", "evaluate", "wandb")
"""Packages whose versions decide a result."""


def describe_hardware() -> dict[str, object]:
    """Facts about this machine for sweep.json."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "gpus": list_gpus(list_local_gpus()),
    }


def list_gpus(gpus: Sequence[Gpu]) -> list[str]:
    """Names and memory of GPUs, for sweep.json."""
    return [f"{gpu.name}, {gpu.gib:.0f} GiB" for gpu in gpus]


def list_versions() -> dict[str, str]:
    """Installed versions of the PACKAGES."""
    return node.list_versions(PACKAGES)


def read_git_commit() -> str | None:
    """The commit of this project's checkout, "+changes" if files differ; None outside git."""
    project = Path(__file__).resolve().parents[2]
    if not (project / ".git").exists() or not shutil.which("git"):
        return None
    command = ["git", "-C", str(project), "status", "--porcelain=v2", "--branch"]
    status = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = status.stdout.splitlines()
    commits = [line.split()[-1] for line in lines if line.startswith("# branch.oid ")]
    has_changes = any(not line.startswith("#") for line in lines)
    return commits[0] + "+changes" * has_changes if commits else None


def refuse_other_package() -> NoReturn:
    """Tells that W&B's package `sweeps` of PyPI is installed into the same folder: pip has put its
    files over ours, or ours over them, and its folder config/ hides our config.py either way."""
    folder = Path(__file__).parents[1]
    raise SweepAborted(
        f"W&B's package of the name `sweeps` is installed into {folder} too",
        "pip uninstall --yes sweeps, then pip install --force-reinstall --no-deps this project's "
        "wheel; or have each in an environment of its own",
    )
