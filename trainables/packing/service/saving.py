"""What a pack writes into its trials' folders while it scores them."""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from trainables.checkpoint import (
    abort_if_disk_fails,
    keep_last,
    prune_to_adapter,
    write_progress,
    write_report,
)
from trainables.checkpoint_storage import publish
from trainables.config import TrialReport
from trainables.data.rows import Row
from trainables.metrics.eval_result import EvalResult, write_answers
from trainables.packing.compute.pack import Pack
from trainables.packing.compute.transfer import Staging
from trainables.packing.service.packed_trial import PackedTrial
from trainables.process import count_cores

Result = TypeVar("Result")

BYTES_PER_WRITER = 128 * 2**20
"""One more thread writes for each so many bytes of a slot. What saving a small one takes is
Python's, and takes the lock from the thread that scores: 11 slots of 44 MB are scored in 0.55 s
beside an H200, in 0.58 s while one thread saves them, and in 0.9 to 1.3 s while four do. Writing a
large one holds no lock."""
MAX_WRITERS = 4
"""More write hardly faster: 16 checkpoints of 44 MB, flushed to the disk of a machine with an H200
and 16 cores, in 1.36 s by one, 0.67 s by 4, 0.63 s by 8."""
STAGING_BYTES = 4 * 2**30
"""Host memory for the numbers that are on their way to the disk; PyTorch rounds each kind of them
up to a power of two."""


class Saver:
    """Has threads write the checkpoints of a pack's trials. Used by one thread.

    A future that it gives says whether the trial is still to be trained, or raises SweepAborted
    where the disk is full.
    """

    def __init__(self, pack: Pack) -> None:
        self._pack = pack
        self._writers = Writers(pack.slot_bytes, pack.make_staging)
        self._completers = ThreadPoolExecutor(MAX_WRITERS, thread_name_prefix="completer")
        self._saving: dict[PackedTrial, Future[bool]] = {}

    def begin_save(self, trials: Sequence[PackedTrial]) -> dict[PackedTrial, Future[bool]]:
        """Save the present steps of trials."""
        self._saving = {trial: self._begin_save(trial) for trial in trials}
        return self._saving

    def _begin_save(self, trial: PackedTrial) -> Future[bool]:
        slot, folder = trial.slot, trial.checkpoint
        assert slot is not None, f"{trial.trial_id} has no slot"

        if not trial.has_progress:  # it came back to a rung at which it had not been scored
            return self._completers.submit(run_if_live, trial, lambda: None)

        def save(staging: Staging) -> bool:
            return run_if_live(trial, lambda: self._pack.save(slot, folder, staging))

        return self._writers.submit(save)

    def begin_progress(self, trial: PackedTrial, charged_s: float) -> Future[bool]:
        """Make the checkpoint of a step between two rungs count."""
        progress = trial.make_progress(charged_s)

        def write() -> None:
            write_progress(progress)
            publish(trial.config.storage, progress.checkpoint, has_ended=False)

        return self._completers.submit(run_if_live, trial, write)

    def wait_saved(self, trial: PackedTrial) -> None:
        """Until the trial is not being saved: it must stay in its slot so long."""
        if trial in self._saving:
            wait([self._saving[trial]])

    def begin_completion(
        self, trial: PackedTrial, report: TrialReport, rows: Sequence[Row], result: EvalResult
    ) -> Future[bool]:
        """Make the checkpoint of a report count; at the trial's end, with the answers to rows."""
        is_at_end = trial.is_at_end

        def write() -> None:
            if is_at_end:
                write_answers(report.checkpoint, rows, result)
            write_report(report)
            keep_last(trial.config.folder)
            if is_at_end:
                prune_to_adapter(trial.config.folder)
            publish(trial.config.storage, report.checkpoint, has_ended=is_at_end)

        return self._completers.submit(run_if_live, trial, write)


class Writers:
    """Some threads, each with a staging of its own.

    Args:
        slot_bytes: what is saved of a slot: the larger, the more are written at once, up to
            what the host's memory is to hold.
    """

    def __init__(self, slot_bytes: int, make_staging: Callable[[], Staging]) -> None:
        useful = math.ceil(slot_bytes / BYTES_PER_WRITER)
        affordable = STAGING_BYTES // max(1, slot_bytes)
        num_writers = max(1, min(useful, affordable, MAX_WRITERS, count_cores()))
        self._new_staging = make_staging
        self._own = threading.local()
        self._pool = ThreadPoolExecutor(num_writers, thread_name_prefix="writer")

    def submit(self, write: Callable[[Staging], Result]) -> Future[Result]:
        """Has one of them write; what it raises, the future does."""
        return self._pool.submit(self._write, write)

    def _write(self, write: Callable[[Staging], Result]) -> Result:
        # A pool's initializer would do it too, but its threads would keep it, and the pack with it.
        if not hasattr(self._own, "staging"):
            self._own.staging = self._new_staging()
        return write(self._own.staging)


def run_if_live(trial: PackedTrial, do: Callable[[], None]) -> bool:
    """Do something in the folder of a trial if it is still to be trained; whether it is.

    The folder's lock is held meanwhile, so that whoever ends the trial's lease can wait until the
    folder is his.

    Raises:
        SweepAborted: the disk is full or does not answer.
        TrialFailed: do did.
    """
    with trial.folder_lock, abort_if_disk_fails(trial.config.folder):
        if trial.is_live:
            do()
        return trial.is_live
