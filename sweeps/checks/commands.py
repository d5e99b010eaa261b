"""Commands that a sweep prints or writes down, to be pasted as they stand."""

import shlex
from dataclasses import fields
from pathlib import Path

from sweeps.config import SweepConfig
from trainables.config import TaskOptions
from trainables.models.hub_files import is_dataset_id


def resume_command(config: SweepConfig) -> str:
    """The command that goes on with this sweep."""
    tiny = ["--tiny"] if config.tiny else []
    runs_dir = [] if config.runs_dir == "runs" else ["--runs-dir", config.runs_dir]
    words = [config.recipe, *tiny, "--name", config.name, *runs_dir, "--resume"]
    return f"python -m sweeps.run {shlex.join(words)}"


def sweep_command(config: SweepConfig) -> str:
    """The command that repeats this sweep, for model cards; of its data the last name only."""
    tiny = " --tiny" if config.tiny else f" --model {config.model}"
    data = config.data
    if data is not None and not config.tiny:
        tiny += f" --data {shlex.quote(data if is_dataset_id(data) else Path(data).name)}"
    budget = f" --num-trials {config.num_trials} --max-steps {config.max_steps}"
    options = "" if config.tiny else _option_flags(config.task_options)
    budget += "" if config.finals else " --no-finals"
    return f"python -m sweeps.run {config.recipe}{tiny}{options}{budget} --seed {config.seed}"


def _option_flags(options: TaskOptions) -> str:
    """The flags that give a task these options."""
    words: list[str] = []
    for option in fields(options):
        value = getattr(options, option.name)
        if value != option.default:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{option.name.replace('_', '-')}", *values]
    return "".join(f" {shlex.quote(word)}" for word in words)
