"""One block with kept keys and values: over whole prompts, and over one token a row.

Prompts are padded on the right and a row's answer goes on at its own next place, so a prompt is
read under the causal mask alone, as in training.

Shapes: K slots, S rows of a slot, B = K * S, T tokens of a prompt or places of a row, N tokens of
a slot, D features in, O features out, H query heads, G key heads, C features of a head, M modules
that share an input, R rank.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

from trainables.packing.elementwise import rms_norm, rotated
from trainables.packing.lora import FrozenLinears, base_product
from trainables.packing.model import LayerWeights


class Sizes(NamedTuple):
    """What the shapes of the weights do not tell."""

    num_rows: int
    head_dim: int
    norm_eps: float


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
    kept: KeysValues | None,
    cos_TC: Tensor,
    sin_TC: Tensor,
    sizes: Sizes,
) -> Tensor:
    """One block over whole rows; their keys and values become the first places of kept."""
    q, k, v = _heads(x_KND, weights, groups[0], cos_TC, sin_TC, sizes)
    if kept is not None:
        num_tokens = k.shape[2]
        for place_KSGTC, new_BGTC in zip(kept, (k, v), strict=True):
            shape = (*place_KSGTC.shape[:3], num_tokens, sizes.head_dim)
            place_KSGTC[:, :, :, :num_tokens] = new_BGTC.view(shape)
    mixed_BHTC = scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=sizes.head_dim**-0.5, enable_gqa=True
    )
    return _after_attention(x_KND, mixed_BHTC.transpose(1, 2), weights, groups, sizes)


def token_layer(
    x_KSD: Tensor,
    weights: LayerWeights,
    groups: Sequence[FrozenGroup],
    kept: KeysValues,
    places_B: Tensor,
    cos_B11C: Tensor,
    sin_B11C: Tensor,
    sizes: Sizes,
) -> Tensor:
    """One block over one token a row, which sees its row's places up to its own.

    The query heads that share a key head stand in for tokens, so that every attention kernel can
    serve and no key is repeated in memory.
    """
    q_BH1C, k_BG1C, v_BG1C = _heads(x_KSD, weights, groups[0], cos_B11C, sin_B11C, sizes)
    keys_BGTC, values_BGTC = (x.view(-1, *x.shape[2:]) for x in kept)
    row_B = torch.arange(places_B.shape[0], device=places_B.device)
    keys_BGTC[row_B, :, places_B] = k_BG1C[:, :, 0]
    values_BGTC[row_B, :, places_B] = v_BG1C[:, :, 0]
    place_T = torch.arange(keys_BGTC.shape[2], device=places_B.device)
    is_seen_B11T = (place_T <= places_B[:, None])[:, None, None]
    mixed = scaled_dot_product_attention(
        q_BH1C.reshape(k_BG1C.shape[0], k_BG1C.shape[1], -1, sizes.head_dim),
        keys_BGTC,
        values_BGTC,
        attn_mask=is_seen_B11T,
        scale=sizes.head_dim**-0.5,
    )
    return _after_attention(x_KSD, mixed, weights, groups, sizes)


def _heads(
    x_KND: Tensor,
    weights: LayerWeights,
    group: FrozenGroup,
    cos_TC: Tensor,
    sin_TC: Tensor,
    sizes: Sizes,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, H, T, C), keys and values (B, G, T, C), rotated to their places."""
    normed_KND = rms_norm(x_KND, weights.input_norm_D, sizes.norm_eps)
    num_slots, num_tokens, _ = x_KND.shape
    shape = (num_slots * sizes.num_rows, num_tokens // sizes.num_rows, -1, sizes.head_dim)
    parts = _adapted(normed_KND, weights.linears[0], group)
    q, k, v = (part.reshape(shape) for part in parts)
    if weights.head_norms is not None:
        q = rms_norm(q, weights.head_norms.query_C, sizes.norm_eps)
        k = rms_norm(k, weights.head_norms.key_C, sizes.norm_eps)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return rotated(q, cos_TC, sin_TC), rotated(k, cos_TC, sin_TC), v


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
    x_KND = x_KND + _adapted(mixed_KND, o_linears, o_group)[0]
    normed_KND = rms_norm(x_KND, weights.post_norm_D, sizes.norm_eps)
    gate, up = _adapted(normed_KND, gate_up_linears, gate_up_group)
    return x_KND + _adapted(silu(gate) * up, down_linears, down_group)[0]


def _adapted(x_KND: Tensor, linears: FrozenLinears, group: FrozenGroup) -> list[Tensor]:
    """The outputs (K, N, O) of the modules that share an input, in the numbers of training."""
    rank = group.lora_b_KOR[0].shape[-1]
    inner_MKNR = torch.split(torch.bmm(x_KND, group.lora_a_KID.mT), rank, dim=-1)
    y_KNO = base_product(x_KND.flatten(0, 1), linears).view(*x_KND.shape[:2], -1)
    return [
        y + torch.bmm(inner_KNR, lora_b_KOR.mT)
        for y, inner_KNR, lora_b_KOR in zip(
            torch.split(y_KNO, list(linears.sizes), dim=-1),
            inner_MKNR,
            group.lora_b_KOR,
            strict=True,
        )
    ]
