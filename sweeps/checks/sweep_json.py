"""sweep.json: what was asked for, on what; written before the first trial."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sweeps.config import SweepConfig, from_json, to_json
from sweeps.records.paths import RunPaths
from sweeps.records.redact import hide_secrets
from sweeps.records.run import Run, read_record, refuse_record
from trainables.files import write_json


def dump_config(config: SweepConfig) -> dict[str, object]:
    """The config's JSON; a run's folder may be shared, so the database's password stays out."""
    url = config.study_storage
    return to_json(replace(config, study_storage=url and hide_secrets(url)))


def read_config(paths: RunPaths) -> SweepConfig:
    """The config of the run, as parse_config gives it, with the trials that sweep.json names.

    Raises:
        SweepAborted: there is none, or it is damaged or of another version.
    """
    return _parse_record(paths, read_record(paths))


def parse_config(run: Run) -> SweepConfig:
    """The config of a run, at the place where it lies now, with the trials that its log asks for.

    Raises:
        SweepAborted: it is of another version of this project.
    """
    return replace(_parse_record(run.paths, run.record), num_trials=run.num_trials)


def _parse_record(paths: RunPaths, record: Mapping[str, Any]) -> SweepConfig:
    try:
        config = from_json(record["config"])
    except (ValueError, TypeError) as refused:
        raise refuse_record(paths, refused) from None
    return replace(config, runs_dir=str(paths.folder.parent), name=paths.folder.name)


def add(paths: RunPaths, **facts: object) -> None:
    """Writes further facts into sweep.json, e.g. what was predicted."""
    write_json(paths.sweep_json, read_record(paths) | facts)
