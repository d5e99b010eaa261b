"""Whether a sweep can be resumed: only as it began, or its trials would not compare."""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from sweeps.checks import sweep_json
from sweeps.checks.commands import write_resume_command
from sweeps.checks.first_record import describe_metric, digest_model, digest_splits
from sweeps.checks.preflight import Preflight, load_rows
from sweeps.config import SweepConfig
from sweeps.records.mirror import fetch_run
from sweeps.records.paths import RunPaths, find_run
from sweeps.records.redact import HIDDEN
from sweeps.records.run import read_record, read_run
from trainables.data.lengths import fit_splits
from trainables.data.rows import SPLITS, Splits
from trainables.errors import SweepAborted, get_first_line
from trainables.models.tokenizer_file import TokenizerFile
from trainables.shell import get_flag
from trainables.storage import check_writable, list_names

CHANGEABLE = frozenset(
    (
        *("num_trials", "finals", "num_finalists", "num_final_seeds", "max_failures", "estimate"),
        *("bertscore", "bertscore_encoder", "bertscore_layer"),
        *("slots_per_gpu", "gpus", "time_budget", "gpu_hours", "study_storage"),
        *("runs_dir", "name", "track", "wandb", "wandb_project", "wandb_entity"),
    )
)
"""Fields that a resume may change without making its trials incomparable."""

_HIDDEN_PASSWORD = rf"(?<=:)\*\*\*(?=@)|{HIDDEN}"
"""What sweep.json has of a password; earlier versions wrote stars."""

_log = logging.getLogger(__name__)


def read_saved_config(
    asked: SweepConfig,
    *,
    is_named: bool,
    tell_resume: Callable[[SweepConfig], str] = write_resume_command,
) -> SweepConfig:
    """The config of the run to resume, at the place where it lies now.

    Args:
        tell_resume: how a sweep goes on, in words to paste.
    """
    paths = find_run(asked.paths.folder)
    url = asked.storage
    if url is None and os.path.isfile(paths.sweep_json):
        url = sweep_json.read_config(paths).storage
    if url is not None:
        check_writable(url)  # a read is tried for half a minute
        fetch_run(paths, url)
    if not os.path.isfile(paths.sweep_json):  # a recipe may give a fixed name
        records = filter(os.path.isfile, Path(asked.runs_dir).glob("[!.]*/sweep.json"))
        names = sorted(path.parent.name for path in records)
        is_missing = f"there is no sweep {asked.name!r} in {asked.runs_dir}"
        raise SweepAborted(
            is_missing if is_named else "--resume needs the name of the sweep",
            f"--name with one of: {', '.join(names[-8:])}" if names else "begin a new sweep",
        )
    run = read_run(paths)
    has_lost_log = not run.events and paths.optuna_db.exists()  # made after the first event
    if has_lost_log or (not run.trials and _has_checkpoints(paths.checkpoints, url)):
        raise SweepAborted(
            f"{paths.events} tells of no trial, but the sweep has begun",
            "restore that file from a copy, or begin a new sweep with another --name",
        )
    config = sweep_json.parse_config(run)
    config = replace(config, runs_dir=asked.runs_dir, name=asked.name)
    if asked.checkpoints is not None and config.checkpoints is not None:  # it was moved
        config = replace(config, checkpoints=asked.checkpoints)
    # a recipe file may have been moved since, so that its name alone counts
    if Path(config.recipe).name != Path(asked.recipe).name:
        raise SweepAborted(
            f"the sweep {asked.name!r} is of the recipe {config.recipe}, not of {asked.recipe}",
            tell_resume(config),
        )
    return config


def _has_checkpoints(folder: Path, url: str | None) -> bool:
    """Whether a trial has any, here or on the run's object storage."""
    if any(folder.glob("t*")):
        return True
    return url is not None and any(n.startswith("t") for n in list_names(f"{url}/checkpoints"))


def check_resumable(saved: SweepConfig, asked: SweepConfig) -> None:
    """Refuses a resume that would mix trials of two sweeps, as a field differs that decides what a
    score means, or without the password of the study storage."""
    changed = _list_differing(saved, asked, CHANGEABLE | {"space", "task_options"})
    changed += _list_differing(saved.space, asked.space)
    changed += _list_differing(saved.task_options, asked.task_options)
    if changed:
        flags = ", ".join(map(get_flag, changed))
        raise SweepAborted(
            f"a resumed sweep keeps its settings, but these differ: {flags}",
            "leave them out, or begin a new sweep with another --name",
        )
    url = asked.study_storage
    if url and re.search(_HIDDEN_PASSWORD, url):
        raise SweepAborted(
            "the study storage needs its password, which sweep.json does not keep",
            f"give it again: --study-storage {re.sub(_HIDDEN_PASSWORD, 'PASSWORD', url)}",
        )


def _list_differing(saved: Any, asked: Any, left_out: frozenset[str] = frozenset()) -> list[str]:
    names = [f.name for f in fields(saved) if f.name not in left_out]
    return [name for name in names if getattr(saved, name) != getattr(asked, name)]


def check_unchanged(config: SweepConfig, preflight: Preflight) -> None:
    """Refuses a resume whose rows or model are not those that its sweep began with.

    The run has its own copy of the rows, so data that is gone is no matter; data that is still
    there and gives other rows is, since the user may expect them to be trained on.

    Args:
        preflight: with the run's own rows.
    """
    paths = config.paths
    began = _read_digests(paths, "rows", SPLITS)
    changed = _describe_changed_splits(began, preflight.splits)
    if changed:
        raise SweepAborted(
            f"the rows in {paths.rows} are not those that this sweep began with: {changed}",
            "put the folder back as the sweep wrote it, or begin a new sweep with another --name",
        )
    check_model(paths, config.model)
    data = [config.data] if isinstance(config.data, str) else list(config.data or ())
    paraphrases = config.task_options.paraphrases
    files = [*data, *([paraphrases] if paraphrases else [])]
    try:  # the user's data; of the Hub's, if that can be reached or is cached
        tokenizer = TokenizerFile(config.model)
        given = fit_splits(tokenizer, load_rows(config, preflight.task), config)
        changed = _describe_changed_splits(began, given)
    except (SweepAborted, OSError) as refused:
        is_here = bool(data) and all(map(os.path.exists, files))
        reason = refused.error if isinstance(refused, SweepAborted) else get_first_line(refused)
        changed = reason if is_here else ""
    if changed:
        raise SweepAborted(
            f"the data {', '.join(files) or preflight.task.dataset} does not give the rows that "
            f"this sweep began with: {changed}",
            f"put it back as it was; or take it away to go on with the rows in {paths.rows}; or "
            "begin a new sweep with another --name",
        )


def check_model(paths: RunPaths, model: str) -> None:
    """Refuses a model whose files are not those that the run began with."""
    then, now = _read_digests(paths, "model", ["config.json"]), digest_model(model)
    # of a Hub model only config.json is digested; one may be in a folder here by now
    names = then.keys() & now.keys() if 1 in (len(then), len(now)) else {**then, **now}
    files = [name for name in names if then.get(name) != now.get(name)]
    if files:
        raise SweepAborted(
            f"the model {model} is not what it was when this sweep began; other contents: "
            f"{', '.join(files)}",
            "put its files back as they were, or begin a new sweep with another --name",
        )


def _read_digests(paths: RunPaths, of: str, names: Sequence[str]) -> Mapping[str, Any]:
    """What sweep.json has of rows or the model, with all names."""
    digests: Mapping[str, Any] = read_record(paths)["digests"].get(of, {})
    if missing := [name for name in names if name not in digests]:
        raise SweepAborted(
            f"{paths.sweep_json} has lost the digests of {of}: {', '.join(missing)}",
            "restore it from a copy, or begin a new sweep with another --name",
        )
    return digests


def _describe_changed_splits(began: Mapping[str, Mapping[str, Any]], splits: Splits) -> str:
    """The splits whose rows differ, with their numbers then and now; "" if none does."""
    now = digest_splits(splits)
    return ", ".join(
        f"{name} ({began[name]['num']:,} rows before, {now[name]['num']:,} now)"
        for name in SPLITS
        if began[name]["sha256"] != now[name]["sha256"]
    )


def check_metric(saved: Mapping[str, Any], preflight: Preflight) -> None:
    """Refuses a resume whose new scores would not compare with those that are there.

    Other versions of a library or of Unicode's tables are only warned of: they may move a few
    rows' scores, and a machine that is updated in the middle of a sweep has them for good.

    Args:
        saved: the metric in sweep.json; a run of an older version has no fingerprint to compare.
    """
    now = describe_metric(preflight)
    if saved.get("fingerprint", now["fingerprint"]) == now["fingerprint"]:
        return
    changed = [name for name in now if name != "fingerprint" and saved.get(name) != now[name]]
    changes = ", ".join(
        f"{'its code' if name == 'rules' else name} {_describe_change(saved.get(name), now[name])}"
        for name in changed
    )
    if changed != ["versions"]:
        raise SweepAborted(
            f"the metric {now['name']} is not what it was when this sweep began: {changes}",
            "resume with the data and the version of this project that it began with "
            "(git_commit in sweep.json), or begin a new sweep with another --name",
        )
    _log.warning("scores from now on may differ slightly from those before: %s", changes)


def _describe_change(before: object, now: object) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return ", ".join(f"{name} {before.get(name)} -> {now.get(name)}" for name in names)
    return f"{before} -> {now}"
