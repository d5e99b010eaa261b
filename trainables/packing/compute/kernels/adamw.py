"""The update of optimizer.py as a Triton kernel: each number is read and written once.

Programs of a slot that is not due end at once, so a slot without a step costs no memory traffic.

Shapes: K slots, P LoRA numbers of a slot.
"""

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""Numbers of one slot that one program works on."""


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
    """optimizer.adamw_ as one kernel; roots and quotients are rounded as IEEE 754 has it."""
    num_slots, num_params = params_KP.shape
    tensors = (params_KP, grads_KP, exp_avg_KP, exp_avg_sq_KP)
    assert all(tensor.is_contiguous() for tensor in (*tensors, table_7K))
    _update[(triton.cdiv(num_params, BLOCK), num_slots)](
        *tensors, is_due_K, steps_K, table_7K, norms_K, num_params, norm_eps, eps, BLOCK
    )


@triton.jit
def _update(
    params_ptr,
    grads_ptr,
    exp_avg_ptr,
    exp_avg_sq_ptr,
    is_due_ptr,
    steps_ptr,
    table_ptr,
    norms_ptr,
    num_params,
    norm_eps,
    eps,
    BLOCK: tl.constexpr,
):
    """One block of one slot's numbers: weight, gradient and both moments, read and written once."""
    slot, num_slots = tl.program_id(1), tl.num_programs(1)
    # A slot that makes no step in this call ends here: its gradient is zero and stays so.
    if tl.load(is_due_ptr + slot):
        p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        mask = p < num_params
        offset = slot.to(tl.int64) * num_params + p
        # A due slot whose loss or gradient is not finite keeps its weights and moments, but its
        # gradient is cleared below like the others', so that the next trial starts clean.
        if tl.load(steps_ptr + slot):
            # Column `slot` of table_7K; its rows are the fields of optimizer._SlotNumbers.
            row = table_ptr + slot
            max_norm, decay = tl.load(row + num_slots), tl.load(row + 2 * num_slots)
            root_correction, step_size = tl.load(row + 3 * num_slots), tl.load(row + 4 * num_slots)
            weight, weight_sq = tl.load(row + 5 * num_slots), tl.load(row + 6 * num_slots)
            clip = tl.minimum(tl.div_rn(max_norm, tl.load(norms_ptr + slot) + norm_eps), 1.0)
            grad = tl.load(grads_ptr + offset, mask=mask, other=0.0) * clip
            exp_avg = tl.load(exp_avg_ptr + offset, mask=mask, other=0.0)
            exp_avg_sq = tl.load(exp_avg_sq_ptr + offset, mask=mask, other=0.0)
            param = tl.load(params_ptr + offset, mask=mask, other=0.0) * (1.0 - decay)
            # In the order of torch.optim.adamw, where every step rounds: lerp for the first moment,
            # mul then addcmul for the second, the bias corrections in the table.
            exp_avg += weight * (grad - exp_avg)
            exp_avg_sq = exp_avg_sq * (1.0 - weight_sq) + grad * (grad * weight_sq)
            denominator = tl.div_rn(tl.sqrt_rn(exp_avg_sq), root_correction) + eps
            param -= step_size * tl.div_rn(exp_avg, denominator)
            tl.store(params_ptr + offset, param, mask=mask)
            tl.store(exp_avg_ptr + offset, exp_avg, mask=mask)
            tl.store(exp_avg_sq_ptr + offset, exp_avg_sq, mask=mask)
        tl.store(grads_ptr + offset, tl.zeros((BLOCK,), tl.float32), mask=mask)
