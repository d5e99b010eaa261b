"""What a sweep would do, in words: the text of --dry-run."""

from dataclasses import fields

from search_spaces.lora import POINT_NAMES, Point, make_hyperparameters
from sweeps.checks.preflight import Preflight
from sweeps.config import Engine, SweepConfig
from sweeps.cost.allocation import Allocation, allocate_slots, largest_point
from sweeps.cost.hardware import Hardware
from sweeps.finals.finalists import num_runs
from sweeps.records.paths import RunPaths
from trainables.config import TrainingOptions
from trainables.packing.sizing.memory_model import predict_solo_gib

_ENGINES: dict[Engine, str] = {
    "packed": "packed: the trials of a GPU train together over one base",
    "solo": "solo: each trial trains in a process of its own",
}


def describe(config: SweepConfig, preflight: Preflight) -> str:
    """The plan, a paragraph a subject."""
    rows = {name: len(getattr(preflight.splits, name)) for name in ("train", "validation", "test")}
    epochs = config.max_steps * config.batch_size / rows["train"]
    model = preflight.model
    sections = {
        "sweep": f"{config.name}: {config.num_trials} trials of {config.recipe}, "
        f"ranked by {preflight.task.metric.name} ({preflight.task.metric.mode}) on validation, "
        f"seed {config.seed}",
        "space": str(config.space),
        "start points": "\n".join(_format_point(p) for p in start_points(config)) or "none",
        "rungs": f"{', '.join(map(str, config.rungs))} steps; at each but the last the best "
        f"1/{config.reduction_factor} go on",
        "finals": _describe_finals(config),
        "training": f"{config.max_steps} steps of {config.batch_size} rows = {epochs:.2f} epochs",
        "settings": ", ".join(
            f"{f.name} {getattr(config, f.name)}" for f in fields(TrainingOptions)
        ),
        "rows": "\n".join(
            [", ".join(f"{name} {n:,}" for name, n in rows.items()), *about_rows(preflight)]
        ),
        "scored": _describe_scored_rows(config, rows["validation"])
        + "; all test rows once, at the end"
        + _describe_bertscore(config, preflight),
        "model": f"{config.model}: {model.kind}, {model.num_params / 1e6:,.1f} M parameters, "
        f"{model.num_layers} layers, hidden {model.hidden_size}, vocabulary {model.vocab_size:,}",
        "engine": _ENGINES[config.engine],
        **_describe_allocation(config, preflight),
        "budget": _describe_budget(config),
        "estimate": "time and GPU-hours: before the first trial, from a few steps"
        if config.estimate and config.engine == "packed"
        else "the time left: while it runs, from the trials' reports",
        "W&B": preflight.wandb_mode,
        "writes": str(RunPaths.of(config.runs_dir, config.name).folder),
    }
    return "\n".join(_format_section(title, text) for title, text in sections.items())


def about_rows(preflight: Preflight) -> list[str]:
    """How the rows were read and which were left out, a line each; [] if that is plain."""
    kept = ("train", "validation", "test")
    counts = {k: n for k, n in preflight.splits.counts.items() if k not in kept and n}
    left_out = [f"left out: {', '.join(f'{k} {n:,}' for k, n in counts.items())}"] if counts else []
    return [*preflight.splits.notes, *left_out]


def start_points(config: SweepConfig) -> list[Point]:
    """The start points that lie inside the space."""
    return [point for point in config.start_points if config.space.contains(point)]


def _describe_allocation(config: SweepConfig, preflight: Preflight) -> dict[str, str]:
    """What runs at once and the memory that it takes, if the GPUs are this machine's."""
    hardware = Hardware.of_this_machine()
    if hardware.num_gpus == 0 and not config.tiny:
        return {"memory": "as the cluster's GPUs have", "at once": "as the cluster's GPUs allow"}
    allocation = allocate_slots(config, preflight.model, hardware)
    return {
        "memory": _describe_memory(config, preflight, allocation),
        "at once": _describe_concurrency(config, allocation),
    }


def _describe_memory(config: SweepConfig, preflight: Preflight, allocation: Allocation) -> str:
    largest = largest_point(config)
    capacity = allocation.capacity
    if capacity is None:
        needed_gib = predict_solo_gib(preflight.model, largest, config.settings)
        return (
            f"about {needed_gib:.1f} GiB a trial at most (rank {largest.lora_rank}, all rows of "
            f"{config.max_length_tokens} tokens)"
        )
    if not allocation.num_gpus:
        return "not predicted without a GPU"
    base = config.compute_dtype if capacity.is_dequantised else "NF4"
    recomputed = ", activations computed again" if capacity.is_checkpointed else ""
    return (
        f"about {capacity.predicted_gib:.1f} GiB a GPU at most (rank {capacity.max_rank}, base "
        f"kept in {base}, passes of {capacity.max_tokens:,} tokens{recomputed})"
    )


def _describe_concurrency(config: SweepConfig, allocation: Allocation) -> str:
    where = f"GPUs in use: {allocation.num_gpus}" if allocation.num_gpus else "on this machine"
    finals = (
        f" of the search, {allocation.final_concurrency} of the finals" if config.finals else ""
    )
    at_once = (
        f"{allocation.concurrency} trials{finals}, {where}, {allocation.slots_per_gpu} slots each"
    )
    if config.engine == "packed" and config.slots_per_gpu == "auto":
        return f"{at_once}; a search takes a third of all at most, so that it learns from results"
    return at_once


def _describe_budget(config: SweepConfig) -> str:
    """What ends the search early."""
    limits = [f"{config.time_budget} of wall time"] if config.time_budget else []
    limits += [f"{config.gpu_hours:g} GPU-hours"] if config.gpu_hours else []
    after = "finals and test" if config.finals else "the test"
    return f"{', '.join(limits)}, {after} included" if limits else "as long as the trials take"


def _describe_finals(config: SweepConfig) -> str:
    if not config.finals:
        return "none: the best trial of the search wins"
    return (
        f"the best {min(config.num_finalists, config.num_trials)} with {config.num_final_seeds} "
        f"fresh seeds each, {num_runs(config)} runs of {config.max_steps} steps at most; the best "
        "mean on validation wins"
    )


def _format_point(point: Point) -> str:
    is_whole = set(point) == POINT_NAMES
    named = make_hyperparameters(point) if is_whole else point
    text = ", ".join(f"{name} {value}" for name, value in named.items())
    return text if is_whole else f"{text}, the rest drawn"


def _describe_scored_rows(config: SweepConfig, num_validation: int) -> str:
    last = min(config.eval_rows, num_validation)
    low = min(config.low_rung_eval_rows or last, last)
    if low == last or len(config.rungs) == 1:
        return f"the first {last} validation rows at every rung"
    return f"the first {low} validation rows at every rung but the last, {last} there"


def _describe_bertscore(config: SweepConfig, preflight: Preflight) -> str:
    if config.bertscore == "off" or preflight.splits.scoring.kind == "classify":
        return ""
    by = f"block {config.bertscore_layer} of {config.bertscore_encoder}"
    return f"; BERTScore of the winner by {by}{', if it can be had' * (config.bertscore == 'auto')}"


def _format_section(title: str, text: str) -> str:
    first, *rest = text.splitlines() or [""]
    return "\n".join([f"{title:<14}{first}", *(" " * 14 + line for line in rest)])
