"""What a sweep runs on, for sweep.json: packages, this project's commit, and this machine."""

import os
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.gpus import local_gpus

PACKAGES = (
    *("torch", "ray", "optuna", "transformers", "peft", "bitsandbytes", "trl", "datasets"),
    *("evaluate", "wandb", "rouge-score"),
)
"""Packages whose versions decide a result."""


def describe_hardware() -> dict[str, object]:
    """Facts about this machine for sweep.json."""
    gpus = [f"{gpu.name}, {gpu.gib:.0f} GiB" for gpu in local_gpus()]
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpus": os.cpu_count(), "memory_gib": round(memory_bytes / 2**30, 1), "gpus": gpus}


def list_versions() -> dict[str, str]:
    """Installed versions of the PACKAGES."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "not installed"
    return installed


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
