"""A run's files on object storage: kept there while its driver runs, and fetched by the next one.

Packs put checkpoints there themselves, see trainables.checkpoint_storage. The log, and whatever
else is small, is copied as a whole once it has changed. The study and the trackers' files are
replays of the log.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sweeps.records.paths import OF_TRACKERS, RunPaths
from sweeps.records.run_lock import abort_if_driven, parse_heartbeat
from sweeps.records.trial_record import TrialRecord
from trainables import storage
from trainables.checkpoint_storage import SET_ASIDE, set_aside
from trainables.errors import SweepAborted
from trainables.files import parse_json

INTERVAL_S = 2.0
"""Between two looks for files that have changed: what the death of the driver's machine costs."""

_log = logging.getLogger(__name__)


@contextmanager
def mirror_run(paths: RunPaths, url: str | None) -> Iterator[None]:
    """Copies the run's files to a URL, and again when they change; nobody waits for it but the end.

    Args:
        url: of the run; None does nothing.

    Raises:
        SweepAborted: the storage could not be written in the end.
    """
    if url is None:
        yield
        return
    copied: dict[Path, tuple[int, int]] = {}
    _copy_changes(paths, url, copied)  # nodes read the rows there
    has_ended = threading.Event()

    def follow() -> None:
        while not has_ended.wait(INTERVAL_S):
            if not _copy_if_ours(paths, url, copied):
                os.kill(os.getpid(), signal.SIGINT)  # ends this driver, as Ctrl-C does
                return

    thread = threading.Thread(target=follow, name="mirror", daemon=True)
    thread.start()
    copy_last: Callable[..., object] = _copy_if_ours
    try:
        yield
        copy_last = _copy_changes
    finally:
        has_ended.set()
        thread.join()
        copy_last(paths, url, copied)


def fetch_run(paths: RunPaths, url: str) -> None:
    """Has the run's files on this disk, unless its log is further here.

    Raises:
        SweepAborted: the storage cannot be read, or has another run than this disk.
    """
    record = storage.read_file(f"{url}/{paths.sweep_json.name}")
    own_record = paths.sweep_json.read_bytes() if paths.sweep_json.is_file() else record
    if record is not None and own_record is not None and _read_id(own_record) != _read_id(record):
        raise SweepAborted(
            f"{url} has another run than {paths.folder}, which would be overwritten",
            "go on with that run in another folder: --runs-dir DIR",
        )
    beat = storage.read_file(f"{url}/{paths.heartbeat.name}")
    there = storage.read_file(f"{url}/{paths.events.name}") or b""
    is_here = paths.sweep_json.is_file() and paths.events.is_file()
    if not is_here or not paths.events.read_bytes().startswith(there):
        ends = (paths.sweep_json.name, paths.events.name)  # without them it is fetched again
        storage.fetch_files(url, paths.folder, without=paths.checkpoints.name, last=ends)
    if beat is not None and paths.folder.is_dir():  # of a driver that may live
        paths.heartbeat.write_bytes(beat)


def set_unlogged_aside(url: str, records: Sequence[TrialRecord], rungs: Sequence[int]) -> None:
    """Has no trial go on from checkpoints that the log does not lead to, and keeps them: a driver
    that died had not copied all, or the log has lost lines.

    Its trials may be proposed otherwise now, and a trial reports at every rung.

    Raises:
        SweepAborted: the storage cannot be written.
    """
    by_id = {record.trial_id: record for record in records}

    def is_stale(trial_id: str, step: int) -> bool:
        record = by_id.get(trial_id)
        if record is None or record.status is not None:
            return record is None
        return step > min((rung for rung in rungs if rung > record.num_steps), default=step)

    if trials := set_aside(f"{url}/checkpoints", is_stale):
        _log.warning(
            "the log lacks reports of checkpoints at %s, which are renamed to %s...; trained again "
            "from there: %s",
            *(url, SET_ASIDE, ", ".join(trials)),
        )


def _copy_if_ours(paths: RunPaths, url: str, copied: dict[Path, tuple[int, int]]) -> bool:
    """Copies what has changed, and warns if that cannot be done; False if another driver goes on
    with the run, as one does that did not hear of this one for long.

    It may have begun while a copy failed, so that is asked before each try.
    """
    error = ""
    for wait_s in (*storage.RETRY_WAITS_S, 0.0):
        try:
            beat = storage.read_file(f"{url}/{paths.heartbeat.name}")
        except SweepAborted as failed:
            error = failed.error
            break
        try:
            abort_if_driven(parse_heartbeat(beat or b""), url, has_locks=False)
        except SweepAborted as taken:
            _log.warning("%s; this driver ends", taken.error)
            return False
        try:
            _copy_changes(paths, url, copied, is_repeated=False)
            return True
        except SweepAborted as failed:
            error = failed.error
            time.sleep(wait_s)
    _log.warning("%s; it is tried again, and %s has all of it", error, paths.folder)
    return True


def _read_id(content: bytes) -> object:
    """The sweep_id in a sweep.json; None if it is damaged."""
    try:
        record = parse_json(content)
    except ValueError:
        return None
    return record.get("sweep_id") if isinstance(record, dict) else None


def _copy_changes(
    paths: RunPaths, url: str, copied: dict[Path, tuple[int, int]], *, is_repeated: bool = True
) -> None:
    """Makes the files there the same as here, unless the run was deleted here.

    Args:
        copied: when each of them was written that was copied, and its size.
        is_repeated: whether a copy that fails is tried again.
    """
    present = {}
    for path in _list_files(paths):
        with contextlib.suppress(FileNotFoundError):  # it was replaced meanwhile
            status = path.stat()
            present[path] = (status.st_mtime_ns, status.st_size)
    if {paths.sweep_json, paths.events} & (copied.keys() - present.keys()):
        return  # the run was deleted here, and what is there is all that is left of it
    for path, state in present.items():
        if copied.get(path) != state:
            with contextlib.suppress(FileNotFoundError):
                place = f"{url}/{path.relative_to(paths.folder).as_posix()}"
                storage.put_file(place, path, is_repeated=is_repeated)
                copied[path] = state
    for path in copied.keys() - present.keys():
        storage.delete(f"{url}/{path.relative_to(paths.folder).as_posix()}")
        del copied[path]


def _list_files(paths: RunPaths) -> Iterator[Path]:
    left_out = {paths.folder / name for name in (paths.checkpoints.name, *OF_TRACKERS)}
    for folder, folders, names in os.walk(paths.folder):
        shown = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in shown if Path(folder, name) not in left_out]
        for name in names:
            if not name.startswith((".", paths.optuna_db.name)):
                yield Path(folder, name)
