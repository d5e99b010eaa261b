"""What a sweep is asked for, by a command line or from Python."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import tyro

from sweeps.checks.commands import write_resume_call, write_resume_command
from sweeps.checks.find_recipe import read_default_config
from sweeps.cli import JsonFlag, parse
from sweeps.command_line.help_layout import flatten
from sweeps.command_line.peer_flags import find_our_flag
from sweeps.config import SweepConfig, find_bad_value
from trainables.config import MainFlag, OutputFlag
from trainables.errors import SweepAborted
from trainables.shell import get_flag, write_flag

PROG = "python -m sweeps.run"
PYTHON = "run_sweep"


@dataclass(frozen=True, kw_only=True)
class RunArgs:
    """Searches the best LoRA hyperparameters for a task: python -m sweeps.run RECIPE [flags]."""

    config: tyro.conf.OmitArgPrefixes[SweepConfig]
    resume: MainFlag[tyro.conf.FlagCreatePairsOff[bool]] = False
    """Go on with the sweep --name, from where its last process ended."""
    dry_run: MainFlag[tyro.conf.FlagCreatePairsOff[bool]] = False
    """Print what would run, and write nothing."""
    json: OutputFlag[JsonFlag] = False


def read_command(
    argv: Sequence[str], tell_resume: Callable[[SweepConfig], str] = write_resume_command
) -> RunArgs:
    """The config of `RECIPE [flags]`: the recipe's, or with --resume the saved one, plus flags.

    Args:
        tell_resume: how a sweep goes on, in words to paste.

    Raises:
        SweepAborted: an unknown recipe or flag, a bad value, flags that contradict, or a resume
            that changes the sweep.
    """
    default, flags, prog = read_default_config(argv, PROG)
    args, saved = _parse_flags(flags, prog, default), None
    if args.resume:
        from sweeps.checks import resume  # loads the study's database, which others do without

        is_named = any(flag.split("=")[0] == "--name" for flag in flags)
        saved = resume.read_saved_config(args.config, is_named=is_named, tell_resume=tell_resume)
        args = _parse_flags(flags, prog, saved)
        args = replace(args, config=replace(args.config, tiny=saved.tiny))
        resume.check_resumable(saved, args.config)
    check_flags(args.config, flags, saved)
    return args


def check_flags(
    config: SweepConfig, flags: Sequence[str], saved: SweepConfig | None = None
) -> None:
    """Refuses a flag that others leave without effect, wholly or in part; defaults follow them.

    Args:
        saved: of the sweep that is resumed, whose own values may be given again.
    """
    names = {flag.partition("=")[0].replace("_", "-") for flag in flags}
    if saved is not None:
        same = [f.name for f in fields(saved) if getattr(saved, f.name) == getattr(config, f.name)]
        names -= set(map(get_flag, same))
    steps = f"--max-steps {config.max_steps} and --reduction-factor {config.reduction_factor}"
    num_rungs = config.num_rungs if config.epochs is not None else len(config.rungs)
    limits = {
        "--num-rungs": (config.num_rungs, num_rungs, f"{steps} give"),
        "--num-finalists": (config.num_finalists, config.num_trials, "--num-trials gives"),
        "--low-rung-eval-rows": (config.low_rung_eval_rows, config.eval_rows, "--eval-rows gives"),
    }
    for name, (value, most, giver) in limits.items():
        if name in names and value is not None and value > most:
            raise SweepAborted(
                f"{name} {value} is more than {giver}", f"give {name} {most} at most"
            )
    needs = {
        "--num-finalists": (config.finals, "--finals"),
        "--num-final-seeds": (config.finals, "--finals"),
        "--bertscore-encoder": (config.bertscore != "off", "--bertscore on"),
        "--bertscore-layer": (config.bertscore != "off", "--bertscore on"),
    }
    for name, (is_given, needed) in needs.items():
        if name in names and not is_given:
            error = f"{name} does nothing without {needed}"
            raise SweepAborted(error, f"add {needed}, or leave out {name}")


def _parse_flags(flags: Sequence[str], prog: str, default: SweepConfig) -> RunArgs:
    """The default is not tiny, so that --tiny is a flag that can be given."""
    return parse(RunArgs, flags, prog, RunArgs(config=replace(default, tiny=False)))


def read_call(
    recipe: str | Path | SweepConfig, flags: dict[str, Any], *, is_resumed: bool
) -> RunArgs:
    """What run_sweep is asked for; see there, and read_command."""
    if isinstance(recipe, SweepConfig):
        return _read_config(recipe, flags, is_resumed=is_resumed)
    known = [field.name for field, _ in flatten(SweepConfig)[1]]
    for name in flags:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, "resume"], n=1)
            fix = f"perhaps you meant {near[0]}" if near else f"{PROG} --help lists the flags"
            fix = find_our_flag(f"--{name}", PROG) or fix
            raise SweepAborted(f"{PYTHON} has no keyword {name!r}", fix)
    given = {name: value for name, value in flags.items() if (name, value) != ("tiny", False)}
    words = [word for name, value in given.items() for word in write_flag(name, value)]
    return read_command([str(recipe), *words, *["--resume"] * is_resumed], write_resume_call)


def _read_config(config: SweepConfig, flags: dict[str, Any], *, is_resumed: bool) -> RunArgs:
    """What a config asks for."""
    if flags:
        fix = f"{PYTHON}(dataclasses.replace(config, {next(iter(flags))}=...))"
        raise SweepAborted(f"flags beside a config: {', '.join(flags)}", fix)
    bad_value = find_bad_value(config)
    if bad_value:
        raise SweepAborted(f"the config has a bad value: {bad_value}", "change it")
    if is_resumed:
        from sweeps.checks import resume

        saved = resume.read_saved_config(config, is_named=True, tell_resume=write_resume_call)
        if config.epochs is not None:  # which the rows turned into steps
            config = replace(config, max_steps=saved.max_steps)
        resume.check_resumable(saved, config)
    return RunArgs(config=config, resume=is_resumed)
