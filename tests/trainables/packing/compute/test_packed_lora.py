"""The packed linear, against a plain product for each slot."""

from typing import NamedTuple

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from torch import Tensor

from tests.trainables.packing.small_packs import pass_of
from trainables.data.tokens import Example
from trainables.packing.compute.lora import (
    FrozenLinears,
    LoraGroup,
    add_base_product,
    freeze,
    packed_linears,
)
from trainables.packing.compute.masks import keep_mask, module_key
from trainables.packing.compute.packed_batch import PackedInputs

SLOTS, FEATURES, RANK = 4, 6, 5
OUTS = (7, 3)
LENGTHS = ((3, 2), (4,), (), (2, 1, 1))
"""Tokens of each slot's rows; one slot is free."""
RANKS = (5, 2, 1, 3)
SCALING = torch.tensor([[2.0, 0.5], [1.0, 0.0], [1.0, 1.0], [0.3, 1.5]], dtype=torch.float64)


class Setting(NamedTuple):
    """Slots of different ranks, the second of which does not adapt the second module."""

    x_ND: Tensor
    linears: FrozenLinears
    group: LoraGroup
    batch: PackedInputs


@pytest.fixture
def setting() -> Setting:
    torch.manual_seed(0)
    options = {"dtype": torch.float64}
    rows = [[Example.from_ids([1] * length, []) for length in lengths] for lengths in LENGTHS]
    batch = pass_of(rows, [0.3, 0.0, 0.0, 0.3])
    x_ND = torch.randn(len(batch.ids_N), FEATURES, **options, requires_grad=True)
    weight_OD, bias_O = (
        torch.randn(sum(OUTS), FEATURES, **options),
        torch.randn(sum(OUTS), **options),
    )
    lora_a = torch.randn(SLOTS, len(OUTS), RANK, FEATURES, **options)
    lora_b = tuple(torch.randn(SLOTS, out, RANK, **options) for out in OUTS)
    for slot, rank in enumerate(RANKS):
        lora_a[slot, :, rank:] = 0
        for matrix in lora_b:
            matrix[slot, :, rank:] = 0
    grads_b = tuple(map(torch.zeros_like, lora_b))
    keys = torch.tensor([module_key(3), module_key(4)], dtype=torch.int32)
    group = LoraGroup(lora_a, lora_b, torch.zeros_like(lora_a), grads_b, SCALING, keys)
    return Setting(x_ND, FrozenLinears(weight_OD, (), bias_O, OUTS), group, batch)


def found_of(setting: Setting, is_dropping: bool = True) -> Tensor:
    x_ND, linears, group, batch = setting
    dropout = batch.dropout if is_dropping else None
    return packed_linears(x_ND, linears, group, batch.segments, dropout)


def plain(setting: Setting, is_dropping: bool) -> Tensor:
    """PEFT's formula, one slot and module at a time."""
    x_ND, linears, group, batch = setting
    assert batch.dropout is not None and linears.weight_OD is not None
    y_NO = torch.nn.functional.linear(x_ND, linears.weight_OD, linears.bias_O)
    modules = []
    for module, y in enumerate(y_NO.split(OUTS, dim=1)):
        kept_ND = keep_mask(FEATURES, batch.dropout, group.module_keys_M2[module])
        slots = []
        for k, (first, end) in enumerate(batch.segments.bounds_K2.tolist()):
            x = x_ND[first:end]
            if is_dropping:
                x = x * kept_ND[first:end] * batch.dropout.scales_K[k].double()
            lora_a = group.lora_a_KMRD[k, module, : RANKS[k]]
            lora_b = group.lora_b_KOR[module][k, :, : RANKS[k]]
            slots.append(y[first:end] + x @ lora_a.T @ lora_b.T * SCALING[k, module])
        modules.append(torch.cat(slots))
    return torch.cat(modules, dim=1)


@pytest.mark.parametrize("is_dropping", [False, True])
def test_outputs_and_gradients_are_those_of_each_slot_alone(
    setting: Setting, is_dropping: bool
) -> None:
    group = setting.group
    leaves = [setting.x_ND, group.lora_a_KMRD, *group.lora_b_KOR]
    found = found_of(setting, is_dropping)
    weights = torch.randn_like(found)
    (grad_x,) = torch.autograd.grad((found * weights).sum(), setting.x_ND)
    for leaf in leaves:
        leaf.requires_grad_()
    expected = plain(setting, is_dropping)
    grads = torch.autograd.grad((expected * weights).sum(), leaves)
    torch.testing.assert_close(found, expected)
    for one, other in zip([grad_x, group.grad_a_KMRD, *group.grad_b_KOR], grads, strict=True):
        torch.testing.assert_close(one, other)


def test_padded_ranks_and_unadapted_modules_get_gradients_of_exactly_zero(
    setting: Setting,
) -> None:
    found_of(setting).square().sum().backward()
    grad_a, grads_b = setting.group.grad_a_KMRD, setting.group.grad_b_KOR
    for slot, rank in enumerate(RANKS):
        assert (grad_a[slot, :, rank:] == 0).all()
        for grad_b in grads_b:
            assert (grad_b[slot, :, rank:] == 0).all()
    assert all(grad_a[slot, 0, : RANKS[slot]].abs().min() > 0 for slot in (0, 1, 3))
    assert (grad_a[2] == 0).all() and (grad_a[1, 1] == 0).all()
    assert (grads_b[1][1] == 0).all() and grads_b[1][0].abs().min() > 0


def test_gradients_with_dropout_agree_with_finite_differences(setting: Setting) -> None:
    weights = torch.randn_like(found_of(setting))

    def total() -> float:
        with torch.no_grad():
            return float((found_of(setting) * weights).sum())

    (grad_x,) = torch.autograd.grad((found_of(setting) * weights).sum(), setting.x_ND)
    group = setting.group
    pairs = [
        (setting.x_ND.detach(), grad_x),
        (group.lora_a_KMRD, group.grad_a_KMRD),
        *zip(group.lora_b_KOR, group.grad_b_KOR, strict=True),
    ]
    for tensor, grad in pairs:
        direction = torch.randn_like(tensor)
        tensor += 1e-5 * direction
        above = total()
        tensor -= 2e-5 * direction
        below = total()
        tensor += 1e-5 * direction
        assert (above - below) / 2e-5 == pytest.approx(float((grad * direction).sum()), rel=1e-6)


def _base_product(x_ND: Tensor, linears: FrozenLinears) -> Tensor:
    y_NO = x_ND.new_zeros(len(x_ND), sum(linears.sizes))
    add_base_product(y_NO, x_ND, linears)
    return y_NO


@pytest.mark.parametrize(
    ("dtype", "has_bias"),
    [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)],
)
def test_dequantised_base_gives_the_numbers_of_nf4(dtype: torch.dtype, has_bias: bool) -> None:
    torch.manual_seed(0)
    module = Linear4bit(128, 64, bias=has_bias, compute_dtype=dtype, quant_type="nf4")
    module = module.to(dtype).to("cpu")
    module.support_avx512bf16_for_cpu = False
    module.requires_grad_(False)
    x = torch.randn(16, 128, dtype=dtype, requires_grad=True)
    found = []
    for product in (
        module,
        lambda inputs: _base_product(inputs, freeze([module], False)),
        lambda inputs: _base_product(inputs, freeze([module], True)),
    ):
        y = product(x)
        (grad,) = torch.autograd.grad(y.square().sum(), x)
        found.append((y, grad))
    for pair in found[1:]:
        assert pair[0].dtype == dtype
        torch.testing.assert_close(pair, found[0])
    assert torch.equal(found[1][0], found[2][0]) and torch.equal(found[1][1], found[2][1])
