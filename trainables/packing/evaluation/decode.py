"""From the first token of every answer to whole answers: steps, and rows that leave.

Shapes: K slots, S rows of a slot, T positions of a row, A = K * S answers of a batch, L tokens of
an answer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from trainables.packing.compute.pass_runner import capture_graph
from trainables.packing.evaluation.slot_decoder import LayerState, SlotDecoder, map_state

CHECK_STEPS = 8
"""Steps between looks at which rows have finished; each look waits for the device."""
SHRINK_FACTOR = 3
"""How much smaller a batch is made at least where steps are captured: it is another graph, whose
capture takes as long as 20 steps of a small model."""
SMALL_CACHE_BYTES = 2 * 2**30
"""A cache of this size is not made smaller where steps are captured. An H200 reads all of it in
0.4 ms at 4.8 TB/s, so that 64 steps without it gain no more than another graph of a small model
costs; and a step reads only the positions that are written."""


@dataclass
class Batch:
    """Rows that are decoded together; all that a step reads and writes, changed in place."""

    decoder: SlotDecoder
    cache: list[LayerState]
    rotation: tuple[Tensor, Tensor]
    stops: Tensor
    tokens_KS: Tensor
    """Last token of each row, whose keys are not in the cache yet."""
    positions_KS: Tensor
    """Where that token stands in its row."""
    is_done_KS: Tensor
    answer_row_KS: Tensor
    """Each row's index in answers_AL, which rows keep when they move."""
    answers_AL: Tensor
    """Answers of all rows that the batch ever had; only tokens up to the first stop count."""
    column_1: Tensor
    """Tokens that answers_AL has."""


def decode_answers(batch: Batch, max_new_tokens: int, is_graphed: bool) -> None:
    """Fill the answers, making the batch smaller as its rows finish."""
    steps = _iterate_steps(batch, is_graphed)
    for num_done in range(max_new_tokens - 1):
        # Every eighth step the host waits for the device once, to learn how many slots still answer
        # and how many rows the fullest of them has.
        if num_done % CHECK_STEPS == 0:
            is_open_KS = ~batch.is_done_KS
            needs = torch.stack((is_open_KS.any(dim=1).sum(), is_open_KS.sum(dim=1).max()))
            num_slots, num_rows = needs.tolist()
            if num_slots == 0:
                return
            if _shrink_batch(batch, num_slots, num_rows, is_graphed):
                steps = _iterate_steps(batch, is_graphed)
        next(steps)


def _iterate_steps(batch: Batch, is_graphed: bool) -> Iterator[None]:
    """Makes a step whenever the next is asked for; on a GPU most replay the CUDA graph of one."""
    step: Callable[[], None] = partial(_decode_step, batch)
    step()  # compiles and tunes kernels, which must not happen during a capture
    yield
    if is_graphed:
        graph = torch.cuda.CUDAGraph()
        with capture_graph(graph, _get_capture_stream()):  # runs nothing
            step()
        step = graph.replay
    while True:
        step()
        yield


def _decode_step(batch: Batch) -> None:
    """One more token for every row, without waiting for the device."""
    # All writes are in place, and the column is a tensor: a captured graph replays the same
    # addresses. Rows that are done go on answering to nobody; cut_at_stop cuts what they say.
    rows = (batch.tokens_KS, batch.positions_KS, batch.cache)
    x_KSD = batch.decoder.step(*rows, batch.rotation, batch.is_done_KS)
    tokens_KS = batch.decoder.logits(x_KSD).argmax(dim=-1)
    batch.answers_AL[batch.answer_row_KS, batch.column_1] = tokens_KS
    batch.is_done_KS |= is_stop(tokens_KS, batch.stops)
    batch.tokens_KS.copy_(tokens_KS)
    batch.positions_KS += 1
    batch.column_1 += 1


@cache
def _get_capture_stream() -> torch.cuda.Stream:
    """Where answers' steps are captured, and nothing else; one graph goes before the next comes."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _shrink_batch(batch: Batch, num_slots: int, num_rows: int, is_graphed: bool) -> bool:
    """Halve slots and rows while they hold those that are needed, if so few are left that it pays;
    whether anything was dropped.

    Rows stay with their slot. Those that have finished go first; the order of the others stays.
    """
    old_slots, old_rows = batch.is_done_KS.shape
    num_slots, num_rows = _halve(old_slots, num_slots), _halve(old_rows, num_rows)
    num_old, num_new = old_slots * old_rows, num_slots * num_rows
    # Where steps are captured, what is left must be worth another graph.
    if num_new == num_old or (is_graphed and SHRINK_FACTOR * num_new > num_old):
        return False
    cache_bytes = sum(tensor.nbytes for layer in batch.cache for tensor in layer)
    if is_graphed and cache_bytes <= SMALL_CACHE_BYTES:
        return False
    # Slots that still answer first, in their order; then, in each, rows that still answer first.
    # argsort is stable, so what is left keeps its order.
    is_over_K = batch.is_done_KS.all(dim=1)
    slots_K = torch.argsort(is_over_K.int(), stable=True)[:num_slots].sort().values
    order_KS = torch.argsort(batch.is_done_KS[slots_K].int(), dim=1, stable=True)
    at = (slots_K[:, None], order_KS[:, :num_rows])
    if num_slots < old_slots:
        batch.decoder = batch.decoder.select_slots(slots_K)
    for name in ("tokens_KS", "positions_KS", "is_done_KS", "answer_row_KS"):
        setattr(batch, name, getattr(batch, name)[at])
    for number, state in enumerate(batch.cache):
        batch.cache[number] = map_state(state, lambda part: part[at])
    return True


def _halve(size: int, needed: int) -> int:
    while size > 1 and needed <= (size + 1) // 2:
        size = (size + 1) // 2
    return size


def is_stop(tokens_KS: Tensor, stops: Tensor) -> Tensor:
    """Which tokens end an answer."""
    return (tokens_KS[..., None] == stops).any(dim=-1)
