"""Threads that save a pack's trials while the pack scores them."""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from trainables.packing.sizing.capacity import num_cores

Answer = TypeVar("Answer")

WRITER_BYTES = 128 * 2**20
"""Of a slot for which one more thread writes. What saving a small one takes is Python's, and takes
the lock from the thread that scores: 11 slots of 44 MB are scored in 0.55 s beside an H200, in
0.58 s while one thread saves them, and in 0.9 to 1.3 s while four do. The writing of a large one
holds no lock."""
MOST_WRITERS = 4
"""More write hardly faster: 16 checkpoints of 44 MB, flushed to the disk of a machine with an H200
and 16 cores, in 1.36 s by one, 0.67 s by 4, 0.63 s by 8."""
STAGING_BYTES = 4 * 2**30
"""Of the host's memory, for the numbers that are on their way to the disk; PyTorch rounds each kind
of them up to a power of two."""


class Staging:
    """Room on the host for the numbers of one slot, each kind of them a row; for one thread.

    An H200 copies 44 MB to page-locked memory in 0.9 ms, to other memory in 27, and on a stream of
    its own it does so beside what the pack has it do.

    Args:
        rows: as many, as long and of the type that will be copied.
    """

    def __init__(self, rows: Sequence[Tensor]) -> None:
        self._stream = self._held = None
        if rows[0].is_cuda:
            self._stream = torch.cuda.Stream(rows[0].device)  # type: ignore[no-untyped-call]
            self._held = [_page_locked(row) for row in rows]

    def on_host(self, rows: Sequence[Tensor]) -> Sequence[Tensor]:
        """The same rows in the host's memory, until the next call.

        Nothing that the device has yet to do may change them.
        """
        if self._stream is None or self._held is None:
            return rows
        with torch.cuda.stream(self._stream):
            for held, row in zip(self._held, rows, strict=True):
                held.copy_(row, non_blocking=True)
        self._stream.synchronize()
        return self._held


def _page_locked(row: Tensor) -> Tensor:
    """Room for a row; where the system locks no more pages, in other memory."""
    try:
        return torch.empty_like(row, device="cpu", pin_memory=True)
    except RuntimeError:
        return torch.empty_like(row, device="cpu")


class Writers:
    """Some threads, each with a staging of its own.

    Args:
        slot_bytes: of what is saved of a slot: the larger, the more are written at once, up to
            what the host's memory is to hold.
        new_staging: makes a thread's.
    """

    def __init__(self, slot_bytes: int, new_staging: Callable[[], Staging]) -> None:
        wanted = math.ceil(slot_bytes / WRITER_BYTES)
        most = min(wanted, MOST_WRITERS, num_cores(), STAGING_BYTES // max(1, slot_bytes))
        self._new_staging = new_staging
        self._own = threading.local()
        self._pool = ThreadPoolExecutor(max(1, most), thread_name_prefix="writer")

    def begin(self, write: Callable[[Staging], Answer]) -> Future[Answer]:
        """Has one of them write; what it raises, the future does."""
        return self._pool.submit(self._written, write)

    def _written(self, write: Callable[[Staging], Answer]) -> Answer:
        if not hasattr(self._own, "staging"):
            self._own.staging = self._new_staging()
        return write(self._own.staging)
