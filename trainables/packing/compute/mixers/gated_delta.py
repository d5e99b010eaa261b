"""Gated DeltaNet (arXiv 2412.06464) within each row, over rows that lie end to end.

A row's state is a matrix a head, which forgets by a factor each token and learns what a token's key
stands for. Neither it nor the short convolution before it crosses a row's end.

Shapes: S rows, N tokens or nodes of a tree, T tokens of the longest row, B rows in decoding,
H value heads, G key heads, C features of a key, E of a value, F of all value heads, P channels of
the convolution, W its width, L one less, Y tokens of the longest target, M tokens that are kept
beside a memory, X features of all key heads.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad, silu, softplus

from trainables.models.layer_kinds import KEPT_TOKENS
from trainables.packing.compute.elementwise import gate_norm
from trainables.packing.compute.kernels.inputs import L2_EPS, DeltaSizes
from trainables.packing.compute.mixers.delta_rule import (
    Heads,
    has_kernels,
    lay_out,
    run_rule,
    run_tree_rule,
)
from trainables.packing.compute.packed_batch import PackedInputs, pad_rows


class DeltaWeights(NamedTuple):
    """What a layer holds beside its linear layers."""

    conv_PW: Tensor
    log_decay_H: Tensor
    bias_H: Tensor
    norm_E: Tensor
    num_key_heads: int
    key_head_dim: int


class DeltaState(NamedTuple):
    """What decoding keeps of every row."""

    inputs_KSLP: Tensor
    """The convolution's last inputs, the oldest first, zero before a row's first token."""
    memory_KSHCE: Tensor
    """At least float32. Behind a prompt it is all that the row knows; then kernels write it every
    M tokens only, and keep the rest in between, which is 0 behind a prompt."""
    keys_KSMX: Tensor
    """Keys of the tokens since, all heads side by side."""
    learnt_KSMHE: Tensor
    """What they taught."""
    reach_KSMH: Tensor
    """The sum of log decays from the memory to each of them."""


def read_weights(module: Any) -> DeltaWeights:
    """Reads the weights of transformers' Qwen3_5GatedDeltaNet."""
    return DeltaWeights(
        conv_PW=module.conv1d.weight.detach().squeeze(1),
        log_decay_H=module.A_log.detach(),
        bias_H=module.dt_bias.detach(),
        norm_E=module.norm.weight.detach(),
        num_key_heads=module.num_k_heads,
        key_head_dim=module.head_k_dim,
    )


def new_state(weights: DeltaWeights, num_slots: int, num_rows: int, like: Tensor) -> DeltaState:
    """Makes the state of rows without a token; its inputs are of the type of like."""
    (num_channels, width), shape = weights.conv_PW.shape, (num_slots, num_rows)
    num_heads, key_dim, value_dim = (
        len(weights.log_decay_H),
        weights.key_head_dim,
        len(weights.norm_E),
    )
    exact = like.new_zeros((), dtype=torch.promote_types(like.dtype, torch.float32))
    return DeltaState(
        like.new_zeros(*shape, width - 1, num_channels),
        exact.new_zeros(*shape, num_heads, key_dim, value_dim),
        like.new_zeros(*shape, KEPT_TOKENS, weights.num_key_heads * key_dim),
        exact.new_zeros(*shape, KEPT_TOKENS, num_heads, value_dim),
        exact.new_zeros(*shape, KEPT_TOKENS, num_heads),
    )


def mix(projected_NO: Tensor, weights: DeltaWeights, inputs: PackedInputs, eps: float) -> Tensor:
    """(N, H * E) of tokens that lie end to end, from in_proj_qkv, z, b and a side by side."""
    if has_kernels(projected_NO):
        return _mix_by_kernels(projected_NO, weights, inputs, eps)
    rows = inputs.rows
    index_ST, is_real_ST = pad_rows(rows, len(projected_NO))
    padded_STO = torch.where(is_real_ST[..., None], projected_NO[index_ST], 0.0)
    heads, z_STF = _prepare(padded_STO, weights, inputs.position_ids_N)
    mixed_STHE, _ = run_rule(heads)
    return _gate(mixed_STHE, z_STF, weights, eps)[is_real_ST]


def _mix_by_kernels(
    projected_NO: Tensor, weights: DeltaWeights, inputs: PackedInputs, eps: float
) -> Tensor:
    # These load Triton, which a CPU has no use for.
    from trainables.packing.compute.kernels.delta_inputs import delta_inputs
    from trainables.packing.compute.kernels.delta_rule import delta_rule

    made = delta_inputs(projected_NO, *weights[:3], inputs.position_ids_N, _sizes(weights))
    mixed_NHE, _ = delta_rule(made[:5], inputs.rows.chunks)
    return _gate(mixed_NHE, made.z_NF, weights, eps)


class PaddedRows(NamedTuple):
    """Prompts with their targets, padded on the right: what all layers ask of where they stand."""

    position_ids_N: Tensor
    """int32, of all S * T tokens."""
    is_prompt_ST1: Tensor
    row_ids_S1: Tensor
    inputs_at_SL: Tensor
    """The last tokens of each prompt; negative where it has fewer."""
    targets_at_SY: Tensor
    """The tokens behind each prompt."""
    target_ids_ST: Tensor
    """Which of them each token is; 0 for those of prompts."""


def lay_out_rows(
    lengths_S: Tensor, num_tokens: int, num_targets: int, num_inputs: int
) -> PaddedRows:
    """The rows of prompts of these lengths.

    Args:
        num_tokens: T.
        num_targets: Y, tokens of the longest target.
        num_inputs: L, which the convolution takes beside a token's own.
    """

    def count(size: int) -> Tensor:
        return torch.arange(size, device=lengths_S.device)

    places_ST = count(num_tokens) - lengths_S[:, None]
    return PaddedRows(
        position_ids_N=count(num_tokens).int().repeat(len(lengths_S)),
        is_prompt_ST1=(places_ST < 0)[..., None],
        row_ids_S1=count(len(lengths_S))[:, None],
        inputs_at_SL=lengths_S[:, None] - num_inputs + count(num_inputs),
        targets_at_SY=(lengths_S[:, None] + count(num_targets)).clamp(max=num_tokens - 1),
        target_ids_ST=places_ST.clamp(0, max(0, num_targets - 1)),
    )


def read(
    projected_STO: Tensor, weights: DeltaWeights, eps: float, rows: PaddedRows
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """(S, T, F) of rows that are padded on the right, and their prompts' states.

    What is told of tokens behind a row's target means nothing.

    Returns:
        Also the convolution's inputs (S, L, P) and the memory (S, H, C, E), behind the prompts.
    """
    heads, z_STF = _prepare(projected_STO, weights, rows.position_ids_N)
    # Behind its prompt a row neither forgets nor learns, so the last memory is that of the prompt's
    # end. From there the targets go on in a pass of their own, which is a short one.
    decay, beta = (torch.where(rows.is_prompt_ST1, x, 0.0) for x in heads[3:])
    mixed_STHE, memory_SHCE = run_rule(heads._replace(log_decay_STH=decay, beta_STH=beta))
    if rows.targets_at_SY.shape[1]:
        targets = Heads(*(x[rows.row_ids_S1, rows.targets_at_SY] for x in heads))
        targets_SYHE, _ = run_rule(targets, memory_SHCE)
        targets_STHE = targets_SYHE[rows.row_ids_S1, rows.target_ids_ST]
        mixed_STHE = torch.where(rows.is_prompt_ST1[..., None], mixed_STHE, targets_STHE)
    mixed_STF = _gate(mixed_STHE, z_STF, weights, eps)
    at_SL = rows.inputs_at_SL
    inputs_SLP = projected_STO[rows.row_ids_S1, at_SL.clamp(min=0), : len(weights.conv_PW)]
    inputs_SLP = torch.where((at_SL >= 0)[..., None], inputs_SLP, 0.0)
    return mixed_STF, (inputs_SLP, memory_SHCE)


def read_tree(
    projected_SNO: Tensor,
    weights: DeltaWeights,
    eps: float,
    is_seen_NN: Tensor,
    inputs_SLP: Tensor,
    memory_SHCE: Tensor,
) -> Tensor:
    """(S, N, F) of the nodes of a tree behind every prompt.

    Args:
        is_seen_NN: which nodes (columns) each node (row) sees: itself and its ancestors, which come
            before it.
        inputs_SLP: the convolution's last inputs of each prompt, as memory_SHCE is its memory.
    """
    qkv_SNP, z_SNF, b_SNH, a_SNH = _split(projected_SNO, weights)
    turned_SNP = _convolve_tree(torch.cat((inputs_SLP, qkv_SNP), dim=1), weights, is_seen_NN)
    heads = _to_heads(turned_SNP, b_SNH, a_SNH, weights)
    mixed_SNHE = run_tree_rule(heads, memory_SHCE, is_seen_NN)
    return _gate(mixed_SNHE, z_SNF, weights, eps)


def step(
    projected_BO: Tensor,
    weights: DeltaWeights,
    state: DeltaState,
    positions_B: Tensor,
    is_done_B: Tensor,
    eps: float,
) -> Tensor:
    """(B, F) of one token a row; the state is changed in place, which a CUDA graph needs.

    Args:
        positions_B: of the tokens in their rows.
        is_done_B: rows that nobody asks for any more.
    """
    if projected_BO.is_cuda:
        return step_by_kernels(projected_BO, weights, state, positions_B, is_done_B, eps)
    return step_plainly(projected_BO, weights, state, eps)


def step_by_kernels(
    projected_BO: Tensor,
    weights: DeltaWeights,
    state: DeltaState,
    positions_B: Tensor,
    is_done_B: Tensor,
    eps: float,
) -> Tensor:
    """step for a GPU."""
    # It loads Triton.
    from trainables.packing.compute.kernels.delta_step import delta_step

    parts = [part.view(-1, *part.shape[2:]) for part in state]
    return delta_step(projected_BO, *weights[:4], positions_B, is_done_B, eps, *parts)


def step_plainly(
    projected_BO: Tensor, weights: DeltaWeights, state: DeltaState, eps: float
) -> Tensor:
    """step by plain functions."""
    qkv_BP, z_BF, b_BH, a_BH = _split(projected_BO, weights)
    inputs_BLP, memory_BHCE = (part.view(-1, *part.shape[2:]) for part in state[:2])
    inputs_BWP = torch.cat((inputs_BLP, qkv_BP[:, None]), dim=1)
    inputs_BLP.copy_(inputs_BWP[:, 1:])
    turned_BP = (inputs_BWP.to(memory_BHCE.dtype) * weights.conv_PW.T).sum(dim=1)
    turned_BP = silu(turned_BP.to(qkv_BP.dtype))
    heads = _to_heads(turned_BP[:, None], b_BH[:, None], a_BH[:, None], weights)
    q_BHC, k_BHC, v_BHE, log_decay_BH, beta_BH = (part[:, :, 0] for part in lay_out(heads))
    memory_BHCE *= log_decay_BH.exp()[..., None, None]
    known_BHE = (memory_BHCE * k_BHC[..., None]).sum(dim=-2)
    learnt_BHE = (v_BHE - known_BHE) * beta_BH[..., None]
    memory_BHCE += k_BHC[..., None] * learnt_BHE[..., None, :]
    mixed_BHE = (memory_BHCE * q_BHC[..., None]).sum(dim=-2).to(z_BF.dtype)
    return gate_norm(mixed_BHE, z_BF, weights.norm_E, eps)


def _sizes(weights: DeltaWeights) -> DeltaSizes:
    num_heads, head_dim = len(weights.log_decay_H), len(weights.norm_E)
    return DeltaSizes(weights.num_key_heads, weights.key_head_dim, num_heads, head_dim)


def _gate(mixed: Tensor, z: Tensor, weights: DeltaWeights, eps: float) -> Tensor:
    """gate_norm of heads (..., H, E) that may be more exact than z (..., F)."""
    mixed = mixed.to(z.dtype)
    if not has_kernels(z):
        return gate_norm(mixed, z, weights.norm_E, eps)
    # It loads Triton.
    from trainables.packing.compute.kernels import delta_gate

    flat = (mixed.flatten(0, -3), z.flatten(0, -2))
    return delta_gate.gate_norm(*flat, weights.norm_E, eps).view(z.shape)


def _split(projected: Tensor, weights: DeltaWeights) -> tuple[Tensor, ...]:
    num_heads = len(weights.log_decay_H)
    sizes = [len(weights.conv_PW), num_heads * len(weights.norm_E), num_heads, num_heads]
    return torch.split(projected, sizes, dim=-1)


def _prepare(
    projected_STO: Tensor, weights: DeltaWeights, position_ids_N: Tensor
) -> tuple[Heads, Tensor]:
    """The heads of rows that begin at their first token, and z (S, T, F)."""
    if has_kernels(projected_STO):
        # It loads Triton.
        from trainables.packing.compute.kernels.delta_inputs import delta_inputs

        flat_NO = projected_STO.flatten(0, 1)
        made = delta_inputs(flat_NO, *weights[:3], position_ids_N, _sizes(weights))
        *heads, z_STF = (torch.unflatten(x, 0, projected_STO.shape[:2]) for x in made)
        return Heads(*heads), z_STF
    qkv_STP, z_STF, b_STH, a_STH = _split(projected_STO, weights)
    inputs_SPT = pad(qkv_STP.mT, (weights.conv_PW.shape[1] - 1, 0))
    turned_SPT = conv1d(inputs_SPT, weights.conv_PW[:, None], groups=len(weights.conv_PW))
    return _to_heads(silu(turned_SPT).mT, b_STH, a_STH, weights), z_STF


def _convolve_tree(inputs_SXP: Tensor, weights: DeltaWeights, is_seen_NN: Tensor) -> Tensor:
    """silu of the convolution (S, N, P) over each node, its ancestors and its prompt's end.

    Args:
        inputs_SXP: of the prompt's last L tokens, then of the nodes.
    """
    width, exact = weights.conv_PW.shape[1], torch.promote_types(inputs_SXP.dtype, torch.float32)
    # An ancestor is known by the number of nodes that it sees.
    depths_N = is_seen_NN.sum(dim=1)
    turned_SNP = inputs_SXP.new_zeros(())
    for back in range(width):
        is_it_NN = is_seen_NN & (depths_N == depths_N[:, None] - back)
        in_tree_N = is_it_NN.int().argmax(dim=1) + width - 1
        at_N = torch.where(back < depths_N, in_tree_N, depths_N + width - 2 - back)
        turned_SNP = turned_SNP + inputs_SXP[:, at_N].to(exact) * weights.conv_PW[:, -1 - back]
    return silu(turned_SNP.to(inputs_SXP.dtype))


def _to_heads(turned_STP: Tensor, b_STH: Tensor, a_STH: Tensor, weights: DeltaWeights) -> Heads:
    """Unit keys and queries, values, log decays and step sizes, in float32 at least."""
    exact = torch.promote_types(turned_STP.dtype, torch.float32)
    key_size = weights.num_key_heads * weights.key_head_dim
    sizes = [key_size, key_size, turned_STP.shape[-1] - 2 * key_size]
    q, k, v = torch.split(turned_STP.to(exact), sizes, dim=-1)
    q, k = (_normalise(torch.unflatten(x, -1, (weights.num_key_heads, -1))) for x in (q, k))
    rate_H = -weights.log_decay_H.to(exact).exp()
    log_decay_STH = rate_H * softplus(a_STH.to(exact) + weights.bias_H)
    v_STHE = torch.unflatten(v, -1, (len(rate_H), -1))
    return Heads(q, k, v_STHE, log_decay_STH, b_STH.sigmoid().to(exact))


def _normalise(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + L2_EPS)
