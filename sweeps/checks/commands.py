"""Commands that a sweep prints or writes down, to be pasted as they stand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.checks.find_recipe import read_default_config
from sweeps.config import SweepConfig
from sweeps.records.events import find_num_trials
from trainables.errors import SweepAborted
from trainables.metrics.registry import replace_paths
from trainables.shell import write_command, write_flag
from trainables.tiny import MODELS

_NO_FLAGS = (
    *("recipe", "task", "start_points", "tiny", "task_options", "space"),
    *("study_storage", "checkpoints", "track", "wandb_entity"),  # which no card shows
    "name",  # which the run that is repeated has
)
_PATHS = ("model", "data", "bertscore_encoder", "runs_dir", "paraphrases")


def write_resume_command(config: SweepConfig) -> str:
    """The command that goes on with this sweep."""
    words = [word for name, value in _list_resume_flags(config) for word in write_flag(name, value)]
    return f"python -m sweeps.run {write_command(config.recipe, *words)}"


def write_resume_call(config: SweepConfig) -> str:
    """The call in Python that goes on with this sweep."""
    words = [f"{name}={value!r}" for name, value in _list_resume_flags(config)]
    return f"run_sweep({', '.join([repr(config.recipe), *words])})"


def _list_resume_flags(config: SweepConfig) -> list[tuple[str, Any]]:
    tiny = [("tiny", True)] if config.tiny else []
    runs_dir = [] if config.runs_dir == "runs" else [("runs_dir", config.runs_dir)]
    storage = [("checkpoints", config.checkpoints)] if config.checkpoints else []
    return [*tiny, ("name", config.name), *runs_dir, *storage, ("resume", True)]


def write_sweep_command(config: SweepConfig, events: Sequence[dict[str, Any]] = ()) -> str:
    """The command that repeats this sweep, for model cards: every difference from its recipe.

    Folders are shown by their last name. Where its owner keeps the study and W&B's runs is not.

    Args:
        events: the sweep's, which tell how many trials were asked for on its way; those that were
            added by hand are not counted.
    """
    added = {event["trial_id"] for event in events if event.get("is_asked")}
    num_trials = find_num_trials(events, config.num_trials) - len(added)
    config = replace(config, num_trials=max(1, num_trials))
    recipe = [config.recipe, *(["--tiny"] if config.tiny else [])]
    default = _read_recipe(recipe)
    if default and default.data != config.data:
        default = _read_recipe([*recipe, "--data"])
    values, defaults = _list_flags(config), _list_flags(default) if default else {}
    if config.epochs is not None:
        del values["max_steps"]  # which the rows decide
    elif default and default.epochs is not None:
        del values["epochs"], defaults["max_steps"]
    words = [_hide_folder(config.recipe), *recipe[1:]]
    for name, value in values.items():
        if name not in defaults or defaults[name] != value:
            words += write_flag(name, _hide_folders(name, value))
    return f"python -m sweeps.run {write_command(*words)}"


def _read_recipe(argv: list[str]) -> SweepConfig | None:
    """The recipe's config; None where its file is not here any more."""
    try:
        return read_default_config(argv, "")[0]
    except SweepAborted:
        return None


def _list_flags(config: SweepConfig) -> dict[str, Any]:
    """The value of each flag, by its field."""
    values = vars(config) | vars(config.task_options) | vars(config.space)
    return {name: value for name, value in values.items() if name not in _NO_FLAGS}


def _hide_folders(name: str, value: Any) -> Any:
    """A field's value without the folders in it that a card's readers do not have."""
    if name == "metric" and value:
        return replace_paths(value, _hide_folder)
    if name not in _PATHS or value is None:
        return value
    return tuple(map(_hide_folder, value)) if isinstance(value, tuple) else _hide_folder(value)


def _hide_folder(text: str) -> str:
    """What names a bundled model, or the last name of an absolute path; all else, as a name of the
    Hub, as it is."""
    bundled = {str(folder): name for name, folder in MODELS.items()}
    return bundled.get(text, Path(text).name if Path(text).is_absolute() else text)
