"""The packed linear: one frozen product for all slots, and each slot's own LoRA beside it.

For each module of a group, as in PEFT (arXiv 2106.09685): y = W x + b + scaling * B A dropout(x).

Shapes: K slots, N tokens of a pass, D features in, O features out of all modules that share an
input, M of them, R rank (padded to the pack's largest).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, dequantize_blockwise
from bitsandbytes.nn import Linear4bit
from torch import Tensor

from trainables.packing.compute.kernels.inputs import Dropout, Segments
from trainables.packing.compute.segments import products_for


class Nf4(NamedTuple):
    """A quantised weight."""

    weight: Tensor
    """Packed bytes."""
    state: QuantState
    """With the scales of its blocks in float32, not quantised again."""


class FrozenLinears(NamedTuple):
    """The base's linear layers that share an input; their outputs lie side by side."""

    weight_OD: Tensor | None
    """In the compute type; None if the weights stay in NF4."""
    quantised: tuple[Nf4, ...]
    bias_O: Tensor | None
    sizes: tuple[int, ...]
    """Outputs of each module."""

    @property
    def num_weights(self) -> int:
        """O times D."""
        if self.weight_OD is not None:
            return self.weight_OD.numel()
        return sum(math.prod(part.state.shape) for part in self.quantised)


class LoraGroup(NamedTuple):
    """The adapters of the modules that share an input: q, k, v; o; gate, up; or down."""

    lora_a_KMRD: Tensor
    lora_b_KOR: tuple[Tensor, ...]
    """One for each module, O its own outputs."""
    grad_a_KMRD: Tensor
    """Where backward passes add up; so are grad_b_KOR."""
    grad_b_KOR: tuple[Tensor, ...]
    scaling_KM: Tensor
    """alpha / rank or alpha / sqrt(rank); 0 where the trial does not adapt the module."""
    module_keys_M2: Tensor


def freeze(modules: Sequence[Any], is_dequantised: bool) -> FrozenLinears:
    """Layers of the base as tensors.

    Dequantised weights are the numbers that NF4 gives in every product, kept instead of made anew.
    Those of a base that is not quantised lie side by side from now on, in the modules too.
    """
    sizes = tuple(module.out_features for module in modules)
    biases = [module.bias for module in modules if module.bias is not None]
    bias_O = torch.cat([bias.detach() for bias in biases]) if biases else None
    assert len(biases) in (0, len(modules))
    if not isinstance(modules[0], Linear4bit):
        weight_OD = torch.cat([module.weight.detach() for module in modules])
        for module, weight in zip(modules, torch.split(weight_OD, list(sizes)), strict=True):
            module.weight.data = weight  # a large base is not held twice while it is read
        return FrozenLinears(weight_OD, (), bias_O, sizes)
    quantised = tuple(_nf4(module) for module in modules)
    if is_dequantised:
        return FrozenLinears(_dequantise(quantised), (), bias_O, sizes)
    return FrozenLinears(None, quantised, bias_O, sizes)


def packed_linears(
    x_ND: Tensor,
    linears: FrozenLinears,
    group: LoraGroup,
    segments: Segments,
    dropout: Dropout | None,
) -> Tensor:
    """The outputs (N, O) of the modules that share an input.

    Like PEFT, every module draws its own dropout mask. The adapters' gradients are added to the
    group's in the backward pass, which needs the gradient of x to be asked for.
    """
    inputs = (x_ND, linears, group, segments, dropout)
    y_NO: Tensor = _PackedLinears.apply(*inputs)  # type: ignore[no-untyped-call]
    return y_NO


def add_base_product(y_NO: Tensor, x_ND: Tensor, linears: FrozenLinears) -> None:
    """Add x times the frozen weights to y, over the tokens of all slots at once.

    The product reads what it is added to while it computes; added after it, that costs twice.
    """
    y_NO.addmm_(x_ND, _dense(linears).T)
    if linears.bias_O is not None:
        y_NO += linears.bias_O


class _PackedLinears(torch.autograd.Function):
    """Keeps x and the small products; dropout and NF4's weights are made again when needed."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, *others: Any) -> Tensor:
        linears, group, segments, dropout = ctx.others = others
        products = products_for(x_ND)
        # The modules' outputs lie side by side in y, and each expand writes its own columns: y
        # needs no clearing, and the base's one product for all modules and slots is added last.
        y_NO = x_ND.new_empty(len(x_ND), sum(linears.sizes))
        extras = (segments, None, dropout, group.module_keys_M2)
        inner_MNR: Tensor = products.lora_shrink(x_ND, group.lora_a_KMRD, *extras)
        for module, y in enumerate(torch.split(y_NO, list(linears.sizes), dim=1)):
            lora_b, scaling_K = group.lora_b_KOR[module], group.scaling_KM[:, module]
            inner_1NR = inner_MNR[module, None]
            products.lora_expand(y, inner_1NR, lora_b.mT[:, None], segments, scaling_K)
        add_base_product(y_NO, x_ND, linears)
        ctx.save_for_backward(x_ND, inner_MNR)
        return y_NO

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad_NO,) = grads
        x_ND, inner_MNR = ctx.saved_tensors
        linears, group, segments, dropout = ctx.others
        products = products_for(x_ND)
        # Module by module: B's gradient, and the gradient of the inner product A drop(x).
        inner_grads = []
        for module, grad_y in enumerate(torch.split(grad_NO, list(linears.sizes), dim=1)):
            lora_b, scaling_K = group.lora_b_KOR[module].mT[:, None], group.scaling_KM[:, module]
            grad_b = group.grad_b_KOR[module].mT[:, None]
            inner_grads.append(products.lora_shrink(grad_y, lora_b, segments, scaling_K))
            inner_1NR = inner_MNR[module, None]
            products.lora_weight_grad_(grad_b, inner_1NR, grad_y, segments, scaling_K)
        # All modules at once, which share x: A's gradients, then x's, in which the same masks are
        # made again from their keys. The base is frozen, so W gives a gradient of x alone.
        grads_MNR = torch.cat(inner_grads)
        extras = (segments, None, dropout, group.module_keys_M2)
        products.lora_weight_grad_(group.grad_a_KMRD, grads_MNR, x_ND, *extras)
        grad_ND = torch.empty_like(x_ND)
        products.lora_expand(grad_ND, grads_MNR, group.lora_a_KMRD, *extras)
        grad_ND.addmm_(grad_NO, _dense(linears))
        return grad_ND, None, None, None, None


def _dense(linears: FrozenLinears) -> Tensor:
    if linears.weight_OD is not None:
        return linears.weight_OD
    return _dequantise(linears.quantised)


def _nf4(module: Any) -> Nf4:
    state = module.weight.quant_state
    assert state.quant_type == "nf4"
    # Double quantisation (arXiv 2305.14314, section 3) is undone once: the scales themselves are
    # 8-bit numbers with a scale for each 256, plus a mean.
    absmax = state.absmax
    if state.nested:
        absmax = dequantize_blockwise(state.absmax, state.state2) + state.offset
    flat_state = QuantState(
        absmax=absmax.float(),
        shape=torch.Size((module.out_features, module.in_features)),
        blocksize=state.blocksize,
        quant_type="nf4",
        dtype=state.dtype,
    )
    return Nf4(module.weight.detach(), flat_state)


def _dequantise(quantised: Sequence[Nf4]) -> Tensor:
    """NF4 bytes as one (O, D), in the type in which the base computes."""
    weights = [dequantize_4bit(part.weight, part.state) for part in quantised]
    return weights[0] if len(weights) == 1 else torch.cat(weights)
