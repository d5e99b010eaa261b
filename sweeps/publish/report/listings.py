"""The lists of a report: trials, failures, rows, settings, versions, costs and commands."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.checks.commands import write_resume_command, write_sweep_command
from sweeps.command_line.durations import format_duration
from sweeps.config import to_json
from sweeps.publish.card_facts import shorten
from sweeps.publish.load_run import SweepRun
from sweeps.publish.tables import Table, show
from sweeps.records.redact import redact
from sweeps.records.trials_csv import PARAMS, list_shown_params, rank
from trainables.data.rows import SPLITS
from trainables.metrics.registry import format_score
from trainables.shell import write_command

HIDDEN = (
    *("study_storage", "wandb_entity", "runs_dir", "recipe", "start_points"),
    *("space", "task_options"),
)
"""Settings that tell about the sweep's owner, or that other lines tell."""


def list_trials(sweep: SweepRun) -> tuple[Table, list[list[object]]]:
    """All trials, those of the last rung first, and what the cells are sorted by."""
    metric = sweep.metric
    ranked = rank(sweep.trials, metric)
    values = [trial.get_value(metric) for trial in sweep.trials]
    rows: list[list[str]] = []
    keys: list[list[object]] = []
    for trial in (*ranked, *(trial for trial in sweep.trials if trial not in ranked)):
        value, seconds = trial.get_value(metric), trial.last.gpu_seconds if trial.last else 0.0
        score = value if value is not None and math.isfinite(value) else ""
        status, reason = trial.status or sweep.unended, redact(trial.reason)
        params = list_shown_params(trial.params).values()
        rows.append(
            [
                *(trial.trial_id + " (by hand)" * trial.is_asked, status, str(trial.num_steps)),
                *(format_score(metric.name, value, values), *map(show, params)),
                *(f"{seconds:.0f}" if seconds else "", reason),
            ]
        )
        keys.append([trial.trial_id, status, trial.num_steps, score, *params, seconds, reason])
    columns = ("trial", "ended", "steps", metric.name, *PARAMS, "GPU s", "because")
    title = "All trials; a score at a lower rung does not compare with one of the last"
    return Table(title, columns, rows), keys


def list_failures(sweep: SweepRun) -> Table | None:
    failed = [t for t in (*sweep.trials, *sweep.final_runs) if t.status == "failed"]
    rows = [[t.trial_id, str(t.num_steps), redact(t.reason) or "no reason given"] for t in failed]
    return Table("Failed trials", ("trial", "last step", "reason"), rows) if rows else None


def list_rows(record: Mapping[str, Any]) -> Table:
    counts, added = record.get("rows", {}), record.get("added", {})
    rows = [[name, f"{counts[name]:,}", "used"] for name in SPLITS if name in counts]
    rows += [
        [name, f"{num:,}", "left out"] for name, num in counts.items() if name not in SPLITS and num
    ]
    rows += [[name, f"{num:,}", "added to train"] for name, num in added.items()]
    return Table("Rows", ("rows", "number", "what became of them"), rows)


def describe_cost(sweep: SweepRun) -> list[str]:
    predicted = sweep.find_last("predicted")
    lines = []
    if actual := sweep.last_turn.get("actual"):
        took = format_duration(actual["wall_s"])
        lines.append(f"{actual['gpu_hours']:.3g} GPU-hours in {took} of the last run")
    if saved := (sweep.last_turn.get("gpu_time") or {}).get("saved_by_asha_s"):
        lines.append(
            f"{format_duration(saved)} of GPU time saved by stopping trials early, against "
            "training each to its end at the completed ones' mean"
        )
    if predicted is not None:
        low, high = (format_duration(predicted[name]) for name in ("wall_low_s", "wall_high_s"))
        told_s = format_duration(predicted["wall_s"])
        lines.append(f"Predicted before the first trial: {told_s} ({low} to {high})")
    return lines


def list_settings(sweep: SweepRun) -> Table:
    """The config, without what tells about its owner's machine."""
    values: dict[str, Any] = to_json(sweep.config)
    rows = [
        [name, redact(shorten(value) if name in ("data", "model") else show(value))]
        for name, value in (values | values["space"] | values["task_options"]).items()
        if name not in HIDDEN and value is not None
    ]
    return Table("Settings of the sweep", ("setting", "value"), rows)


def list_versions(record: Mapping[str, Any]) -> Table:
    rows = [[name, str(version)] for name, version in record.get("versions", {}).items()]
    rows.append(["git commit", str(record.get("git_commit") or "unknown")])
    digests = record.get("digests", {}).get("rows", {})
    rows += [[f"SHA-256 of {name}", str(of.get("sha256", ""))] for name, of in digests.items()]
    return Table("Versions and digests", ("what", "value"), rows)


def list_commands(sweep: SweepRun) -> list[tuple[str, str]]:
    """What the owner of the run can do next; a winner has to be there for most of it."""
    folder = sweep.paths.folder
    here = Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    run = write_command(shown)
    commands = []
    if not sweep.is_ended:
        config = replace(sweep.config, runs_dir=str(shown.parent))
        commands.append(("Resume the sweep", write_resume_command(config)))
    if sweep.outcome is not None:
        trial = sweep.outcome.winner.run.trial_id
        commands += [
            (
                "Train the winner again, alone, and compare",
                f"python -m sweeps.verify {run} {trial}",
            ),
            ("Publish the adapter", f"python -m sweeps.export {run} --to hub:USER/NAME"),
            (
                "Answer rows of your own",
                f"python -m sweeps.predict {run} --input FILE --output answers.jsonl",
            ),
            ("Ask it and the untuned base side by side", f"python -m sweeps.demo {run}"),
        ]
    commands.append(("Make this page again", f"python -m sweeps.report {run}"))
    num_added = sum(trial.is_asked for trial in sweep.trials)
    but_for = f", but for trials added by hand ({num_added})" * bool(num_added)
    commands.append((f"Repeat the sweep{but_for}", write_sweep_command(sweep.config, sweep.events)))
    quoted_home = rf"(\$?'){re.escape(str(Path.home()))}/"  # within quotes a ~ is no home
    return [(what, redact(re.sub(quoted_home, r"~/\1", text))) for what, text in commands]
