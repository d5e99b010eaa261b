"""Everything that can be found wrong before a GPU is used: the first raises SweepAborted."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.find import ClusterError, check_address, find_address_to_join, set_ray_defaults
from cluster.gpus import AMPERE, Gpu, find_oldest_gpu, list_visible_gpus
from search_spaces.lora import POINT_NAMES
from sweeps.checks.commands import write_resume_command
from sweeps.checks.metrics import choose_metrics
from sweeps.config import SweepConfig, fill_point
from sweeps.search.storage import check_storage
from sweeps.tracking.trackers import check_trackers
from sweeps.tracking.wandb_mode import Mode, check_settings, resolve_mode
from trainables import storage
from trainables.config import Kind
from trainables.data.augmentation import augment
from trainables.data.lengths import fit_splits
from trainables.data.prepared_rows import read_rows
from trainables.data.rows import Splits, Task
from trainables.data.tasks import TASKS
from trainables.errors import SweepAborted, make_unreadable_error
from trainables.folder_locks import find_lock
from trainables.models.chat_template import has_open_thought, render_template
from trainables.models.delta_kernels import INSTALL, find_fault
from trainables.models.layer_kinds import list_target_sets, resolve_targets
from trainables.models.model_facts import ModelFacts, read_model_facts
from trainables.models.model_files import check_encoder
from trainables.models.tokenizer_file import TokenizerFile, check_thinking
from trainables.models.weights import check_weights

DEVICES = Path("/dev")


@dataclass(frozen=True)
class Preflight:
    """What was checked, and read on the way."""

    task: Task
    splits: Splits
    """The task's rows; those of a resumed run are its own copy."""
    model: ModelFacts
    wandb_mode: Mode


def check(
    config: SweepConfig,
    *,
    is_resumed: bool,
    has_ray: bool = True,
    needs_gpu: bool = True,
    tell_resume: Callable[[SweepConfig], str] = write_resume_command,
) -> Preflight:
    """Checks everything that a sweep needs, cheapest first; loads no torch and starts nothing.

    Args:
        has_ray: whether Ray runs the trials, so that a cluster's GPUs do.
        needs_gpu: whether trials are to begin; a dry run checks all but this.
        tell_resume: how a sweep goes on, in words to paste.
    """
    check_run_folder(config, is_resumed=is_resumed, tell_resume=tell_resume)
    if needs_gpu:
        find_lock(config.paths.checkpoints)
    if config.storage is not None:
        _check_object_storage(config, config.storage, is_resumed=is_resumed)
    check_recipe(config)
    task = TASKS[config.task](config.task_options)
    if config.data is None and not task.dataset:
        raise SweepAborted(
            f"{config.task} has no dataset of its own",
            "name one: --data FILE, DIR, or OWNER/NAME of the Hub; or try --tiny",
        )
    if has_ray:
        _check_cluster(config)
    if needs_gpu and not config.tiny and not has_gpu(has_ray=has_ray):
        raise make_no_gpu_error()
    gpus = [] if has_ray and find_address_to_join() else list_visible_gpus()
    if has_ray and 0 < len(gpus) < (config.gpus or 0):
        raise SweepAborted(
            f"--gpus {config.gpus} is more than the {len(gpus)} that this machine has",
            f"give --gpus {len(gpus)} at most, or leave it out for all",
        )
    oldest = find_oldest_gpu(gpus)
    check_generation(config, oldest)
    wandb_mode: Mode = "disabled"
    if "wandb" in config.trackers and config.wandb != "disabled":
        check_settings(config)
        wandb_mode = resolve_mode(config.wandb, config.tiny)
    check_trackers(config, config.paths)
    try:
        splits = read_rows(config.settings.rows_dir) if is_resumed else load_rows(config, task)
        model = read_model_facts(config.model)
        check_base(config, model)
        check_weights(config.model, model)
        for names in config.space.target_modules:
            check_targets(names.split(","), model)
        unpacked = find_unpacked(model)
        if config.engine == "packed" and unpacked is not None:
            raise SweepAborted(
                f"{config.model} has {unpacked}, which packs cannot train", "add --engine solo"
            )
        check_delta_kernels(config, model, oldest)
        tokenizer = _read_tokenizer(config, model)
        if config.max_length_tokens > model.max_positions:
            raise SweepAborted(
                f"--max-length-tokens {config.max_length_tokens:,} is above the "
                f"{model.max_positions:,} positions that {config.model} was made for",
                f"give --max-length-tokens {model.max_positions} at most",
            )
        if not is_resumed:
            splits = fit_splits(tokenizer, splits, config)
        splits = choose_metrics(splits, config.task_options, is_resumed=is_resumed)
        check_bertscore(config, splits.scoring.kind)
    except OSError as refused:
        raise make_unreadable_error(refused) from None
    if has_ray and config.study_storage is not None:
        check_storage(config.study_storage, config.name, is_resumed=is_resumed)
    return Preflight(task, splits, model, wandb_mode)


def load_rows(config: SweepConfig, task: Task) -> Splits:
    """The task's rows with those that augmentation adds, before they are fitted in length."""
    return augment(task.load(config.data), config.task_options, config.seed)


def _read_tokenizer(config: SweepConfig, model: ModelFacts) -> TokenizerFile:
    """The model's tokenizer, whose chat template has written a question."""
    tokenizer = TokenizerFile(config.model)
    if tokenizer.vocab_size > model.vocab_size:
        raise SweepAborted(
            f"the tokenizer of {config.model} has {tokenizer.vocab_size:,} tokens, and the model's "
            f"embedding {model.vocab_size:,}",
            "give the tokenizer that the model was trained with, or enlarge the model once: "
            "model.resize_token_embeddings(len(tokenizer)), then save_pretrained",
        )
    if has_open_thought(tokenizer, thinking=False):
        raise SweepAborted(
            f"{config.model} thinks before every answer, which most rows do not",
            "choose a model that can answer at once, such as its Instruct variant",
        )
    if config.thinking:
        check_thinking(tokenizer)
        render_template(tokenizer, ("user",), thinking=True)
    return tokenizer


def find_unpacked(model: ModelFacts) -> str | None:
    """What a model has that packs cannot train; None if they can train it."""
    if model.activation != "silu":
        return f"{model.activation} between its layers"
    if model.experts is not None:
        return "experts"
    return "layers with sliding attention" if model.has_sliding_attention else None


def check_recipe(config: SweepConfig) -> None:
    """Refuses what a user's own recipe may get wrong beyond the values of single fields: an unknown
    task, or a start point that is none."""
    if config.task not in TASKS:
        raise SweepAborted(
            f"the recipe's task {config.task!r} is unknown", f"name one of {', '.join(TASKS)}"
        )
    for point in config.start_points:
        if not point or not set(point) <= POINT_NAMES:
            raise SweepAborted(
                f"the recipe's start point {point} does not name what a point has",
                f"give each start point one or more of {', '.join(sorted(POINT_NAMES))}; "
                "what it leaves out is drawn",
            )
        try:
            fill_point(point)
        except ValueError as refused:
            raise SweepAborted(
                f"the recipe's start point {point} can be no trial: {refused}",
                "give it values that a trial may have",
            ) from None


def check_targets(targets: Sequence[str], model: ModelFacts) -> None:
    """Refuses linear layers that the model does not have."""
    try:
        resolve_targets(targets, model.linear_shapes)
    except ValueError as refused:
        names = ", ".join((*list_target_sets(model.linear_shapes), *model.linear_shapes))
        raise SweepAborted(
            f"--target-modules: {refused}",
            f"give --target-modules some of {names}; commas join the names of a set",
        ) from None


def check_base(config: SweepConfig, model: ModelFacts) -> None:
    """Refuses a model whose files hold NF4 as a base that is not quantised."""
    if config.base == "bf16" and model.is_quantised:
        raise SweepAborted(
            f"--base bf16 needs unquantised weights, and {config.model} is saved in NF4",
            "leave out --base bf16, or give the model that it was made from: --model ID_OR_DIR",
        )


def check_delta_kernels(config: SweepConfig, model: ModelFacts, oldest: Gpu | None) -> None:
    """Refuses a hybrid whose kernels this machine's GPUs lack; solo can go without, and packs in
    float32 do."""
    is_solo = config.engine == "solo"
    if not is_solo and has_delta_kernels(config, model, oldest):
        return
    fault = find_fault(oldest.compute_capability) if model.is_hybrid and oldest else None
    if fault is None or (is_solo and fault.remedy == INSTALL):
        return
    or_solo = "; or add --engine solo, which is slower" * (fault.remedy == INSTALL)
    raise SweepAborted(
        f"{config.model} trains by fla's kernels, and {fault.found}", fault.remedy + or_solo
    )


def has_delta_kernels(config: SweepConfig, model: ModelFacts, oldest: Gpu | None) -> bool:
    """Whether packs of the model have the kernels that they need on this machine's GPUs."""
    needs_none = not model.is_hybrid or config.compute_dtype == "float32"
    return oldest is None or needs_none or find_fault(oldest.compute_capability) is None


def check_bertscore(config: SweepConfig, kind: Kind) -> None:
    """Refuses BERTScore that was asked for, of labels or by an encoder that cannot be had."""
    if config.bertscore == "on" and kind == "classify":
        raise SweepAborted(
            f"BERTScore compares texts, and {config.task} has labels here",
            "leave out --bertscore on",
        )
    if config.bertscore == "on":
        check_encoder(config.bertscore_encoder, config.bertscore_layer)


def check_run_folder(
    config: SweepConfig,
    *,
    is_resumed: bool,
    tell_resume: Callable[[SweepConfig], str] = write_resume_command,
) -> None:
    """Refuses a run's folder that is there already (a new sweep), or that cannot be written."""
    folder = config.paths.folder
    if not is_resumed and os.path.lexists(folder):
        can_resume = os.path.isfile(folder / "sweep.json")
        or_resume = f", or go on with it: {tell_resume(config)}" if can_resume else ""
        raise SweepAborted(
            f"the run {config.name!r} exists already in {config.runs_dir}",
            f"choose another --name{or_resume}",
        )
    ancestor = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
    if not os.path.isdir(ancestor) or not os.access(ancestor, os.W_OK | os.X_OK):
        raise SweepAborted(
            f"the runs folder {config.runs_dir} cannot be written: {ancestor} refuses it",
            "choose a folder of your own: --runs-dir DIR",
        )


def _check_object_storage(config: SweepConfig, url: str, *, is_resumed: bool) -> None:
    """Refuses a URL that cannot be written, or under which there is anything before a new sweep:
    one that ends without a trial takes all there away again."""
    folder = config.paths.folder.resolve()
    if url.startswith("file://"):
        place = Path(url.removeprefix("file://")).resolve()
        if place.is_relative_to(folder) or folder.is_relative_to(place):
            raise SweepAborted(
                f"{url} and the run's own folder {folder} lie in each other",
                "name another folder for one of them: --checkpoints URL or --runs-dir DIR",
            )
    storage.check_writable(url)
    if is_resumed:
        return
    names = storage.list_names(url)
    if "sweep.json" in names:
        raise SweepAborted(
            f"there is a run at {url} already",
            "choose another --name, or go on with it: --resume",
        )
    if names:
        raise SweepAborted(
            f"{url} holds files that are no run's: {', '.join(names[:3])}",
            "choose another --name, or another place: --checkpoints URL",
        )


def make_no_gpu_error() -> SweepAborted:
    """The error for a real run where no GPU can be had."""
    has_amd = (DEVICES / "kfd").exists()
    kind = " that runs CUDA (this machine's is one of AMD's, with ROCm)" if has_amd else ""
    return SweepAborted(
        f"no GPU found{kind}; a real run needs one",
        "try the bundled small sweep: python -m sweeps.run samsum --tiny; or join a cluster that "
        "has GPUs: RAY_ADDRESS=HOST:PORT; --dry-run checks data and model without one",
    )


def _check_cluster(config: SweepConfig) -> None:
    """Refuses a cluster that cannot be joined, and a run where Ray deletes it; loads no Ray."""
    folder = Path(config.runs_dir).absolute()
    if "working_dir_files" in folder.parts:  # the working folder of `ray job submit`
        raise SweepAborted(
            f"the runs folder {folder} lies in Ray's copy of the job's files, which other nodes "
            "lack and Ray deletes",
            "name one on storage that every node has: --runs-dir DIR",
        )
    set_ray_defaults()
    try:
        check_address()
    except ClusterError as refused:
        raise SweepAborted(refused.error, refused.fix) from None


def has_gpu(*, has_ray: bool = True) -> bool:
    """Whether a GPU may be there, here or in a cluster to join; Ray finds out once it runs."""
    if has_ray and find_address_to_join() is not None:
        return True
    devices = [*DEVICES.glob("nvidia[0-9]*"), DEVICES / "dxg"]
    has_device = any(path.exists() for path in devices) or shutil.which("nvidia-smi") is not None
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return has_device and not is_hidden


def check_generation(config: SweepConfig, oldest: Gpu | None) -> None:
    """Refuses a GPU that lacks what the engine asks of it: flash attention, or bfloat16 without
    emulation."""
    if oldest is None or oldest.compute_capability >= AMPERE:
        return
    flags = ["--engine solo"] if config.engine == "packed" else []
    flags += ["--compute-dtype float32"] if config.compute_dtype == "bfloat16" else []
    if flags:
        raise SweepAborted(
            f"the {oldest.name} has compute capability {oldest.compute_capability}; packs (flash "
            f"attention) and bfloat16 need {AMPERE}",
            f"add {' '.join(flags)}, or leave that GPU out with CUDA_VISIBLE_DEVICES",
        )
