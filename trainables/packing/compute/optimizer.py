"""AdamW for all slots in a handful of kernels, each slot with its own clock, rate and clip.

Shapes: K slots, P LoRA numbers of a slot.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.packing.compute.transfer import copy_to_device

BETA1, BETA2 = 0.9, 0.999
EPS = 1e-8
"""The defaults of torch.optim.AdamW, which transformers' adamw_torch uses."""
NORM_EPS = 1e-6
"""torch.nn.utils.clip_grad_norm_ adds it to the norm that it divides by."""


@dataclass(frozen=True, kw_only=True)
class SlotUpdate:
    """What one slot's optimizer step needs; None stands for a slot that does not step."""

    step: int
    """Optimizer step that this is, counted from 1."""
    learning_rate: float
    weight_decay: float
    max_grad_norm: float


class PackedAdamW:
    """torch.optim.AdamW and clip_grad_norm_, for each row of params_KP by itself.

    Args:
        params_KP: the weights, which step updates.
        grads_KP: their gradients, which step clears.
        is_fused: the update is one kernel; for a GPU.
    """

    def __init__(self, params_KP: Tensor, grads_KP: Tensor, is_fused: bool = False) -> None:
        self._adamw_ = _kernel() if is_fused else adamw_
        self.exp_avg_KP = torch.zeros_like(params_KP)
        self.exp_avg_sq_KP = torch.zeros_like(params_KP)
        self._params_KP = params_KP
        self._grads_KP = grads_KP

    def step(self, updates: list[SlotUpdate | None], losses_K: Tensor) -> Tensor:
        """Step the slots that have an update, and clear their gradients and losses.

        A slot whose loss or gradient is not finite keeps its weights and moments.

        Returns:
            (2, K): the losses and the gradients' norms before clipping; not yet read, so that the
            device need not be waited for.
        """
        norms_K = torch.linalg.vector_norm(self._grads_KP, dim=1)
        # (7, K), the fields of _SlotNumbers; powers are taken in float64 first.
        rows = [_slot_numbers(update) for update in updates]
        table_K7 = torch.tensor(rows, dtype=self._params_KP.dtype)
        table_7K = copy_to_device(table_K7.T.contiguous(), self._params_KP.device)
        is_due_K = table_7K[0] > 0
        steps_K = is_due_K & norms_K.isfinite() & losses_K.isfinite()
        tensors_KP = (self._params_KP, self._grads_KP, self.exp_avg_KP, self.exp_avg_sq_KP)
        self._adamw_(*tensors_KP, is_due_K, steps_K, table_7K, norms_K, NORM_EPS, EPS)
        numbers_2K = torch.stack([losses_K, norms_K])
        losses_K.masked_fill_(is_due_K, 0.0)
        return numbers_2K

    def clear(self, slot: int) -> None:
        """Forget all that a slot has gathered."""
        for tensor_KP in (self.exp_avg_KP, self.exp_avg_sq_KP, self._grads_KP):
            tensor_KP[slot].zero_()


def _kernel() -> Callable[..., None]:
    from trainables.packing.compute.kernels import adamw  # loads Triton, which a CPU has no use for

    return adamw.adamw_


class _SlotNumbers(NamedTuple):
    """One column of table_7K: what the update needs of a slot, in the order that kernels read."""

    is_due: float
    max_norm: float
    decay: float
    """Learning rate times weight decay."""
    root_correction: float
    """Square root of the second moment's bias correction."""
    step_size: float
    """Learning rate over the first moment's bias correction."""
    weight: float
    """Weight of the new gradient in the first moment, 1 - beta1."""
    weight_sq: float
    """Weight of its square in the second moment, 1 - beta2."""


def _slot_numbers(update: SlotUpdate | None) -> _SlotNumbers:
    if update is None:
        return _SlotNumbers(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    return _SlotNumbers(
        is_due=1.0,
        max_norm=update.max_grad_norm,
        decay=update.learning_rate * update.weight_decay,
        root_correction=(1.0 - BETA2**update.step) ** 0.5,
        step_size=update.learning_rate / (1.0 - BETA1**update.step),
        weight=1 - BETA1,
        weight_sq=1 - BETA2,
    )


def adamw_(
    params_KP: Tensor,
    grads_KP: Tensor,
    exp_avg_KP: Tensor,
    exp_avg_sq_KP: Tensor,
    is_due_K: Tensor,
    steps_K: Tensor,
    table_7K: Tensor,
    norms_K: Tensor,
    norm_eps: float,
    eps: float,
) -> None:
    """The update of torch.optim.adamw in its order of operations, with rates 0 where no step is.

    Gradients that were due are cleared in the same sweep over memory.

    Decoupled weight decay as in arXiv 1711.05101, algorithm 2.
    """
    # Slots that make no step get rates of 0, with which the operations below change nothing.
    active_7K = torch.where(steps_K, table_7K, 0.0)
    _, max_norm_K1, decay_K1, _, step_size_K1, weight_K1, weight_sq_K1 = active_7K[:, :, None]
    root_correction_K1 = table_7K[3][:, None]  # a divisor, so never 0
    clip_K1 = (max_norm_K1 / (norms_K[:, None] + norm_eps)).clamp(max=1.0)
    clipped_KP = torch.where(steps_K[:, None], grads_KP * clip_K1, 0.0)
    params_KP.mul_(1.0 - decay_K1)
    exp_avg_KP.lerp_(clipped_KP, weight_K1)
    exp_avg_sq_KP.mul_(1.0 - weight_sq_K1).addcmul_(clipped_KP, clipped_KP * weight_sq_K1)
    denominator_KP = (exp_avg_sq_KP.sqrt() / root_correction_K1).add_(eps)
    params_KP.addcmul_(exp_avg_KP / denominator_KP, -step_size_K1)
    grads_KP.masked_fill_(is_due_K[:, None], 0.0)
