"""From the host to the device without waiting for what the device still has to do."""

import torch
from torch import Tensor


def copy_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device.

    A copy from pageable memory would first wait for every kernel in the queue.
    """
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
