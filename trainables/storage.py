"""A run's files on object storage, by fsspec: what nodes share that have no folder in common.

A checkpoint is published into a folder of a name of its own, its report last, so that a reader
meets whole ones only, whenever the writer is cut off and whoever else writes.
"""

import filecmp
import hashlib
import re
import shutil
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from trainables.checkpoint import (
    ADAPTER_NAMES,
    MARKS,
    NUM_KEPT,
    REPORT_NAME,
    TMP_SUFFIX,
    checkpoint_folder,
    delete_all_but,
)
from trainables.config import TrainingSettings
from trainables.errors import REPEAT, SweepAborted, first_line

Result = TypeVar("Result")

RETRY_WAITS_S = (1.0, 5.0, 20.0)
"""Before each further try of what has failed."""
_TIMEOUTS = {"connect_timeout": 4, "read_timeout": 30, "retries": {"max_attempts": 2}}
_OPTIONS: dict[str, dict[str, Any]] = {  # others write there too, so no listing is remembered
    "s3": {"use_listings_cache": False, "config_kwargs": _TIMEOUTS},
    "gs": {"use_listings_cache": False},
    "file": {"auto_mkdir": True},
}


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


def publish(checkpoint: Path, url: str | None, *, has_ended: bool) -> None:
    """Copies a complete checkpoint, and deletes what its trial needs no more.

    Args:
        url: of the trial's checkpoints; None where the folder is what nodes share.
        has_ended: whether the trial has; see prune.

    Raises:
        SweepAborted: the storage cannot be written.
    """
    if url is None:
        return

    def put() -> None:
        fs, root = _open(url)
        mark = next(path for name in MARKS if (path := checkpoint / name).is_file())
        name = f"{checkpoint.name}-{hashlib.sha256(mark.read_bytes()).hexdigest()[:8]}"
        for path in sorted(checkpoint.iterdir(), key=lambda path: path == mark):
            _put(fs, path, f"{root}/{name}/{path.name}")

    _retry(url, put)
    prune(url, [checkpoint.parent.name], have_ended=has_ended)


def prune(url: str, trial_ids: Collection[str], *, have_ended: bool) -> None:
    """Leaves of trials what keep_last leaves on a disk, or prune_to_adapter once they have ended.

    Args:
        url: of the checkpoints of one trial, or of all.

    Raises:
        SweepAborted: the storage cannot be written.
    """

    def delete() -> None:
        fs, root = _open(url)
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

    _retry(url, delete)


def delete_checkpoints(url: str, is_stale: Callable[[str, int], bool]) -> None:
    """Deletes those of a sweep's checkpoints of which that is true, by trial and step.

    Raises:
        SweepAborted: the storage cannot be written.
    """

    def delete() -> None:
        fs, root = _open(url)
        for one in _list_published(fs, root):
            if is_stale(one.trial_id, one.step):
                _delete(fs, one)

    _retry(url, delete)


def fetch_last(folder: Path, url: str | None) -> None:
    """Has a trial's folder hold its last checkpoint on storage that has a report, and what was
    saved since, and no other one.

    Args:
        url: of the trial's checkpoints; None where the folder is what nodes share.

    Raises:
        SweepAborted: the storage cannot be read.
    """

    def fetch() -> None:
        assert url is not None, "it was looked at"
        fs, root = _open(url)
        published = _list_published(fs, root)
        reported = [one for one in published if one.mark == REPORT_NAME][-1:]
        last_step = reported[0].step if reported else 0
        since = [one for one in published if one.mark and one.step > last_step]
        delete_all_but([_fetch(fs, one, folder) for one in (*reported, *since[-1:])], folder)

    if url is not None:
        folder.mkdir(parents=True, exist_ok=True)
        _retry(url, fetch)


def fetch_checkpoint(checkpoint: Path, run_url: str | None, *, is_compared: bool = False) -> Path:
    """The same folder, fetched if it is not on this disk and is on storage.

    Args:
        run_url: of the run; None where its folder is what nodes share.
        is_compared: whether one on this disk must be that on storage: a node may have it of an
            earlier run of the same name.

    Raises:
        SweepAborted: the storage cannot be read.
    """

    def fetch() -> None:
        fs, root = _open(f"{run_url}/checkpoints/{checkpoint.parent.name}")
        folder = checkpoint.parent
        reported = [one for one in _list_published(fs, root) if one.mark == REPORT_NAME]
        of_step = [one for one in reported if checkpoint_folder(folder, one.step) == checkpoint]
        for one in of_step[-1:]:
            _fetch(fs, one, folder)

    if run_url is not None and (is_compared or not (checkpoint / REPORT_NAME).is_file()):
        _retry(run_url, fetch)
    return checkpoint


def fetch_rows(settings: TrainingSettings) -> None:
    """Has the prepared rows on this disk, where no folder is shared; it may still have those of an
    earlier run of the same name.

    Raises:
        SweepAborted: the storage cannot be read.
    """
    folder = settings.rows_dir
    if settings.storage is None:
        return
    _make_folder(folder.parent)
    tmp = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    fetch_files(f"{settings.storage}/{folder.name}", tmp)
    names = [path.name for path in tmp.iterdir()]
    same, _, _ = filecmp.cmpfiles(tmp, folder, names, shallow=False)
    if same != names:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder.rename(tmp.with_name(f"{tmp.name}.old")))
        with suppress(OSError):  # another process of this node may be faster
            tmp.rename(folder)
    shutil.rmtree(tmp, ignore_errors=True)


def fetch_files(url: str, folder: Path, *, without: str = "", last: Iterable[str] = ()) -> None:
    """Copies all files under a URL into a folder.

    Args:
        without: folder there that is left out.
        last: names of files there that come last, in this order.

    Raises:
        SweepAborted: the storage cannot be read.
    """

    def fetch() -> None:
        fs, root = _open(url)
        names = [path.removeprefix(f"{root}/") for path in _find(fs, root)]
        names = [name for name in names if not name.startswith(f"{without}/")]
        if any(name.startswith("/") or ".." in name.split("/") for name in names):
            raise ValueError("a name there leads out of the folder")
        if names:
            _make_folder(folder)
        ends = list(last)
        for name in sorted(names, key=lambda name: ends.index(name) if name in ends else -1):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            tmp = path.with_name(f".{path.name}{TMP_SUFFIX}")
            fs.get_file(f"{root}/{name}", str(tmp))
            tmp.replace(path)

    _retry(url, fetch)


def read_file(url: str) -> bytes | None:
    """What a file holds; None if there is none.

    Raises:
        SweepAborted: the storage cannot be read.
    """

    def read() -> bytes | None:
        fs, path = _open(url)
        fs.invalidate_cache()
        content: bytes | None = fs.cat_file(path) if fs.exists(path) else None
        return content

    return _retry(url, read)


def list_names(url: str) -> list[str]:
    """The files and folders right under a URL; none if it is not there.

    Raises:
        SweepAborted: the storage cannot be read.
    """

    def read() -> list[str]:
        fs, path = _open(url)
        fs.invalidate_cache()
        found = fs.ls(path, detail=False) if fs.exists(path) else []
        return sorted(Path(name).name for name in found)

    return _retry(url, read)


def put_file(path: Path, url: str, *, is_repeated: bool = True) -> None:
    """Copies a file, which appears at once.

    Args:
        is_repeated: whether what fails is tried again.

    Raises:
        SweepAborted: the storage cannot be written.
    """

    def put() -> None:
        fs, target = _open(url)
        _put(fs, path, target)

    _retry(url, put, None if is_repeated else ())


def delete(url: str) -> None:
    """Deletes a file, or all under a URL; it may be gone already.

    Raises:
        SweepAborted: the storage cannot be written.
    """

    def remove() -> None:
        fs, path = _open(url)
        fs.invalidate_cache()
        if fs.exists(path):
            fs.rm(path, recursive=True)

    _retry(url, remove)


def check_writable(url: str) -> None:
    """Writes a file there and deletes it again.

    Raises:
        SweepAborted: it cannot, or what reads such URLs is not installed.
    """
    scheme = url.partition("://")[0]
    try:
        fs, root = _open(url)
        probe = f"{root}/.probe-{uuid.uuid4().hex[:8]}"
        fs.pipe_file(probe, b"")
        fs.rm_file(probe)
    except ImportError as missing:
        raise SweepAborted(
            f"{url} cannot be reached: {first_line(missing)}", f"pip install '.[{scheme}]'"
        ) from None
    except Exception as refused:  # those of boto, Google and aiohttp have no class in common
        fix = "check that the bucket exists, and that this machine's credentials may write there"
        fix = "name a folder that can be written" if scheme == "file" else fix
        raise SweepAborted(f"{url} cannot be written: {_explain(refused)}", fix) from None


def find_write_fault(url: str) -> str:
    """Why check_writable refuses a URL; empty if it does not."""
    try:
        check_writable(url)
    except SweepAborted as refused:
        return refused.error
    return ""


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    import fsspec  # which runs without storage do without

    fs, path = fsspec.url_to_fs(url, **_OPTIONS.get(url.partition("://")[0], {}))
    return fs, path.rstrip("/")


def _make_folder(folder: Path) -> None:
    """It may hold rows, which are for their user, and a group that the umask lets in."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o770, exist_ok=True)


def _retry(url: str, do: Callable[[], Result], waits_s: Sequence[float] | None = None) -> Result:
    for wait_s in RETRY_WAITS_S if waits_s is None else waits_s:
        try:
            return do()
        except Exception:  # those of boto, Google and aiohttp have no class in common
            time.sleep(wait_s)
    try:
        return do()
    except Exception as refused:
        raise SweepAborted(
            f"the storage {url} cannot be used: {_explain(refused)}",
            f"see that it answers, has room, and takes these credentials, {REPEAT}",
        ) from refused


def _explain(refused: Exception) -> str:
    return f"{type(refused).__name__}: {first_line(refused)}"


def _put(fs: Any, path: Path, target: str) -> None:
    """An object appears whole; a file on a disk has to be renamed."""
    if "file" in fs.protocol:
        fs.put_file(str(path), target + TMP_SUFFIX)
        fs.mv(target + TMP_SUFFIX, target)
    else:
        fs.put_file(str(path), target)


def _find(fs: Any, root: str) -> list[str]:
    """All files, but for those on a disk that are being written."""
    fs.invalidate_cache()
    return [path for path in fs.find(root) if not path.endswith(TMP_SUFFIX)]


def _list_published(fs: Any, root: str) -> list[Published]:
    """All checkpoints, by trial and step, also those that are not complete."""
    files = defaultdict(set)
    for path in _find(fs, root):
        folder, _, name = path.rpartition("/")
        files[folder].add(name)
    folders = ((re.search(r"([^/]+)/checkpoint-(\d+)-[0-9a-f]{8}$", path), path) for path in files)
    return sorted(
        Published(found[1], int(found[2]), path, files[path]) for found, path in folders if found
    )


def _fetch(fs: Any, published: Published, folder: Path) -> Path:
    """The checkpoint in the trial's folder on this disk, which is not copied if it is there."""
    target = checkpoint_folder(folder, published.step)
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
