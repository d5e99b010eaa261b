"""A trial's checkpoints on disk: which are complete, which can be resumed from, which may go.

A trial's folder holds checkpoint-STEP folders. Each is written file by file, so it counts only
once its report stands in it, which is written last and atomically.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trainables.config import TrialReport
from trainables.errors import FULL_DISK, REPEAT, SweepAborted, TrialFailed
from trainables.files import write_atomic

REPORT_NAME = "report.json"
ANSWERS_NAME = "answers.jsonl"
"""What the trial said to each validation row at its last rung; see metrics.eval_result."""
NUM_KEPT = 2
"""Complete checkpoints that a running trial keeps; the older one serves if the last is damaged."""
ADAPTER_NAMES = ("adapter_config.json", "adapter_model.safetensors", REPORT_NAME, ANSWERS_NAME)
"""What prune_to_adapter leaves."""
SOLO_STATE_NAMES = ("optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth")
"""What Trainer needs beside the adapter to resume exactly."""
PACK_STATE_NAMES = ("optimizer.safetensors", "pack_state.json")
"""What a pack needs beside the adapter to resume exactly."""
TMP_SUFFIX = ".writing"
"""Ends the name of a checkpoint that is being written, to be renamed once it is whole."""
WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)
"""What a failed write raises, by its writer."""
FULL_BYTES = 2**20
"""A disk with less than this free is full: a checkpoint's last files did not fit."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keeps a trial's folder to this process; waits for an earlier one that is still ending."""
    with find_lock(folder).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def hold_writers_lock(checkpoints: Path) -> Iterator[None]:
    """Says meanwhile that this process may write to a sweep's checkpoints."""
    with find_lock(checkpoints).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def wait_for_writers(checkpoints: Path, timeout_s: float) -> None:
    """Until no process of this machine holds the writers' lock, or the time is up.

    After a driver dies, its packs may live for some seconds more.
    """
    deadline_s = time.monotonic() + timeout_s
    with find_lock(checkpoints).open("a+") as file:
        while time.monotonic() < deadline_s:
            with suppress(BlockingIOError):
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(0.1)


def find_lock(folder: Path) -> Path:
    """The file of a folder's lock, on a disk of this machine.

    Storage that nodes share may have no locks, or keep those of a node that is gone. Writers on
    other nodes end with the job of their driver.

    Raises:
        SweepAborted: the folder of locks is another user's, who could hold any of them.
    """
    locks = Path(tempfile.gettempdir()) / f"qlora-sweeps-{os.getuid()}"
    with suppress(FileExistsError):
        locks.mkdir(mode=0o700)
    about = locks.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise SweepAborted(
            f"{locks} is no folder of this user alone, and locks are kept there",
            "have it removed, or name another temporary folder: TMPDIR=DIR",
        )
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
    return locks / f"{name[:24]}.lock"


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is; Trainer uses this name."""
    return folder / f"checkpoint-{step}"


def write_report(report: TrialReport) -> None:
    """Mark the report's checkpoint as complete."""
    fields = {**dataclasses.asdict(report), "checkpoint": report.checkpoint.name}
    del fields["cohort"]
    write_atomic(report.checkpoint / REPORT_NAME, json.dumps(fields))


def read_report(checkpoint: Path) -> TrialReport:
    """The report of a complete checkpoint, with the folder where the checkpoint is now.

    Raises:
        TrialFailed: it is damaged.
    """
    path = checkpoint / REPORT_NAME
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return TrialReport(**{**fields, "checkpoint": checkpoint})
    except (OSError, ValueError, TypeError) as error:
        raise TrialFailed(f"{path} cannot be read: {error}") from error


def list_complete_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a trial's folder, by step."""
    return [path for path in _checkpoints(folder) if (path / REPORT_NAME).is_file()]


def read_last_report(folder: Path) -> TrialReport | None:
    """The report of the last complete checkpoint, or None if there is none."""
    complete = list_complete_checkpoints(folder)
    return read_report(complete[-1]) if complete else None


def find_resumable_report(
    folder: Path, max_steps: int, state_names: Sequence[str]
) -> TrialReport | None:
    """The report to resume from, or None for a trial that starts anew, whose folder is emptied.

    A trial that has made all its steps needs no state to resume from.

    Args:
        folder: the trial's; made if it is not there.
        max_steps: the trial's full budget.
        state_names: files that the engine needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    delete_incomplete(folder)
    last = read_last_report(folder)
    if last is not None:
        has_state = all((last.checkpoint / name).is_file() for name in state_names)
        if last.step >= max_steps or has_state:
            return last
    delete_all_but([], folder)
    return None


@contextmanager
def abort_if_disk_full(folder: Path) -> Iterator[None]:
    """Writes to a trial's folder; other errors than a full disk or quota rise as they are.

    Raises:
        SweepAborted: it was a full disk or quota that made a write fail.
    """
    try:
        yield
    except WRITE_ERRORS as error:
        is_full = isinstance(error, OSError) and error.errno in FULL_DISK
        present = next(path for path in (folder, *folder.parents) if path.exists())
        if not is_full and shutil.disk_usage(present).free >= FULL_BYTES:
            raise
        what, fix = f"the disk of {folder.parent} is full", f"free space there, {REPEAT}"
        raise SweepAborted(what, fix) from error


def delete_incomplete(folder: Path) -> None:
    """Delete the checkpoints that were being written when an attempt died."""
    delete_all_but(list_complete_checkpoints(folder), folder)


def keep_last(folder: Path) -> None:
    """Delete all complete checkpoints but the last NUM_KEPT."""
    for path in list_complete_checkpoints(folder)[:-NUM_KEPT]:
        shutil.rmtree(path)


def prune_to_adapter(folder: Path) -> None:
    """Leave of an ended trial only the adapter, report and answers of its last checkpoint.

    Optimizer state is twice the adapter's size and of no use once the trial has ended. May be
    called again.
    """
    last = list_complete_checkpoints(folder)[-1:]
    delete_all_but(last, folder)
    for file in (file for path in last for file in path.iterdir()):
        if file.name not in ADAPTER_NAMES:
            file.unlink()


def delete_all_but(remaining: Sequence[Path], folder: Path) -> None:
    """Delete all other checkpoints, and those that were being written."""
    unfinished = folder.glob(f"checkpoint-*{TMP_SUFFIX}")
    for path in {*_checkpoints(folder), *unfinished} - set(remaining):
        shutil.rmtree(path)


def _checkpoints(folder: Path) -> list[Path]:
    """Complete or not, by step."""
    begin = "checkpoint-"
    steps = (path.name.removeprefix(begin) for path in folder.glob(f"{begin}*"))
    return [
        checkpoint_folder(folder, step) for step in sorted(int(s) for s in steps if s.isdecimal())
    ]
