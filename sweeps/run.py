"""python -m sweeps.run samsum: recipe -> preflight -> connect -> tune -> test -> best."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import tyro

from sweeps.checks.find_recipe import read_default
from sweeps.cli import EXIT_DONE, EXIT_INTERRUPTED, explain_end, parse, run_command
from sweeps.config import SweepConfig, count_steps
from trainables.config import MainFlag
from trainables.errors import SweepAborted
from trainables.process import gc_disabled

PROG = "python -m sweeps.run"


@dataclass(frozen=True, kw_only=True)
class RunArgs:
    """Searches the best LoRA hyperparameters for a task: python -m sweeps.run RECIPE [flags]."""

    config: tyro.conf.OmitArgPrefixes[SweepConfig]
    resume: MainFlag[tyro.conf.FlagCreatePairsOff[bool]] = False
    """Go on with the sweep --name, from where its last process ended."""
    dry_run: MainFlag[tyro.conf.FlagCreatePairsOff[bool]] = False
    """Print what would run, and write nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one sweep; returns the process's exit code."""
    args = read_command(sys.argv[1:] if argv is None else argv)
    with gc_disabled():
        from sweeps.checks.commands import resume_command
        from sweeps.checks.preflight import check
        from sweeps.checks.resume import check_unchanged
        from sweeps.checks.run_folder import open_run
        from sweeps.cost import plan

    preflight = check(args.config, is_resumed=args.resume, needs_gpu=not args.dry_run)
    args = replace(args, config=count_steps(args.config, len(preflight.splits.train)))
    if args.resume:
        check_unchanged(args.config, preflight)
    if args.dry_run:
        print(plan.describe(args.config, preflight))
        return EXIT_DONE
    for line in plan.about_rows(preflight):
        print(line)
    with open_run(args.config, preflight, is_resumed=args.resume) as paths:
        with gc_disabled():
            from sweeps.sweep import run_sweep  # loads Ray, which early errors do without

        try:
            return run_sweep(args.config, preflight, paths, is_resumed=args.resume)
        except (SweepAborted, OSError) as ended:
            aborted = explain_end(ended)
            if not aborted.is_resumable:
                raise
            fix = f"{aborted.fix} with --resume: {resume_command(args.config)}"
            raise SweepAborted(aborted.error, fix) from ended
        except KeyboardInterrupt:
            print(f"interrupted; go on with: {resume_command(args.config)}")
            return EXIT_INTERRUPTED


def read_command(argv: Sequence[str]) -> RunArgs:
    """The config of `RECIPE [flags]`: the recipe's, or with --resume the saved one, plus flags.

    Raises:
        SweepAborted: an unknown recipe or flag, a bad value, or a resume that changes the sweep.
    """
    default, flags, prog = read_default(argv, PROG)
    args = _parse(flags, prog, default)
    if args.resume:
        from sweeps.checks import resume  # loads the study's database, which others do without

        is_named = any(flag.split("=")[0] == "--name" for flag in flags)
        saved = resume.read_saved_config(args.config, is_named=is_named)
        args = _parse(flags, prog, saved)
        args = replace(args, config=replace(args.config, tiny=saved.tiny))
        resume.check_resumable(saved, args.config)
    return args


def _parse(flags: Sequence[str], prog: str, default: SweepConfig) -> RunArgs:
    """The default is not tiny, so that --tiny is a flag that can be given."""
    return parse(RunArgs, flags, prog, RunArgs(config=replace(default, tiny=False)))


if __name__ == "__main__":
    run_command(main)
