"""One block with cached keys and values: over whole prompts, and over one token a row.

Prompts are padded on the right and a row's answer goes on at its own next position, so a prompt is
read under the causal mask alone, as in training.

Shapes: K slots, S rows of a slot, B = K * S, T tokens of a prompt or positions of a row, N tokens
of a slot, D features in, O features out, H query heads, G key heads, C features of a head,
M modules that share an input, R rank.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from trainables.packing.compute.lora import FrozenLinears, add_base_product
from trainables.packing.compute.model import Elementwise, LayerWeights


class Sizes(NamedTuple):
    """What the shapes of the weights do not tell."""

    num_rows: int
    head_dim: int
    norm_eps: float
    elementwise: Elementwise


class FrozenGroup(NamedTuple):
    """A LoraGroup of the evaluated slots, ready to multiply: nothing is cast or scaled a step."""

    lora_a_KID: Tensor
    """In the compute type, I = M * R."""
    lora_b_KOR: tuple[Tensor, ...]
    """In the compute type, times the scaling; one for each module."""


class KeysValues(NamedTuple):
    """What one layer keeps of every row, zero where nothing is written yet."""

    keys_KSGTC: Tensor
    values_KSGTC: Tensor


def prompt_layer(
    x_KND: Tensor,
    weights: LayerWeights,
    groups: Sequence[FrozenGroup],
    cached: KeysValues | None,
    cos_BTC: Tensor,
    sin_BTC: Tensor,
    sizes: Sizes,
) -> Tensor:
    """One block over whole rows; their keys and values become the first positions of the cache."""
    q, k, v = (
        part.view(*cos_BTC.shape[:2], -1, sizes.head_dim).transpose(1, 2)
        for part in _heads(x_KND, weights, groups[0], cos_BTC, sin_BTC, sizes)
    )
    # Every slot reads the same rows, so the batch is K * S rows of T tokens. Right padding needs no
    # mask: under the causal mask no real token sees what comes after it, and what padding computes
    # is overwritten in the cache by the answer, position by position, before it is ever seen.
    if cached is not None:
        num_tokens = k.shape[2]
        for cached_KSGTC, new_BGTC in zip(cached, (k, v), strict=True):
            shape = (*cached_KSGTC.shape[:3], num_tokens, sizes.head_dim)
            cached_KSGTC[:, :, :, :num_tokens] = new_BGTC.reshape(shape)
    mixed_BHTC = scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=sizes.head_dim**-0.5, enable_gqa=True
    )
    return _after_attention(x_KND, mixed_BHTC.transpose(1, 2), weights, groups, sizes)


def token_layer(
    x_KSD: Tensor,
    weights: LayerWeights,
    groups: Sequence[FrozenGroup],
    cached: KeysValues,
    positions_B: Tensor,
    cos_B1C: Tensor,
    sin_B1C: Tensor,
    sizes: Sizes,
) -> Tensor:
    """One block over one token a row, which sees its row's positions up to its own."""
    q_BHC, k_BGC, v_BGC = _heads(x_KSD, weights, groups[0], cos_B1C, sin_B1C, sizes)
    keys_BGTC, values_BGTC = (x.view(-1, *x.shape[2:]) for x in cached)
    # Rows stand at positions of their own, so keys are written by index, in place: a CUDA graph of
    # the step needs the cache to stay where it is.
    row_B = torch.arange(positions_B.shape[0], device=positions_B.device)
    keys_BGTC[row_B, :, positions_B] = k_BGC
    values_BGTC[row_B, :, positions_B] = v_BGC
    if q_BHC.is_cuda and q_BHC.dtype == torch.bfloat16:
        mixed = _token_kernel()(q_BHC, keys_BGTC, values_BGTC, positions_B)
    else:
        mixed = _token_attention(q_BHC, keys_BGTC, values_BGTC, positions_B)
    return _after_attention(x_KSD, mixed, weights, groups, sizes)


def _token_attention(
    q_BHC: Tensor, keys_BGTC: Tensor, values_BGTC: Tensor, positions_B: Tensor
) -> Tensor:
    """Attention of one token a row, in plain torch.

    The query heads that share a key head stand in for tokens: no key is repeated in memory.
    """
    position_T = torch.arange(keys_BGTC.shape[2], device=positions_B.device)
    is_seen_B11T = (position_T <= positions_B[:, None])[:, None, None]
    num_rows, num_key_heads, _, head_dim = keys_BGTC.shape
    return scaled_dot_product_attention(
        q_BHC.reshape(num_rows, num_key_heads, -1, head_dim),
        keys_BGTC,
        values_BGTC,
        attn_mask=is_seen_B11T,
        scale=head_dim**-0.5,
    )


def _token_kernel() -> Callable[..., Tensor]:
    from trainables.packing.compute.kernels.token_attention import token_attention  # loads Triton

    return token_attention


def _heads(
    x_KND: Tensor,
    weights: LayerWeights,
    group: FrozenGroup,
    cos: Tensor,
    sin: Tensor,
    sizes: Sizes,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (K * N, H, C), keys and values (K * N, G, C), rotated to their positions."""
    _, normed = sizes.elementwise.add_norm(
        x_KND.flatten(0, 1), None, weights.input_norm_D, sizes.norm_eps
    )
    qkv_KNE = _apply_linears(normed.view_as(x_KND), weights.linears[0], group)
    q_size, kv_size, _ = weights.linears[0].sizes
    return sizes.elementwise.heads(
        qkv_KNE.flatten(0, 1),
        weights.head_norms,
        cos.flatten(0, 1),
        sin.flatten(0, 1),
        (q_size, kv_size, sizes.head_dim),
        sizes.norm_eps,
    )


def _after_attention(
    x_KND: Tensor,
    mixed: Tensor,
    weights: LayerWeights,
    groups: Sequence[FrozenGroup],
    sizes: Sizes,
) -> Tensor:
    """The block's output projection and feed-forward; mixed is in the order of tokens, heads."""
    _, o_group, gate_up_group, down_group = groups
    _, o_linears, gate_up_linears, down_linears = weights.linears
    mixed_KND = mixed.reshape(x_KND.shape[0], x_KND.shape[1], -1)
    x, normed = sizes.elementwise.add_norm(
        x_KND.flatten(0, 1),
        _apply_linears(mixed_KND, o_linears, o_group).flatten(0, 1),
        weights.post_norm_D,
        sizes.norm_eps,
    )
    gate_up_KNO = _apply_linears(normed.view_as(x_KND), gate_up_linears, gate_up_group)
    inner = sizes.elementwise.swiglu(gate_up_KNO.flatten(0, 1))
    inner_KNF = inner.view(*x_KND.shape[:2], -1)
    return x.view_as(x_KND) + _apply_linears(inner_KNF, down_linears, down_group)


def _apply_linears(x_KND: Tensor, linears: FrozenLinears, group: FrozenGroup) -> Tensor:
    """The outputs (K, N, O) of the modules that share an input, side by side.

    LoRA's products are written first and the base's adds to them, as in training.
    """
    # One product gives the inner numbers of all modules that share x; each slot multiplies its own
    # tokens by its own matrices (bmm), because here all slots have equally many.
    rank = group.lora_b_KOR[0].shape[-1]
    inner_MKNR = torch.split(torch.bmm(x_KND, group.lora_a_KID.mT), rank, dim=-1)
    y_KNO = x_KND.new_empty(*x_KND.shape[:2], sum(linears.sizes))
    parts = torch.split(y_KNO, list(linears.sizes), dim=-1)
    for y, inner_KNR, lora_b_KOR in zip(parts, inner_MKNR, group.lora_b_KOR, strict=True):
        torch.bmm(inner_KNR, lora_b_KOR.mT, out=y)
    add_base_product(y_KNO.flatten(0, 1), x_KND.flatten(0, 1), linears)
    return y_KNO
