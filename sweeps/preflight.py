"""Everything that can be found wrong before a GPU is used, and what the sweep would do."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.find import running_address
from sweeps.config import SweepConfig, model_source
from sweeps.paths import RunPaths
from sweeps.tracking import Mode, resolve_mode
from trainables.errors import SweepAborted
from trainables.model_facts import ModelFacts, read_model_facts
from trainables.tasks import TASKS
from trainables.tasks.base import Splits, Task

PACKAGES = ("torch", "ray", "optuna", "transformers", "peft", "bitsandbytes", "trl", "datasets",
            "evaluate", "wandb", "rouge-score")  # fmt: skip


@dataclass(frozen=True)
class Preflight:
    """What was checked, and found on the way."""

    task: Task
    splits: Splits
    model: ModelFacts
    wandb_mode: Mode


def check(config: SweepConfig, *, is_resumed: bool) -> Preflight:
    """Checks everything that a sweep needs, cheapest first; loads no torch and starts nothing.

    Raises:
        SweepAborted: the first thing that is wrong, with its remedy.
    """
    check_run_folder(config, is_resumed=is_resumed)
    _check_gpu(config)
    wandb_mode = resolve_mode(config.wandb, config.tiny)
    model = read_model_facts(model_source(config.model))
    task = TASKS[config.task]
    return Preflight(task, task.load(config.settings.data), model, wandb_mode)


def check_run_folder(config: SweepConfig, *, is_resumed: bool) -> None:
    """Whether the run's folder can be made, or gone on with.

    Raises:
        SweepAborted: it exists (a new sweep), is not there (a resumed one), or is not writable.
    """
    paths = RunPaths.of(config.runs_dir, config.name)
    if not is_resumed and paths.folder.exists():
        raise SweepAborted(
            f"the run {config.name!r} exists already in {config.runs_dir}",
            f"choose another --name, or go on with it: {resume_command(config)}",
        )
    ancestor = next(p for p in (paths.folder, *paths.folder.parents) if p.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
        raise SweepAborted(
            f"the runs folder {config.runs_dir} cannot be written: {ancestor} refuses it",
            "choose a folder of your own: --runs-dir DIR",
        )


def resume_command(config: SweepConfig) -> str:
    """The command that goes on with this sweep."""
    runs_dir = "" if config.runs_dir == "runs" else f" --runs-dir {config.runs_dir}"
    tiny = " --tiny" if config.tiny else ""
    return f"python -m sweeps.run {config.recipe}{tiny} --name {config.name}{runs_dir} --resume"


def sweep_command(config: SweepConfig) -> str:
    """The command that repeats this sweep, for model cards."""
    tiny = " --tiny" if config.tiny else f" --model {config.model}"
    budget = f" --num-trials {config.num_trials} --max-steps {config.max_steps}"
    return f"python -m sweeps.run {config.recipe}{tiny}{budget} --seed {config.seed}"


def no_gpu() -> SweepAborted:
    """The error for a real run where no GPU can be had."""
    return SweepAborted(
        "no GPU found; a real run needs one",
        "try the bundled small sweep: python -m sweeps.run samsum --tiny; or join a cluster that "
        "has GPUs: RAY_ADDRESS=HOST:PORT",
    )


def hardware() -> dict[str, object]:
    """Facts about this machine for sweep.json."""
    names = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    gpus = []
    if shutil.which(names[0]):
        found = subprocess.run(names, capture_output=True, text=True, check=False, timeout=10)
        gpus = found.stdout.strip().splitlines() if found.returncode == 0 else []
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpus": os.cpu_count(), "memory_gib": round(memory_bytes / 2**30, 1), "gpus": gpus}


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_commit() -> str | None:
    """The commit of this project's checkout, "+changes" if files differ; None outside git."""
    project = Path(__file__).resolve().parent.parent
    if not (project / ".git").exists() or not shutil.which("git"):
        return None
    git = ["git", "-C", str(project)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    changes = subprocess.run(
        [*git, "status", "--porcelain"], capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def _check_gpu(config: SweepConfig) -> None:
    """Refuses early where no GPU can be; what Ray finds is checked once it runs."""
    devices = [*Path("/dev").glob("nvidia[0-9]*"), Path("/dev/kfd"), Path("/dev/dxg")]
    has_device = any(path.exists() for path in devices) or shutil.which("nvidia-smi") is not None
    if config.tiny or has_device or os.environ.get("RAY_ADDRESS") or running_address():
        return
    raise no_gpu()
