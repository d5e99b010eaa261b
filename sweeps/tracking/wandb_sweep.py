"""The W&B sweep that a search's runs belong to: made once, online, and kept in the run folder."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.config import SweepConfig
from trainables.config import Metric
from trainables.files import parse_json, write_json

SWEEP_FILE = "sweep.json"
"""Beside W&B's own files: the sweep's id and where it is, so that a resume adds to the same."""
CREATE_TIMEOUT_S = 30.0

# wandb.sweep prints, and changes the environment of its process, where the progress table is shown
# meanwhile: so it has a process of its own.
_PROGRAM = """
import contextlib, json, os, sys, wandb
config, project, entity, prior_runs = json.load(sys.stdin)
bounds = {"x_graphql_retry_max": 1, "x_graphql_retry_wait_max_seconds": 1}
wandb.setup(wandb.Settings(silent=True, mode="online", x_graphql_timeout_seconds=10, **bounds))
with contextlib.redirect_stdout(sys.stderr):
    sweep_id = wandb.sweep(config, entity=entity, project=project, prior_runs=prior_runs)
print(json.dumps(sweep_id))
"""


class SweepRefused(Exception):
    """W&B makes no sweep."""


def describe_sweep(config: SweepConfig, metric: Metric, name: str) -> dict[str, Any]:
    """What W&B is told of a search, in its words; Optuna proposes, so the method is never used.

    The parameters are keys of each run's config, and the metric is one of its summary: from these
    W&B draws parallel coordinates and importance.
    """
    method = f"proposed by Optuna ({config.sampler}), stopped early by ASHA"
    low, high = config.space.learning_rates
    rate = {"distribution": "log_uniform_values", "min": low, "max": high}
    parameters: dict[str, Any] = {"learning_rate": rate if low < high else {"value": low}}
    for key, values in config.space.choices.items():
        parameters[key] = {"values": list(values)} if values[1:] else {"value": values[0]}
    return {
        "name": name,
        "description": f"{config.recipe} with {config.model}: {method}",
        "method": "random",
        "metric": {"name": metric.name, "goal": metric.direction},
        "parameters": parameters,
    }


def find_sweep(folder: Path, place: dict[str, str | None]) -> str | None:
    """The id of the sweep that was made before; None if there is none in that place.

    Args:
        folder: of W&B's files in the run.
        place: server, entity and project.
    """
    try:
        known = parse_json((folder / SWEEP_FILE).read_text(encoding="utf-8"))
        return str(known["id"]) if place.items() <= known.items() else None
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def make_sweep(
    folder: Path,
    place: dict[str, str | None],
    config: dict[str, Any],
    prior_runs: Sequence[str] = (),
) -> str:
    """Makes the sweep and keeps its id.

    Args:
        prior_runs: ids of runs that are there already and belong to it.

    Raises:
        SweepRefused: W&B does not make it, or not in time.
    """
    request = json.dumps([config, place["project"], place["entity"], list(prior_runs) or None])
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROGRAM],
            input=request,
            capture_output=True,
            text=True,
            timeout=CREATE_TIMEOUT_S,
            start_new_session=True,  # Ctrl-C is for the sweep, which ends this with itself
        )
    except subprocess.TimeoutExpired:
        raise SweepRefused(f"no answer in {CREATE_TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        raise SweepRefused(next(filter(None, reversed(done.stderr.split("\n"))), "without a word"))
    sweep_id: str = json.loads(done.stdout)
    folder.mkdir(exist_ok=True)
    write_json(folder / SWEEP_FILE, {"id": sweep_id, **place})
    return sweep_id
