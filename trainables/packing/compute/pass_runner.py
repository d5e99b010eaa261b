"""Runs passes forward and backward; on a GPU, as CUDA graphs that are captured once a shape."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from trainables.packing.compute.model import PackedModel
from trainables.packing.compute.packed_batch import PackedBatch, unpack_inputs
from trainables.packing.compute.pass_shapes import Shape, ShapeChoice
from trainables.packing.compute.transfer import copy_to_device

MAX_GRAPHS = 256
"""Captured shapes that are kept: each is some ten megabytes of launches."""
SPARE_SHARE = 1 / 8
"""Share of the GPU's memory. With less of it free, what PyTorch holds unused is returned to the
driver before a capture, which cannot take any of it."""


class PassRunner:
    """Adds the losses and gradients of passes up.

    Args:
        is_graphed: capture each shape that recurs as a CUDA graph; all share one pool of memory.
    """

    def __init__(self, model: PackedModel, is_graphed: bool) -> None:
        params_KP = model.adapters.params_KP
        self._model = model
        self._device = params_KP.device
        self._is_graphed = is_graphed
        self._graphs: dict[Shape, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._choice = ShapeChoice()
        self.num_captured = 0
        """Graphs, those that were given up again included."""
        self._warm: set[bool] = set()
        self._pool = torch.cuda.graph_pool_handle() if is_graphed else None
        self._stream = torch.cuda.Stream() if is_graphed else None  # type: ignore[no-untyped-call]
        """Where this pack's passes are captured, and nothing else."""
        self.losses_K = torch.zeros(len(params_KP), device=self._device)
        """Mean loss a label of each slot's step, as far as its passes have run."""

    def choose_shape(self, wanted: Shape) -> Shape:
        """The shape to make a pass in: the wanted one, or one that holds it."""
        if not (self._is_graphed and wanted.recurs):
            return wanted
        return self._choice.among(self._graphs, wanted)

    def run(self, packed: PackedBatch) -> None:
        """Add one pass; returns before the GPU has done it.

        Raises:
            torch.OutOfMemoryError: the gradients are then of no use.
        """
        numbers = copy_to_device(torch.from_numpy(packed.numbers), self._device)
        if not (self._is_graphed and packed.shape.recurs):
            self._run(numbers, packed.shape)
        elif packed.shape.has_dropout not in self._warm:  # kernels are made here, not in a graph
            self._run(numbers, packed.shape)
            self._warm.add(packed.shape.has_dropout)
            del numbers
            torch.cuda.empty_cache()
        else:
            graph, graph_numbers = self._get_graph(packed.shape)
            graph_numbers.copy_(numbers)
            graph.replay()

    def prepare(self, shape: Shape) -> None:
        """Capture a pass that comes next, if it is to be captured; the GPU need not be idle.

        Raises:
            torch.OutOfMemoryError: the pass would raise it too.
        """
        if self._is_graphed and shape.recurs and shape.has_dropout in self._warm:
            self._get_graph(shape)

    def forget(self) -> None:
        """Give the graphs' memory back, after it ran out."""
        if self._is_graphed:
            torch.cuda.synchronize()
            self._graphs.clear()
            self._pool = torch.cuda.graph_pool_handle()
            torch.cuda.empty_cache()

    def _run(self, numbers: Tensor, shape: Shape) -> None:
        inputs = unpack_inputs(numbers, shape)
        embedded_ND = self._model.embed(inputs)
        losses_K = self._model.losses(embedded_ND, inputs) * inputs.label_weights_K
        torch.autograd.grad(losses_K.sum(), embedded_ND)
        self.losses_K += losses_K.detach()

    def _get_graph(self, shape: Shape) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        if shape not in self._graphs:
            if len(self._graphs) == MAX_GRAPHS:  # they share too much for one to go
                self.forget()
            size = sum(shape.sizes.values())
            numbers = torch.zeros(size, dtype=torch.int32, device=self._device)
            graph = torch.cuda.CUDAGraph()
            if all(shape.num_tokens > captured.num_tokens for captured in self._graphs):
                torch.cuda.empty_cache()  # one that is no larger needs no more memory
            assert self._stream is not None
            with capture_graph(graph, self._stream, self._pool):
                self._run(numbers, shape)
            self._graphs[shape] = (graph, numbers)
            self.num_captured += 1
        return self._graphs[shape]


@contextmanager
def capture_graph(
    graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream, pool: Any = None
) -> Iterator[None]:
    """Capture what is launched meanwhile as the graph; nothing of it is run.

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
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    if free_bytes < SPARE_SHARE * total_bytes:
        torch.cuda.empty_cache()
    with torch.cuda.stream(stream):
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            yield
        finally:
            graph.capture_end()
