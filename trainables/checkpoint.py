"""A trial's checkpoints on disk: which are complete, which can be resumed from, which may go.

A trial's folder holds checkpoint-STEP folders. Each is written file by file, so it counts only
once its report stands in it, or between two rungs its progress, which is written last and
atomically.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from trainables.config import Hyperparameters, TrialReport
from trainables.errors import FULL_DISK, REPEAT, SweepAborted, TrialFailed, find_disk_fault
from trainables.files import is_disk_full, parse_json, write_atomic

Mark = TypeVar("Mark")

MARKS = REPORT_NAME, PROGRESS_NAME = "report.json", "progress.json"
"""What marks a checkpoint as complete, at a rung and between two."""
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


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a trial has done since its last report, at a checkpoint that it goes on from between two
    rungs. The sweep hears nothing of it."""

    step: int
    """Optimizer steps done."""
    losses: list[float]
    """Losses of the steps since the last report."""
    learning_rate: float
    """Learning rate of the last step."""
    training_s: float
    """Seconds of the steps since the last report."""
    gpu_seconds: float = 0.0
    """As TrialReport has it."""
    checkpoint: Path


def get_checkpoint_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is; Trainer uses this name."""
    return folder / f"checkpoint-{step}"


def write_report(report: TrialReport) -> None:
    """Mark the report's checkpoint as complete."""
    _write_mark(report, REPORT_NAME)


def write_progress(progress: Progress) -> None:
    """Mark a checkpoint between two rungs as complete."""
    _write_mark(progress, PROGRESS_NAME)


def list_complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a trial's folder that have a report, by step."""
    return [path for path in _list_checkpoints(folder) if (path / REPORT_NAME).is_file()]


def read_last_report(folder: Path) -> TrialReport | None:
    """The report of the last complete checkpoint, or None if there is none.

    Raises:
        TrialFailed: it is damaged.
    """
    complete = list_complete_checkpoints(folder)
    return _read_mark(complete[-1] / REPORT_NAME, TrialReport) if complete else None


def read_progress(folder: Path) -> Progress | None:
    """What a trial has done since its last report, as far as it was saved; None if it was not.

    Raises:
        TrialFailed: it is damaged.
    """
    newest = _list_resumable(folder)[-1:]
    if not newest or (newest[0] / REPORT_NAME).is_file():
        return None
    return _read_mark(newest[0] / PROGRESS_NAME, Progress)


def find_resume_point(
    folder: Path, max_steps: int, state_names: Sequence[str]
) -> tuple[TrialReport | None, Progress | None]:
    """The last report of a trial, and what it has done since; it goes on from the later of the two.

    Without either the trial starts anew, and its folder is emptied. A trial that has reported its
    last step needs no state to resume from.

    Args:
        folder: the trial's; made if it is not there.
        state_names: files that the engine needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    delete_incomplete(folder)
    last, progress = read_last_report(folder), read_progress(folder)
    newest = progress or last
    if newest is not None:
        has_state = all((newest.checkpoint / name).is_file() for name in state_names)
        if has_state or (progress is None and newest.step >= max_steps):
            return last, progress
    delete_all_but([], folder)
    return None, None


@contextmanager
def abort_if_disk_fails(folder: Path) -> Iterator[None]:
    """Reads or writes a trial's folder; errors whose cause is not the disk rise as they are.

    Raises:
        SweepAborted: the disk or quota is full, or the disk does not answer.
    """
    try:
        yield
    except WRITE_ERRORS as error:
        fault = find_disk_fault(error)
        if fault is None and is_disk_full(folder):
            fault = FULL_DISK
        if fault is None:
            raise
        what = f"the disk of {folder.parent} {fault.state}"
        raise SweepAborted(what, f"{fault.remedy}, {REPEAT}") from error


def delete_incomplete(folder: Path) -> None:
    """Delete the checkpoints that were being written when an attempt died."""
    delete_all_but(_list_resumable(folder), folder)


def keep_last(folder: Path) -> None:
    """Delete what is older than the newest checkpoint, but for the last NUM_KEPT with a report."""
    resumable = _list_resumable(folder)
    remaining = {*list_complete_checkpoints(folder)[-NUM_KEPT:], *resumable[-1:]}
    for path in set(resumable) - remaining:
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
    for path in {*_list_checkpoints(folder), *unfinished} - set(remaining):
        shutil.rmtree(path)


def read_adapter_params(folder: Path) -> Hyperparameters:
    """The hyperparameters that the PEFT config of a finished adapter tells.

    The learning rate and dropout, which a finished adapter has no use for, are not the trial's.

    Raises:
        OSError, ValueError: it cannot be read, or is damaged.
    """
    path = folder / ADAPTER_NAMES[0]
    config: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
    try:
        return Hyperparameters(
            lora_rank=config["r"],
            lora_alpha=config["lora_alpha"],
            learning_rate=1.0,
            use_rslora=config["use_rslora"],
            target_modules=tuple(sorted(config["target_modules"])),
        )
    except (KeyError, TypeError, AttributeError) as wrong:
        raise ValueError(f"{path.name} is no PEFT config: {wrong!r}") from None


def _write_mark(mark: TrialReport | Progress, name: str) -> None:
    fields = {**dataclasses.asdict(mark), "checkpoint": mark.checkpoint.name}
    fields.pop("cohort", None)
    write_atomic(mark.checkpoint / name, json.dumps(fields))


def _read_mark(path: Path, kind: type[Mark]) -> Mark:
    """What marks a checkpoint as complete, with the folder where the checkpoint is now."""
    try:
        fields: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        return kind(**{**fields, "checkpoint": path.parent})
    except (OSError, ValueError, TypeError) as error:
        if find_disk_fault(error):
            raise
        raise TrialFailed(f"{path} cannot be read: {error}") from error


def _list_resumable(folder: Path) -> list[Path]:
    """Complete checkpoints, at a rung or between two, by step."""
    return [p for p in _list_checkpoints(folder) if any((p / name).is_file() for name in MARKS)]


def _list_checkpoints(folder: Path) -> list[Path]:
    """Complete or not, by step."""
    begin = "checkpoint-"
    names = (path.name.removeprefix(begin) for path in folder.glob(f"{begin}*"))
    steps = sorted(int(name) for name in names if name.isdecimal())
    return [get_checkpoint_folder(folder, step) for step in steps]
