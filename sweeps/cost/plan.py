"""What a sweep would do, in words: the text of --dry-run."""

from dataclasses import fields

from cluster.gpus import find_oldest_gpu, list_visible_gpus
from search_spaces.lora import WHOLE_NAMES, Point, make_hyperparameters
from sweeps.checks.preflight import Preflight, has_gpu
from sweeps.config import SweepConfig
from sweeps.cost.allocation import PROCESS_GIB, Allocation, allocate_slots, find_largest_point
from sweeps.cost.hardware import Hardware
from sweeps.finals.finalists import count_final_runs
from trainables.config import TrainingOptions
from trainables.data.rows import Splits
from trainables.models.delta_kernels import find_fault
from trainables.models.model_facts import ModelFacts
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.solo_memory import find_solo_micro_batch, predict_solo_gib


def describe(config: SweepConfig, preflight: Preflight) -> str:
    """The plan, a paragraph a subject."""
    lines = []
    for title, text in list_sections(config, preflight).items():
        first, *rest = text.splitlines() or [""]
        lines += [f"{title:<14}{first}", *(" " * 14 + line for line in rest)]
    return "\n".join(lines)


def list_sections(config: SweepConfig, preflight: Preflight) -> dict[str, str]:
    """What is said of each subject."""
    splits, model, metric = preflight.splits, preflight.model, preflight.task.metric
    rows = {name: len(getattr(splits, name)) for name in ("train", "validation", "test")}
    epochs = config.max_steps * config.batch_size / rows["train"]
    options = (f"{f.name} {getattr(config, f.name)}" for f in fields(TrainingOptions))
    is_estimated = config.estimate and config.engine == "packed"
    return {
        "sweep": f"{config.name}: {config.num_trials} trials of {config.recipe}, "
        f"ranked by {metric.name} ({metric.mode}) on validation, seed {config.seed}",
        "space": str(config.space),
        "start points": "\n".join(map(_format_point, list_start_points(config))) or "none",
        "rungs": f"{', '.join(map(str, config.rungs))} steps; at each but the last the best "
        f"1/{config.reduction_factor} go on",
        "finals": f"the best {min(config.num_finalists, config.num_trials)} with "
        f"{config.num_final_seeds} fresh seeds each, {count_final_runs(config)} runs of "
        f"{config.max_steps} steps at most; the best mean on validation wins"
        if config.finals
        else "none: the best trial of the search wins",
        "training": f"{config.max_steps} steps of {config.batch_size} rows = {epochs:.2f} epochs",
        "settings": ", ".join(options),
        "rows": "\n".join(
            [", ".join(f"{name} {n:,}" for name, n in rows.items()), *describe_rows(preflight)]
        ),
        "scored": _describe_scores(config, preflight),
        "model": f"{config.model}: {model.kind}, {model.num_params / 1e6:,.1f} M parameters, "
        f"{model.num_layers} layers, hidden {model.hidden_size}, vocabulary {model.vocab_size:,}",
        "base": "in NF4 (QLoRA)"
        if config.base == "nf4"
        else f"not quantised, in {config.compute_dtype} (plain LoRA)",
        **_describe_experts(config, model),
        **_describe_kernels(config, model),
        "engine": "packed: the trials of a GPU train together over one base"
        if config.engine == "packed"
        else "solo: each trial trains in a process of its own",
        **_describe_allocation(config, preflight),
        "budget": _describe_budget(config),
        "estimate": "time and GPU-hours: before the first trial, from a few steps"
        if is_estimated
        else "the time left: while it runs, from the trials' reports",
        "W&B": preflight.wandb_mode,
        **({"trackers": config.track} if config.track != "wandb" else {}),
        "writes": str(config.paths.folder),
    }


def _describe_experts(config: SweepConfig, model: ModelFacts) -> dict[str, str]:
    """What NF4 leaves out, if the model has experts."""
    if model.experts is None:
        return {}
    gib = model.expert_params * (4 if config.compute_dtype == "float32" else 2) / 2**30
    text = f"{model.expert_params / 1e6:,.1f} M weights in {config.compute_dtype} ({gib:,.1f} GiB)"
    why = "; bitsandbytes quantises linear layers only" if config.base == "nf4" else ""
    return {"experts": f"{text}, frozen{why}"}


def _describe_kernels(config: SweepConfig, model: ModelFacts) -> dict[str, str]:
    """What solo trials of a hybrid go without on this machine's GPUs."""
    is_solo_hybrid = model.is_hybrid and config.engine == "solo"
    oldest = find_oldest_gpu(list_visible_gpus()) if is_solo_hybrid else None
    fault = find_fault(oldest.compute_capability) if oldest else None
    if fault is None:
        return {}
    return {"kernels": f"{fault.found}: trials go on without, more slowly; {fault.remedy}"}


def describe_rows(preflight: Preflight) -> list[str]:
    """How the rows were read, which were left out and added, a line each; [] if that is plain."""
    splits = ("train", "validation", "test")
    counts = {k: n for k, n in preflight.splits.counts.items() if k not in splits and n}
    left_out = [f"left out: {', '.join(f'{k} {n:,}' for k, n in counts.items())}"] if counts else []
    return [*preflight.splits.notes, *left_out, *describe_added_rows(preflight.splits)]


def describe_added_rows(splits: Splits) -> list[str]:
    """How many training rows the data does not have, in a line; [] if it has all."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in splits.added.items())
    return [f"added to train: {kinds}"] if kinds else []


def list_start_points(config: SweepConfig) -> list[Point]:
    """The start points that lie inside the space; whole ones with a set of linear layers, if there
    are several."""
    first, *others = config.space.target_modules
    named: Point = {"target_modules": first} if others else {}
    inside = [point for point in config.start_points if config.space.contains(point)]
    return [named | point if set(point) >= WHOLE_NAMES else point for point in inside]


def _format_point(point: Point) -> str:
    is_whole = set(point) >= WHOLE_NAMES
    params = make_hyperparameters(point) if is_whole else point
    shown = {n: ",".join(v) if isinstance(v, tuple) else v for n, v in params.items()}
    text = ", ".join(f"{name} {value}" for name, value in shown.items())
    return text if is_whole else f"{text}, the rest drawn"


def _describe_scores(config: SweepConfig, preflight: Preflight) -> str:
    num_rows = config.count_scored_rows(len(preflight.splits.validation))
    text = f"the first {num_rows[0]} validation rows at every rung"
    if num_rows[0] != num_rows[-1]:
        text += f" but the last, {num_rows[-1]} there"
    text += "; all test rows once, at the end"
    if config.bertscore == "off" or preflight.splits.scoring.kind == "classify":
        return text
    text += f"; BERTScore of the winner by block {config.bertscore_layer} of "
    return text + config.bertscore_encoder + ", if it can be had" * (config.bertscore == "auto")


def _describe_allocation(config: SweepConfig, preflight: Preflight) -> dict[str, str]:
    """What runs at once and the memory that it takes, if the GPUs are this machine's."""
    hardware = Hardware.detect()
    if hardware.num_gpus == 0 and not config.tiny:
        if not has_gpu():
            none = "nothing: no GPU found, and a real run needs one"
            return {"memory": "not predicted without a GPU", "at once": none}
        return {"memory": "as the cluster's GPUs have", "at once": "as the cluster's GPUs allow"}
    allocation = allocate_slots(config, preflight.model, hardware)
    at_once = f"{allocation.concurrency} trials"
    if config.finals:
        at_once += f" of the search, {allocation.final_concurrency} of the finals"
    where = f"GPUs in use: {allocation.num_gpus}" if allocation.num_gpus else "on this machine"
    at_once += f", {where}, {_describe_slots(allocation, hardware)}"
    if config.engine == "packed" and config.slots_per_gpu == "auto":
        at_once += "; a search takes a third of all at most, so that it learns from results"
    if not allocation.capacities:
        share_gib = None
        if allocation.num_gpus and hardware.gpu_gib is not None:
            share_gib = hardware.gpu_gib / allocation.slots_per_gpu - PROCESS_GIB
        memory = _describe_solo_memory(config, preflight.model, share_gib)
    else:
        kinds = dict.fromkeys(allocation.capacities)
        memory = "\n".join(_describe_memory(config, kind, len(kinds)) for kind in kinds)
    return {"memory": memory, "at once": at_once}


def _describe_slots(allocation: Allocation, hardware: Hardware) -> str:
    """How many slots each GPU has, and which GPUs have none."""
    kinds = {capacity.gpu_gib: capacity.num_slots for capacity in allocation.capacities}
    if len(kinds) < 2:
        text = f"{allocation.slots_per_gpu} slots each"
    else:
        text = ", ".join(f"{slots} slots on each of {gib:.1f} GiB" for gib, slots in kinds.items())
    smallest_gib = next(iter(kinds), None) or 0.0
    num_small = sum(gib < smallest_gib for gib in hardware.gpu_gibs)
    return text + f"; GPUs that do not hold one trial: {num_small}" * bool(num_small)


def _describe_solo_memory(config: SweepConfig, model: ModelFacts, share_gib: float | None) -> str:
    """What a trial takes, and whether its micro-batches will be halved for it.

    Args:
        share_gib: of a GPU that a trial has; None where there is none, or it is not known.
    """
    largest, settings = find_largest_point(config, model), config.settings
    text = (
        f"about {predict_solo_gib(model, largest, settings):.1f} GiB a trial at most (rank "
        f"{largest.lora_rank}, all rows of {config.max_length_tokens} tokens)"
    )
    if share_gib is None:
        return text
    num_rows = max(1, find_solo_micro_batch(model, largest, settings, share_gib))
    if num_rows == settings.micro_batch_size:
        return text
    return (
        f"{text}\nits share of a GPU is {share_gib:.1f} GiB: where that runs out, micro-batches of "
        f"{settings.micro_batch_size} rows are halved, to {num_rows} if rows are so long; the "
        "effective batch stays"
    )


def _describe_memory(config: SweepConfig, capacity: Capacity, num_kinds: int) -> str:
    if capacity.gpu_gib is None:
        return "not predicted without a GPU"
    which = f" of {capacity.gpu_gib:.1f} GiB" * (num_kinds > 1)
    base = config.compute_dtype if capacity.is_dequantised else "NF4"
    recomputed = ", activations computed again" if capacity.is_checkpointed else ""
    return (
        f"about {capacity.predicted_gib:.1f} GiB a GPU{which} at most (rank {capacity.max_rank}, "
        f"base kept in {base}, passes of {capacity.max_tokens:,} tokens{recomputed})"
    )


def _describe_budget(config: SweepConfig) -> str:
    limits = [f"{config.time_budget} of wall time"] if config.time_budget else []
    limits += [f"{config.gpu_hours:g} GPU-hours"] if config.gpu_hours else []
    after = "finals and test" if config.finals else "the test"
    return f"{', '.join(limits)}, {after} included" if limits else "as long as the trials take"
