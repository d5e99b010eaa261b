"""Whether a sweep can be resumed: only as it began, or its trials would not compare."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.checks import sweep_json
from sweeps.checks.digests import model_record, rows_record
from sweeps.checks.preflight import Preflight
from sweeps.config import SweepConfig, data_source
from sweeps.records.paths import RunPaths
from trainables.data.files import first_line
from trainables.data.rows import SPLITS, Splits
from trainables.errors import SweepAborted


def check_unchanged(config: SweepConfig, preflight: Preflight) -> None:
    """Refuses a resume whose rows or model are not those that its sweep began with.

    The run has its own copy of the rows, so data that is gone is no matter; data that is still
    there and gives other rows is, since the user may expect them to be trained on.

    Args:
        preflight: with the run's own rows.

    Raises:
        SweepAborted: names the split or the model's file that differs.
    """
    paths = RunPaths.of(config.runs_dir, config.name)
    began: Mapping[str, Mapping[str, Any]] = sweep_json.read(paths)["digests"]
    changed = _changed_splits(began["rows"], preflight.splits)
    if changed:
        raise SweepAborted(
            f"the rows in {paths.rows} are not those that this sweep began with: {changed}",
            "put the folder back as the sweep wrote it, or begin a new sweep with another --name",
        )
    _check_data(config, preflight, began["rows"], paths.rows)
    then, now = began["model"], model_record(config.model)
    files = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    if files:
        raise SweepAborted(
            f"the model {config.model} is not what it was when this sweep began; other contents: "
            f"{', '.join(files)}",
            "put its files back as they were, or begin a new sweep with another --name",
        )


def _check_data(
    config: SweepConfig, preflight: Preflight, began: Mapping[str, Any], folder: Path
) -> None:
    """Compares what the user's data gives now; of the Hub's if it can be reached or is cached."""
    source = data_source(config.data)
    is_here = source is not None and Path(source).exists()
    name = source or preflight.task.dataset
    try:
        changed = _changed_splits(began, preflight.task.load(source))
    except (SweepAborted, OSError) as refused:
        told = refused.error if isinstance(refused, SweepAborted) else first_line(refused)
        changed = told if is_here else ""
    if changed:
        raise SweepAborted(
            f"the data {name} does not give the rows that this sweep began with: {changed}",
            f"put it back as it was; or take it away to go on with the rows in {folder}; or begin "
            "a new sweep with another --name",
        )


def _changed_splits(began: Mapping[str, Mapping[str, Any]], splits: Splits) -> str:
    """The splits whose rows differ, with their numbers then and now; "" if none does."""
    now = rows_record(splits)
    return ", ".join(
        f"{name} ({began[name]['num']:,} rows before, {now[name]['num']:,} now)"
        for name in SPLITS
        if began[name]["sha256"] != now[name]["sha256"]
    )
