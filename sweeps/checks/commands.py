"""Commands that a sweep prints or writes down, to be pasted as they stand."""

import shlex
from dataclasses import fields
from pathlib import Path

from sweeps.config import SweepConfig
from trainables.metrics.registry import replace_paths


def resume_command(config: SweepConfig) -> str:
    """The command that goes on with this sweep."""
    tiny = ["--tiny"] if config.tiny else []
    runs_dir = [] if config.runs_dir == "runs" else ["--runs-dir", config.runs_dir]
    words = [config.recipe, *tiny, "--name", config.name, *runs_dir, "--resume"]
    return f"python -m sweeps.run {shlex.join(words)}"


def sweep_command(config: SweepConfig) -> str:
    """The command that repeats this sweep, for model cards; of a local path the last name only."""
    words = [_hide_folder(config.recipe)]
    if config.tiny:
        words += ["--tiny"]
    else:
        words += ["--model", _hide_folder(config.model)]
        if config.data is not None:
            data = [config.data] if isinstance(config.data, str) else config.data
            words += ["--data", *map(_hide_folder, data)]
        for option in fields(config.task_options):
            value = getattr(config.task_options, option.name)
            if option.name == "metric" and value:
                value = replace_paths(value, _hide_folder)
            if option.name == "paraphrases" and value:
                value = _hide_folder(value)
            if value != option.default:
                values = value if isinstance(value, tuple) else (value,)
                words += [f"--{option.name.replace('_', '-')}", *map(str, values)]
    words += ["--num-trials", str(config.num_trials), "--max-steps", str(config.max_steps)]
    words += [*([] if config.finals else ["--no-finals"]), "--seed", str(config.seed)]
    return f"python -m sweeps.run {shlex.join(words)}"


def _hide_folder(text: str) -> str:
    """The last name of an absolute path; all else, as a name of the Hub, as it is."""
    return Path(text).name if Path(text).is_absolute() else text
