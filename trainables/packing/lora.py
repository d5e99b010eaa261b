"""The packed linear: one frozen product for all slots, and each slot's own LoRA beside it.

Shapes: K slots, N tokens of a slot, D features in, O features out, R rank (padded to the pack's
largest), M modules that share an input.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from bitsandbytes.functional import dequantize_blockwise
from bitsandbytes.nn import Linear4bit
from torch import Tensor
from torch.nn.functional import linear

from trainables.packing.masks import Dropout, drop


class FrozenLinear(NamedTuple):
    """A linear layer of the base."""

    weight: Tensor
    """(O, D) in the compute type, or the packed bytes of NF4."""
    bias_O: Tensor | None
    absmax: Tensor | None
    """float32 scale of each NF4 block; None if the weight is dequantised."""
    block_size: int
    shape_OD: tuple[int, int]


class LoraGroup(NamedTuple):
    """The adapters of the modules that share an input: q, k, v; o; gate, up; or down."""

    lora_a_KMRD: Tensor
    lora_b_KOR: tuple[Tensor, ...]
    """One for each module."""
    scaling_KM: Tensor
    """alpha / rank or alpha / sqrt(rank); 0 where the trial does not adapt the module."""
    module_keys_M2: Tensor


def freeze(module: Any, is_dequantised: bool) -> FrozenLinear:
    """A layer of the base as tensors.

    Dequantised weights are the numbers that NF4 gives in every product, kept instead of made anew.
    """
    bias_O = None if module.bias is None else module.bias.detach()
    weight = module.weight.detach()
    shape = (module.out_features, module.in_features)
    if not isinstance(module, Linear4bit):
        return FrozenLinear(weight, bias_O, None, 0, shape)
    state = module.weight.quant_state
    assert state.quant_type == "nf4"
    absmax = state.absmax
    if state.nested:
        absmax = dequantize_blockwise(state.absmax, state.state2) + state.offset
    absmax = absmax.float()
    if not is_dequantised:
        return FrozenLinear(weight, bias_O, absmax, state.blocksize, shape)
    whole = _dequantised(weight, absmax, state.blocksize, shape, state.dtype)
    return FrozenLinear(whole, bias_O, None, 0, shape)


def packed_linears(
    x_KND: Tensor, bases: Sequence[FrozenLinear], group: LoraGroup, dropout: Dropout | None
) -> list[Tensor]:
    """The outputs (K, N, O) of the modules that share an input.

    Like PEFT, every module draws its own dropout mask. So one product with all their A matrices
    serves only without dropout; with it there is a product for each module.
    """
    inner_MKNR = _inner(x_KND, group, dropout)
    return [
        base_product(x_KND, base) + _outer(inner_KNR, lora_b_KOR, group.scaling_KM[:, place])
        for place, (base, inner_KNR, lora_b_KOR) in enumerate(
            zip(bases, inner_MKNR, group.lora_b_KOR, strict=True)
        )
    ]


def base_product(x_KND: Tensor, base: FrozenLinear) -> Tensor:
    """x times the frozen weight, over the tokens of all slots at once."""
    num_slots, num_tokens, num_features = x_KND.shape
    x_ND = x_KND.reshape(num_slots * num_tokens, num_features)
    if base.absmax is None:
        y_NO = linear(x_ND, base.weight, base.bias_O)
    else:
        y_NO = _QuantisedProduct.apply(  # type: ignore[no-untyped-call]
            x_ND, base.weight, base.bias_O, base.absmax, base.block_size, base.shape_OD
        )
    return y_NO.view(num_slots, num_tokens, base.shape_OD[0])


class _QuantisedProduct(torch.autograd.Function):
    """Dequantises in both passes, so that the graph holds no dequantised weight."""

    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        weight: Tensor,
        bias_O: Tensor | None,
        absmax: Tensor,
        block_size: int,
        shape_OD: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(weight, absmax)
        ctx.layout = (block_size, shape_OD, x_ND.dtype)
        return linear(x_ND, _dequantised(weight, absmax, *ctx.layout), bias_O)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        weight_OD = _dequantised(*ctx.saved_tensors, *ctx.layout)
        return grads[0] @ weight_OD, None, None, None, None, None


def _dequantised(
    weight: Tensor, absmax: Tensor, block_size: int, shape_OD: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """NF4 bytes as (O, D)."""
    made: Tensor = torch.ops.bitsandbytes.dequantize_4bit(
        weight, absmax, block_size, "nf4", list(shape_OD), dtype
    )
    return made


def _inner(x_KND: Tensor, group: LoraGroup, dropout: Dropout | None) -> Sequence[Tensor]:
    """x times each module's A."""
    lora_a_KMRD = group.lora_a_KMRD.to(x_KND.dtype)
    num_modules, rank = lora_a_KMRD.shape[1:3]
    if dropout is None:
        return torch.split(torch.bmm(x_KND, lora_a_KMRD.flatten(1, 2).mT), rank, dim=-1)
    return [
        torch.bmm(drop(x_KND, dropout, group.module_keys_M2[place]), lora_a_KMRD[:, place].mT)
        for place in range(num_modules)
    ]


def _outer(inner_KNR: Tensor, lora_b_KOR: Tensor, scaling_K: Tensor) -> Tensor:
    """inner times B; the scaling is put into B, the smallest of the factors."""
    scaled_KOR = (lora_b_KOR * scaling_K[:, None, None]).to(inner_KNR.dtype)
    return torch.bmm(inner_KNR, scaled_KOR.mT)
