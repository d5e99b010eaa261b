"""AdamW over rows, against torch.optim.AdamW and clip_grad_norm_ on each row alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import max_examples
from trainables.packing.compute.optimizer import PackedAdamW, SlotUpdate

NUM_PARAMS = 37
RATES = (1e-1, 3e-3, 1e-2)
DECAYS = (0.0, 0.3, 0.1)
NORMS = (1.0, 0.2, 1e9)


@max_examples(20)
@given(due=st.lists(st.tuples(*[st.booleans()] * 3), min_size=1, max_size=12))
def test_rows_step_as_torch_steps_each_of_them(due: list[tuple[bool, bool, bool]]) -> None:
    """due says which rows step in each round; the others gather their gradients."""
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(3, NUM_PARAMS, generator=generator)
    ours, grads = params.clone(), torch.zeros_like(params)
    packed = PackedAdamW(ours, grads)
    theirs = [torch.nn.Parameter(row.clone()) for row in params]
    optimizers = [
        torch.optim.AdamW([row], lr=rate, weight_decay=decay)
        for row, rate, decay in zip(theirs, RATES, DECAYS, strict=True)
    ]
    steps = [0, 0, 0]
    for flags in due:
        fresh = torch.randn(3, NUM_PARAMS, generator=generator)
        grads += fresh
        updates: list[SlotUpdate | None] = []
        norms = torch.zeros(3)
        for k, (row, is_due) in enumerate(zip(theirs, flags, strict=True)):
            row.grad = fresh[k] if row.grad is None else row.grad + fresh[k]
            updates.append(None)
            if is_due:
                steps[k] += 1
                updates[k] = update(k, steps[k])
                norms[k] = torch.nn.utils.clip_grad_norm_([row], NORMS[k])
                optimizers[k].step()
                row.grad = None
        _, found = packed.step(updates, torch.zeros(3))
        mask = torch.tensor(flags)
        torch.testing.assert_close(found[mask], norms[mask], rtol=1e-6, atol=0)
    torch.testing.assert_close(
        ours, torch.stack([row.detach() for row in theirs]), rtol=1e-5, atol=1e-7
    )


def update(k: int, step: int) -> SlotUpdate:
    return SlotUpdate(
        step=step, learning_rate=RATES[k], weight_decay=DECAYS[k], max_grad_norm=NORMS[k]
    )


@pytest.mark.parametrize("culprit", ["loss", "gradient"])
def test_row_that_is_not_finite_keeps_weights_and_moments(culprit: str) -> None:
    params = torch.ones(2, NUM_PARAMS)
    grads = torch.ones(2, NUM_PARAMS)
    packed = PackedAdamW(params, grads)
    packed.step([update(0, 1), update(1, 1)], torch.zeros(2))
    before = [tensor[0].clone() for tensor in (params, packed.exp_avg_KP, packed.exp_avg_sq_KP)]
    moved = params[1].clone()
    grads.fill_(1.0)
    losses = torch.zeros(2)
    if culprit == "loss":
        losses[0] = torch.inf
    else:
        grads[0, 3] = torch.nan
    packed.step([update(0, 2), update(1, 2)], losses)
    after = (params, packed.exp_avg_KP, packed.exp_avg_sq_KP)
    assert all(torch.equal(old, new[0]) for old, new in zip(before, after, strict=True))
    assert (params[1] < moved).all()
    assert (grads == 0).all()
