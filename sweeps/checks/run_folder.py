"""The run's folder: whole from its first moment, and held by one process."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sweeps.checks import sweep_json
from sweeps.checks.first_record import describe_metric, make_first_record
from sweeps.checks.preflight import Preflight
from sweeps.checks.resume import check_metric
from sweeps.config import SweepConfig
from sweeps.records.events import read_events
from sweeps.records.mirror import mirror_run, set_unlogged_aside
from sweeps.records.paths import RunPaths
from sweeps.records.run import read_record
from sweeps.records.run_lock import lock_run
from sweeps.records.trial_record import replay, replay_all
from trainables import storage
from trainables.data.prepared_rows import write_rows
from trainables.data.rows import Splits
from trainables.errors import SweepAborted
from trainables.files import write_json


@contextmanager
def open_run(config: SweepConfig, preflight: Preflight, *, is_resumed: bool) -> Iterator[RunPaths]:
    """Holds the run's folder while the sweep runs; gives its paths.

    A new run's folder appears with its sweep.json and its rows inside, so that every run can be
    resumed. What is found wrong before the first trial begins, say that the cluster has no GPU,
    takes it away, unless the remedy is to resume it.

    Raises:
        SweepAborted: another process works on this run, its scores would not compare with those
            that it has, or the folder cannot be made.
    """
    paths = config.paths
    if is_resumed:
        record = read_record(paths) | {"config": sweep_json.dump_config(config)}
        if _has_trials(paths):
            check_metric(record.get("metric", {}), preflight)
        else:
            record["metric"] = describe_metric(preflight)
    else:
        record = make_first_record(config, preflight)
        _create_folder(paths, record, preflight.splits)
    url = config.storage
    with lock_run(paths, "sweep", is_known_by_beat=url is not None):
        write_json(paths.sweep_json, record)
        if is_resumed and url is not None:
            set_unlogged_aside(url, replay_all(read_events(paths.events)), config.rungs)
        try:
            with mirror_run(paths, url):
                yield paths
        except SweepAborted as aborted:
            is_kept = is_resumed or aborted.is_resumable or _has_trials(paths)
            if not is_kept and paths.sweep_json.is_file():  # else it was deleted, with its trials
                shutil.rmtree(paths.folder, ignore_errors=True)
                if url is not None:
                    storage.delete(url)
            raise


def _create_folder(paths: RunPaths, record: dict[str, object], splits: Splits) -> None:
    tmp = paths.folder.with_name(f".{paths.folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        tmp.parent.mkdir(parents=True, exist_ok=True)
        tmp.mkdir(mode=0o770)  # its rows are for its user, and a group that the umask lets in
        write_rows(tmp / paths.rows.name, splits)
        write_json(tmp / paths.sweep_json.name, record)
        os.rename(tmp, paths.folder)
    except BaseException as error:
        shutil.rmtree(tmp, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise SweepAborted(
            f"the run folder {paths.folder} cannot be made: {error.strerror}",
            "choose another --runs-dir or --name",
        ) from None


def _has_trials(paths: RunPaths) -> bool:
    """Whether any trial began; what cannot be read may hold one."""
    try:
        return bool(replay(read_events(paths.events)))
    except (OSError, SweepAborted):
        return True
