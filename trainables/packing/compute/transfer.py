"""Copies between host and device that do not wait for what the device still has to do."""

from collections.abc import Sequence

import torch
from torch import Tensor


def copy_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device.

    A copy from pageable memory would first wait for every kernel in the queue.
    """
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Staging:
    """Room on the host for the numbers of one slot, each kind of them a row; for one thread.

    An H200 copies 44 MB to page-locked memory in 0.9 ms, to other memory in 27, and on a stream of
    its own it does so beside what the pack has it do.

    Args:
        rows: as many, as long and of the type that will be copied.
    """

    def __init__(self, rows: Sequence[Tensor]) -> None:
        self._stream = self._rows = None
        if rows[0].is_cuda:
            self._stream = torch.cuda.Stream(rows[0].device)  # type: ignore[no-untyped-call]
            self._rows = [_page_locked(row) for row in rows]

    def on_host(self, rows: Sequence[Tensor]) -> Sequence[Tensor]:
        """Copies rows to the host's memory, where they stay until the next call.

        Nothing that the device has yet to do may change them.
        """
        if self._stream is None or self._rows is None:
            return rows
        with torch.cuda.stream(self._stream):
            for on_host, row in zip(self._rows, rows, strict=True):
                on_host.copy_(row, non_blocking=True)
        self._stream.synchronize()
        return self._rows


def _page_locked(row: Tensor) -> Tensor:
    """Room for a row; where the system locks no more pages, in other memory."""
    try:
        return torch.empty_like(row, device="cpu", pin_memory=True)
    except RuntimeError:
        return torch.empty_like(row, device="cpu")
