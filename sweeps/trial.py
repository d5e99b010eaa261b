"""python -m sweeps.trial samsum --lora-rank 16: one trial in this process, without Ray."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import tyro

from search_spaces.lora import WHOLE_NAMES, LoraSpace
from sweeps.checks.find_recipe import read_default_config
from sweeps.checks.preflight import check, check_recipe, check_targets
from sweeps.checks.run_args import check_flags
from sweeps.cli import EXIT_NO_TRIAL, JsonFlag, Result, parse, run_command
from sweeps.config import SweepConfig, count_steps, fill_point
from sweeps.records.events import make_params_fields, make_report_fields
from trainables.config import Hyperparameters, MainFlag, OutputFlag, TrialConfig, TrialReport
from trainables.data.prepared_rows import write_rows
from trainables.errors import TrialFailed
from trainables.metrics.registry import format_score
from trainables.process import make_cpu_environment, train_in_this_process

PROG = "python -m sweeps.trial"
TRIAL_ID = "trial"


@dataclass(frozen=True, kw_only=True)
class SweepOfTrial(SweepConfig):
    """A sweep of which one point is trained, so that the bounds of its space are no flags."""

    space: tyro.conf.Suppress[LoraSpace]
    checkpoints: tyro.conf.Suppress[str | None] = None
    """A trial alone keeps all on this disk."""


@dataclass(frozen=True, kw_only=True)
class TrialArgs:
    """Trains one trial as a sweep would, in this process: python -m sweeps.trial RECIPE [flags].

    The same model, data, seed and hyperparameters give the losses that they give inside a sweep,
    to rounding. Where two tokens are nearly as likely, rounding decides how an answer goes on, and
    a score may move by a point or so.
    """

    config: tyro.conf.OmitArgPrefixes[SweepOfTrial]
    params: MainFlag[tyro.conf.OmitArgPrefixes[Hyperparameters]]
    json: OutputFlag[JsonFlag] = False


def main(argv: Sequence[str] | None = None) -> Result:
    """Trains the trial, prints its reports as they come, and returns them."""
    args = read_command(sys.argv[1:] if argv is None else argv)
    config: SweepConfig = replace(args.config, wandb="disabled", track="none", checkpoints=None)
    preflight = check(config, is_resumed=False, has_ray=False)
    check_targets(args.params.target_modules, preflight.model)
    config = count_steps(config, len(preflight.splits.train))
    paths = config.paths
    write_rows(paths.rows, preflight.splits)
    folder = paths.get_trial_folder(TRIAL_ID)
    trial = TrialConfig(
        trial_id=TRIAL_ID, params=args.params, settings=config.settings, folder=folder
    )
    is_packed = config.engine == "packed"
    train_in_this_process(make_cpu_environment() if is_packed else {"OMP_NUM_THREADS": "1"})
    reports: list[dict[str, Any]] = []

    def take(report: TrialReport) -> None:
        reports.append(make_report_fields(report))
        metrics = sorted(report.metrics.items())
        scores = "  ".join(f"{name} {format_score(name, value)}" for name, value in metrics)
        print(
            f"step {report.step}: train_loss {report.train_loss:.4f}  {scores}  "
            f"({report.tokens_per_s:,.0f} tokens/s, {report.peak_gib:.2f} GiB, "
            f"{report.seconds:.0f} s)",
            flush=True,
        )

    facts = {"folder": folder, "params": make_params_fields(args.params), "reports": reports}
    try:
        if is_packed:
            from trainables.packing.service import in_process  # loads torch, as the next does

            in_process.train(trial, take)
        else:
            from trainables.solo import trainer

            trainer.train(trial, take)
    except TrialFailed as failed:
        print(f"the trial failed: {failed}", file=sys.stderr)
        return Result({**facts, "failed": str(failed)}, EXIT_NO_TRIAL)
    print(f"checkpoints: {folder}")
    return Result({**facts, "failed": None})


def read_command(argv: Sequence[str]) -> TrialArgs:
    """The config and hyperparameters of `RECIPE [flags]`, by default its last whole start point.

    Raises:
        SweepAborted: an unknown recipe or flag, a bad value, or flags that contradict.
    """
    config, flags, prog = read_default_config(argv, PROG)
    check_recipe(config)
    whole = [point for point in config.start_points if set(point) >= WHOLE_NAMES]
    params = fill_point({"target_modules": config.space.target_modules[0], **(whole or [{}])[-1]})
    sweep = SweepOfTrial(**vars(config) | {"tiny": False})
    default = TrialArgs(config=sweep, params=params)
    args = parse(TrialArgs, flags, prog, default)
    check_flags(args.config, flags)
    return args


if __name__ == "__main__":
    run_command(main, repeat_with="with another --name")
