"""The packed linear, against a plain product for each slot."""

from typing import NamedTuple

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from torch import Tensor

from trainables.packing.lora import FrozenLinear, LoraGroup, base_product, freeze, packed_linears
from trainables.packing.masks import Dropout, keep_mask, make_dropout, module_key, row_key

SLOTS, ROWS, TOKENS, FEATURES, RANK = 3, 2, 4, 6, 5
OUTS = (7, 3)
RANKS = (5, 2, 3)
SCALING = torch.tensor([[2.0, 0.5], [1.0, 0.0], [0.3, 1.5]], dtype=torch.float64)


class Setting(NamedTuple):
    """Three slots of different ranks, the second of which does not adapt the second module."""

    x_KND: Tensor
    bases: list[FrozenLinear]
    group: LoraGroup
    dropout: Dropout


@pytest.fixture
def setting() -> Setting:
    torch.manual_seed(0)
    options = {"dtype": torch.float64}
    x_KND = torch.randn(SLOTS, ROWS * TOKENS, FEATURES, **options)
    bases = [
        FrozenLinear(
            torch.randn(out, FEATURES, **options),
            torch.randn(out, **options) if out == OUTS[0] else None,
            None,
            0,
            (out, FEATURES),
        )
        for out in OUTS
    ]
    lora_a = torch.randn(SLOTS, len(OUTS), RANK, FEATURES, **options)
    lora_b = [torch.randn(SLOTS, out, RANK, **options) for out in OUTS]
    for slot, rank in enumerate(RANKS):
        lora_a[slot, :, rank:] = 0
        for matrix in lora_b:
            matrix[slot, :, rank:] = 0
    module_keys = torch.tensor([module_key(3), module_key(4)], dtype=torch.int32)
    leaves = tuple(matrix.requires_grad_() for matrix in lora_b)
    group = LoraGroup(lora_a.requires_grad_(), leaves, SCALING, module_keys)
    keys = [[row_key(slot, 1, row) for row in range(ROWS)] for slot in range(SLOTS)]
    words = torch.tensor(keys, dtype=torch.int32)
    return Setting(
        x_KND, bases, group, make_dropout(words, torch.tensor([0.3, 0.0, 0.3], dtype=torch.float64))
    )


def plain(setting: Setting, is_dropping: bool) -> list[Tensor]:
    """PEFT's formula, one slot and module at a time."""
    x_KND, bases, group, dropout = setting
    outputs = []
    for module, base in enumerate(bases):
        kept = keep_mask(x_KND.shape, dropout, group.module_keys_M2[module])
        slots = []
        for k in range(SLOTS):
            x = x_KND[k] * kept[k] * dropout.scale_K[k] if is_dropping else x_KND[k]
            rank = RANKS[k]
            lora_a = group.lora_a_KMRD[k, module, :rank]
            lora_b = group.lora_b_KOR[module][k, :, :rank]
            result = torch.nn.functional.linear(x_KND[k], base.weight, base.bias_O)
            slots.append(result + (x @ lora_a.T @ lora_b.T) * SCALING[k, module])
        outputs.append(torch.stack(slots))
    return outputs


@pytest.mark.parametrize("is_dropping", [False, True])
def test_outputs_and_gradients_are_those_of_each_slot_alone(
    setting: Setting, is_dropping: bool
) -> None:
    leaves = [setting.group.lora_a_KMRD, *setting.group.lora_b_KOR, setting.x_KND.requires_grad_()]
    found = packed_linears(
        setting.x_KND, setting.bases, setting.group, setting.dropout if is_dropping else None
    )
    expected = plain(setting, is_dropping)
    weights = [torch.randn_like(output) for output in expected]
    grads = []
    for outputs in (found, expected):
        total = sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True))
        grads.append(torch.autograd.grad(total, leaves))
    for one, other in zip([*found, *grads[0]], [*expected, *grads[1]], strict=True):
        torch.testing.assert_close(one, other)


def test_padded_ranks_and_unadapted_modules_get_gradients_of_exactly_zero(
    setting: Setting,
) -> None:
    for output in packed_linears(setting.x_KND, setting.bases, setting.group, setting.dropout):
        output.square().sum().backward()
    grad_a = setting.group.lora_a_KMRD.grad
    grads_b = [matrix.grad for matrix in setting.group.lora_b_KOR]
    assert grad_a is not None
    for slot, rank in enumerate(RANKS):
        assert (grad_a[slot, :, rank:] == 0).all()
        assert grad_a[slot, 0, :rank].abs().min() > 0
        for grad_b in grads_b:
            assert grad_b is not None and (grad_b[slot, :, rank:] == 0).all()
    assert (grad_a[1, 1] == 0).all()
    assert grads_b[1] is not None and (grads_b[1][1] == 0).all()
    assert grads_b[1][0].abs().min() > 0


def test_gradients_with_dropout_agree_with_finite_differences(setting: Setting) -> None:
    def outputs(x: Tensor, lora_a: Tensor, *lora_b: Tensor) -> tuple[Tensor, ...]:
        group = setting.group._replace(lora_a_KMRD=lora_a, lora_b_KOR=lora_b)
        return tuple(packed_linears(x, setting.bases, group, setting.dropout))

    leaves = (setting.x_KND.requires_grad_(), setting.group.lora_a_KMRD, *setting.group.lora_b_KOR)
    assert torch.autograd.gradcheck(outputs, leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [False, True])
def test_dequantised_base_gives_the_numbers_of_nf4(dtype: torch.dtype, has_bias: bool) -> None:
    torch.manual_seed(0)
    module = Linear4bit(128, 64, bias=has_bias, compute_dtype=dtype, quant_type="nf4")
    module = module.to(dtype).to("cpu")
    module.support_avx512bf16_for_cpu = False
    module.requires_grad_(False)
    x = torch.randn(2, 8, 128, dtype=dtype, requires_grad=True)
    found = []
    for product in (
        module,
        lambda inputs: base_product(inputs, freeze(module, False)),
        lambda inputs: base_product(inputs, freeze(module, True)),
    ):
        y = product(x)
        (grad,) = torch.autograd.grad(y.square().sum(), x)
        found.append((y, grad))
    for pair in found[1:]:
        assert pair[0].dtype == dtype
        torch.testing.assert_close(pair, found[0])
    assert torch.equal(found[1][0], found[2][0]) and torch.equal(found[1][1], found[2][1])
