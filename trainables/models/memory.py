"""Memory of one process: its highest level, and what to do when the GPU runs out of it."""

import gc
import logging
import resource
import sys
from collections.abc import Callable
from typing import TypeVar

import torch

from trainables.errors import TrialFailed

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in one unit of ru_maxrss (getrusage(2))."""


def retry_with_smaller_micro_batch(attempt: Callable[[int], None], micro_batch_size: int) -> None:
    """Call attempt with ever smaller micro-batches until one fits.

    Raises:
        TrialFailed: not even one row fits.
    """
    while True:
        free_memory()  # what a stopped trial held can go only once its SystemExit has
        try:
            attempt(micro_batch_size)
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        finally:
            free_memory()
        if micro_batch_size == 1:
            raise TrialFailed("out of memory with micro-batch 1; lower max_length_tokens")
        # Half, or the largest smaller divisor of an odd number.
        size = micro_batch_size
        micro_batch_size = max(part for part in range(1, size) if size % part == 0)
        logger.warning("out of memory; going on with micro-batch %d", micro_batch_size)


def retry_with_less_memory(
    attempt: Callable[[], Result],
    use_less_memory: Callable[[], bool],
    give_up: Callable[[], None],
    what: str,
) -> Result:
    """Attempt something again while the GPU's memory runs out, each time with less.

    Args:
        use_less_memory: False if nothing of the attempt can be made smaller.
        give_up: what is done then, before the next attempt.
        what: name of the attempt for the log.
    """
    while True:
        try:
            return attempt()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("out of memory in %s: %s", what, error)
        free_memory()  # only here, where no exception keeps the attempt's tensors
        if not use_less_memory():
            give_up()


def measure_peak_gib() -> float:
    """Highest memory: allocated on the GPU since reset_peak, or ever resident on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / 2**30


def get_gpu_gib() -> float | None:
    """Memory that is this process's or nobody's on its GPU, CUDA's context aside; None without one.

    Raises:
        RuntimeError: not even the context fits (is_out_of_memory).
    """
    if not torch.cuda.is_available():
        return None
    free_bytes, _ = torch.cuda.mem_get_info()
    return (free_bytes + torch.cuda.memory_reserved()) / 2**30


def reset_peak() -> None:
    """Begin a new peak on the GPU; the operating system keeps its own for a process's life."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def free_memory() -> None:
    """Give the GPU memory of dead tensors back, so that the next trial of this process has it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU's memory ran out; CUDA's context and cuBLAS say so in words of their own."""
    words = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
