"""python -m sweeps.run samsum: recipe -> preflight -> connect -> tune -> test -> best."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import tyro

from sweeps.cli import EXIT_DONE, EXIT_INTERRUPTED, parse, run_command
from sweeps.config import SweepConfig, absolute
from sweeps.find_recipe import named, read_recipe
from trainables.errors import SweepAborted
from trainables.process import gc_disabled

PROG = "python -m sweeps.run"


@dataclass(frozen=True, kw_only=True)
class RunArgs:
    """Searches the best LoRA hyperparameters for a task: python -m sweeps.run RECIPE [flags]."""

    config: tyro.conf.OmitArgPrefixes[SweepConfig]
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the sweep --name, from where its last process ended."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print what would run, and write nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one sweep; returns the process's exit code."""
    args = read_command(sys.argv[1:] if argv is None else argv)
    return _run(args)


def read_command(argv: Sequence[str]) -> RunArgs:
    """The config of `RECIPE [flags]`: the recipe's, or with --resume the saved one, plus flags.

    Raises:
        SweepAborted: an unknown recipe or flag, a bad value, or a resume that changes the sweep.
    """
    recipe, flags = read_recipe(argv, PROG)
    prog = f"{PROG} {named(argv)}"
    default = recipe("--tiny" in flags)
    args = _parse(flags, prog, default)
    if args.resume:
        from sweeps.checks import (
            sweep_json,  # loads the study's database, which others do without for now
        )

        is_named = any(flag.split("=")[0] == "--name" for flag in flags)
        saved = sweep_json.saved_config(args.config, is_named=is_named)
        args = _parse(flags, prog, saved)
        args = replace(args, config=replace(args.config, tiny=saved.tiny))
        sweep_json.check_resumable(saved, args.config)
    return replace(args, config=absolute(args.config))


def _parse(flags: Sequence[str], prog: str, default: SweepConfig) -> RunArgs:
    """The default is not tiny, so that --tiny is a flag that can be given."""
    return parse(RunArgs, flags, prog, RunArgs(config=replace(default, tiny=False)))


def _run(args: RunArgs) -> int:
    with gc_disabled():
        from sweeps.checks import preflight, resume, sweep_json
        from sweeps.cost import plan

    found = preflight.check(args.config, is_resumed=args.resume)
    if args.resume:
        resume.check_unchanged(args.config, found)
    if args.dry_run:
        print(plan.describe(args.config, found))
        return EXIT_DONE
    for line in plan.about_rows(found):
        print(line)
    with sweep_json.opened(args.config, found, is_resumed=args.resume) as (paths, identity):
        with gc_disabled():
            from sweeps.sweep import run_sweep  # loads Ray, which early errors do without

        try:
            return run_sweep(args.config, found, paths, identity, is_resumed=args.resume)
        except SweepAborted as aborted:
            if not aborted.fix.endswith("with --resume"):
                raise
            command = preflight.resume_command(args.config)
            raise SweepAborted(aborted.error, f"{aborted.fix}: {command}") from aborted
        except KeyboardInterrupt:
            print(f"interrupted; go on with: {preflight.resume_command(args.config)}")
            return EXIT_INTERRUPTED


if __name__ == "__main__":
    run_command(main)
