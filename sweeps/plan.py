"""What a sweep would do, in words: the text of --dry-run."""

from dataclasses import fields

from search_spaces.lora import Point, hyperparameters
from sweeps.config import SweepConfig
from sweeps.paths import RunPaths
from sweeps.preflight import Preflight
from trainables.config import Hyperparameters, TrainingOptions


def describe(config: SweepConfig, found: Preflight) -> str:
    """The plan, a paragraph a subject."""
    rows = {name: len(getattr(found.splits, name)) for name in ("train", "validation", "test")}
    dropped = {k: n for k, n in found.splits.counts.items() if k not in rows and n}
    epochs = config.max_steps * config.batch_size / rows["train"]
    largest = largest_point(config)
    model = found.model
    sections = {
        "sweep": f"{config.name}: {config.num_trials} trials of {config.recipe}, "
        f"ranked by {found.task.metric.name} ({found.task.metric.mode}) on validation, "
        f"seed {config.seed}",
        "space": str(config.space),
        "start points": "\n".join(_point(p) for p in start_points(config)) or "none",
        "rungs": f"{', '.join(map(str, config.rungs))} steps; at each but the last the best "
        f"1/{config.reduction_factor} go on",
        "training": f"{config.max_steps} steps of {config.batch_size} rows = {epochs:.2f} epochs",
        "settings": ", ".join(
            f"{f.name} {getattr(config, f.name)}" for f in fields(TrainingOptions)
        ),
        "rows": ", ".join(f"{name} {n:,}" for name, n in rows.items())
        + (f"\nleft out: {', '.join(f'{k} {n:,}' for k, n in dropped.items())}" if dropped else ""),
        "scored": f"the first {min(config.eval_rows, rows['validation'])} validation rows at "
        "every rung; all test rows once, at the end",
        "model": f"{config.model}: {model.kind}, {model.num_params / 1e6:,.1f} M parameters, "
        f"{model.num_layers} layers, hidden {model.hidden_size}, vocabulary {model.vocab_size:,}",
        "memory": f"about {trial_gib(config, found):.1f} GiB a trial at most "
        f"(rank {largest.lora_rank}, all rows of {config.max_length_tokens} tokens)",
        "at once": f"{config.slots_per_gpu} trials "
        + ("on this machine" if config.tiny else "on each GPU"),
        "W&B": found.wandb_mode,
        "writes": str(RunPaths.of(config.runs_dir, config.name).folder),
    }
    return "\n".join(_section(title, text) for title, text in sections.items())


def start_points(config: SweepConfig) -> list[Point]:
    """The start points that lie inside the space."""
    return [point for point in config.start_points if config.space.contains(point)]


def trial_gib(config: SweepConfig, found: Preflight) -> float:
    """The most memory that one trial is expected to need, in GiB."""
    return found.model.trial_gib(largest_point(config), config.settings)


def largest_point(config: SweepConfig) -> Hyperparameters:
    """The point of the space that needs the most memory."""
    return Hyperparameters(
        lora_rank=max(config.space.lora_ranks),
        lora_alpha=1.0,
        learning_rate=config.space.learning_rates[0],
    )


def _point(point: Point) -> str:
    return ", ".join(f"{name} {value}" for name, value in hyperparameters(point).items())


def _section(title: str, text: str) -> str:
    first, *rest = text.splitlines() or [""]
    return "\n".join([f"{title:<14}{first}", *(" " * 14 + line for line in rest)])
