"""A sweep's checkpoints on object storage: published, fetched by another node, deleted.

A checkpoint is published into a folder of a name of its own, its report last, so that a reader
meets whole ones only, whenever the writer is cut off and whoever else writes.
"""

import hashlib
import re
import shutil
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from trainables.checkpoint import (
    ADAPTER_NAMES,
    MARKS,
    NUM_KEPT,
    REPORT_NAME,
    TMP_SUFFIX,
    delete_all_but,
    get_checkpoint_folder,
)
from trainables.storage import find_files, open_url, put_file, retry

SET_ASIDE = "unlogged-"
"""Begins the name of a checkpoint that the log does not lead to."""


class Published(NamedTuple):
    """A checkpoint on storage."""

    trial_id: str
    step: int
    path: str
    """In its file system."""
    files: Collection[str]
    """Their names."""

    @property
    def mark(self) -> str:
        """The file that makes it count; empty if it is not complete."""
        return next((name for name in MARKS if name in self.files), "")


def publish(url: str | None, checkpoint: Path, *, has_ended: bool) -> None:
    """Copies a complete checkpoint, and deletes what its trial needs no more.

    Args:
        url: of the trial's checkpoints; None where the folder is what nodes share.
        has_ended: whether the trial has; see prune.

    Raises:
        SweepAborted: the storage cannot be written.
    """
    if url is None:
        return
    mark = next(path for name in MARKS if (path := checkpoint / name).is_file())
    name = f"{checkpoint.name}-{hashlib.sha256(mark.read_bytes()).hexdigest()[:8]}"
    # one that was saved at a rung before it was scored has the other mark too, which would count
    files = [path for path in checkpoint.iterdir() if path.name not in MARKS]
    for path in (*files, mark):
        put_file(f"{url}/{name}/{path.name}", path)
    prune(url, [checkpoint.parent.name], have_ended=has_ended)


@retry
def prune(url: str, trial_ids: Collection[str], *, have_ended: bool) -> None:
    """Leaves of trials what keep_last leaves on a disk, or prune_to_adapter once they have ended.

    Args:
        url: of the checkpoints of one trial, or of all.

    Raises:
        SweepAborted: the storage cannot be written.
    """
    fs, root = open_url(url)
    by_trial = defaultdict(list)
    for one in _list_published(fs, root):
        by_trial[one.trial_id].append(one)
    for trial_id in by_trial.keys() & set(trial_ids):
        complete = [one for one in by_trial[trial_id] if one.mark == REPORT_NAME]
        marked = [one for one in by_trial[trial_id] if one.mark]
        kept = complete[-1:] if have_ended else [*complete[-NUM_KEPT:], *marked[-1:]]
        oldest_step = min((one.step for one in kept), default=0)
        for one in by_trial[trial_id]:
            if one in kept and have_ended:
                _delete_files(fs, one, set(one.files) - set(ADAPTER_NAMES))
            # one without a mark may be another writer's that still puts files there
            elif one not in kept and (one.mark or have_ended or one.step < oldest_step):
                _delete(fs, one)


@retry
def set_aside(url: str, is_stale: Callable[[str, int], bool]) -> list[str]:
    """Renames those of a sweep's checkpoints of which that is true, by trial and step, so that no
    trial goes on from them; their new names begin with SET_ASIDE.

    Returns:
        The trials that had any.

    Raises:
        SweepAborted: the storage cannot be written.
    """
    fs, root = open_url(url)
    stale = [one for one in _list_published(fs, root) if is_stale(one.trial_id, one.step)]
    for one in stale:
        folder, _, name = one.path.rpartition("/")
        for file in one.files:
            fs.cp_file(f"{one.path}/{file}", f"{folder}/{SET_ASIDE}{name}/{file}")
        _delete(fs, one)
    return sorted({one.trial_id for one in stale})


@retry
def fetch_last(url: str | None, folder: Path) -> None:
    """Has a trial's folder hold its last checkpoint on storage that has a report, and what was
    saved since, and no other one.

    Args:
        url: of the trial's checkpoints; None where the folder is what nodes share.

    Raises:
        SweepAborted: the storage cannot be read.
    """
    if url is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    fs, root = open_url(url)
    published = _list_published(fs, root)
    reported = [one for one in published if one.mark == REPORT_NAME][-1:]
    last_step = reported[0].step if reported else 0
    since = [one for one in published if one.mark and one.step > last_step]
    delete_all_but([_fetch(fs, one, folder) for one in (*reported, *since[-1:])], folder)


@retry
def fetch_checkpoint(run_url: str | None, checkpoint: Path, *, is_compared: bool = False) -> Path:
    """Returns the checkpoint, which is fetched first if it is on storage and not on this disk.

    Args:
        run_url: of the run; None where its folder is what nodes share.
        is_compared: whether one on this disk must be that on storage: a node may have it of an
            earlier run of the same name.

    Raises:
        SweepAborted: the storage cannot be read.
    """
    if run_url is not None and (is_compared or not (checkpoint / REPORT_NAME).is_file()):
        folder = checkpoint.parent
        fs, root = open_url(f"{run_url}/checkpoints/{folder.name}")
        reported = [one for one in _list_published(fs, root) if one.mark == REPORT_NAME]
        matches = [one for one in reported if get_checkpoint_folder(folder, one.step) == checkpoint]
        for one in matches[-1:]:
            _fetch(fs, one, folder)
    return checkpoint


def _list_published(fs: Any, root: str) -> list[Published]:
    """All checkpoints, by trial and step, also those that are not complete."""
    files = defaultdict(set)
    for path in find_files(fs, root):
        folder, _, name = path.rpartition("/")
        files[folder].add(name)
    folders = ((re.search(r"([^/]+)/checkpoint-(\d+)-[0-9a-f]{8}$", path), path) for path in files)
    return sorted(
        Published(found[1], int(found[2]), path, files[path]) for found, path in folders if found
    )


def _fetch(fs: Any, published: Published, folder: Path) -> Path:
    """The checkpoint in the trial's folder on this disk, which is not copied if it is there."""
    target = get_checkpoint_folder(folder, published.step)
    content = fs.cat_file(f"{published.path}/{published.mark}")
    mark = target / published.mark
    if mark.is_file() and mark.read_bytes() == content:
        return target
    tmp = target.with_name(f"{target.name}-{uuid.uuid4().hex[:8]}{TMP_SUFFIX}")
    tmp.mkdir(parents=True)
    for name in published.files:
        fs.get_file(f"{published.path}/{name}", str(tmp / name))
    shutil.rmtree(target, ignore_errors=True)
    return tmp.rename(target)


def _delete(fs: Any, published: Published) -> None:
    _delete_files(fs, published, set(MARKS) & set(published.files))
    fs.rm(published.path, recursive=True)


def _delete_files(fs: Any, published: Published, names: Collection[str]) -> None:
    for name in names:
        fs.rm_file(f"{published.path}/{name}")
