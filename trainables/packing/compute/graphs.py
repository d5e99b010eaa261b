"""Capture of CUDA graphs, many a minute."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

SPARE_SHARE = 1 / 8
"""Of the GPU's memory: with less of it free, what PyTorch holds unused is returned to the driver
before a capture, which cannot take any of it."""


@contextmanager
def capture_graph(
    graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream, pool: Any = None
) -> Iterator[None]:
    """What is launched meanwhile becomes the graph, and is not run.

    torch.cuda.graph waits for the GPU and returns all unused memory to the driver each time: as
    long as the capture itself. A GPU may be at work while this captures, and other threads may
    copy from it.

    Args:
        stream: where only graphs are captured that go together. cuBLAS has one workspace a stream,
            which all of them use, and which goes with any one of them (pytorch/pytorch#193402).
        pool: a graph_pool_handle, for graphs that never run side by side; None for one of its own.

    Raises:
        torch.OutOfMemoryError: the graph is then of no use.
    """
    free, whole = torch.cuda.mem_get_info()
    if free < SPARE_SHARE * whole:
        torch.cuda.empty_cache()
    with torch.cuda.stream(stream):
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            yield
        finally:
            graph.capture_end()
