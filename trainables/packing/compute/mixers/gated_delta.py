"""Gated DeltaNet (arXiv 2412.06464) within each row, over rows that lie end to end.

A row's state is a matrix a head, which forgets by a factor each token and learns what a token's key
stands for. Neither it nor the short convolution before it crosses a row's end.

Shapes: S rows, N tokens, T tokens of the longest row, B rows in decoding, H value heads, G key
heads, C features of a key, E of a value, P channels of the convolution, W its width.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad, silu, softplus

from trainables.packing.compute.elementwise import gate_norm
from trainables.packing.compute.packed_batch import Rows, pad_rows

CHUNK = 64
"""Tokens whose products are made together; the state moves from chunk to chunk."""
L2_EPS = 1e-6
"""As transformers' l2norm has it."""


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

    inputs_KSPW: Tensor
    """The convolution's last inputs, zero before a row's first token."""
    memory_KSHCE: Tensor
    """At least float32."""


class _Heads(NamedTuple):
    q_SHTC: Tensor
    k_SHTC: Tensor
    v_SHTE: Tensor
    log_decay_SHT: Tensor
    beta_SHT: Tensor


def read_weights(module: Any) -> DeltaWeights:
    """Of transformers' Qwen3_5GatedDeltaNet."""
    return DeltaWeights(
        conv_PW=module.conv1d.weight.detach().squeeze(1),
        log_decay_H=module.A_log.detach(),
        bias_H=module.dt_bias.detach(),
        norm_E=module.norm.weight.detach(),
        num_key_heads=module.num_k_heads,
        key_head_dim=module.head_k_dim,
    )


def new_state(weights: DeltaWeights, num_slots: int, num_rows: int, like: Tensor) -> DeltaState:
    """Of rows without a token; the inputs are of the type of like."""
    num_heads, shape = len(weights.log_decay_H), (num_slots, num_rows)
    memory_shape = (*shape, num_heads, weights.key_head_dim, len(weights.norm_E))
    exact = torch.promote_types(like.dtype, torch.float32)
    return DeltaState(
        like.new_zeros(*shape, *weights.conv_PW.shape), like.new_zeros(memory_shape, dtype=exact)
    )


def mix(projected_NO: Tensor, weights: DeltaWeights, rows: Rows, eps: float) -> Tensor:
    """(N, H * E) of tokens that lie end to end, from in_proj_qkv, z, b and a side by side."""
    index_ST, is_real_ST = pad_rows(rows, len(projected_NO))
    padded_STO = torch.where(is_real_ST[..., None], projected_NO[index_ST], 0.0)
    mixed_STF, _ = mix_padded(padded_STO, weights, eps)
    return mixed_STF[is_real_ST]


def mix_padded(
    projected_STO: Tensor, weights: DeltaWeights, eps: float, lengths_S: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """(S, T, H * E) of rows that are padded on the right, and, behind the first lengths_S tokens of
    each, the convolution's inputs (S, P, W) and the memory (S, H, C, E)."""
    qkv_STP, z_STF, b_STH, a_STH = _split(projected_STO, weights)
    width = weights.conv_PW.shape[1]
    inputs_SPT = pad(qkv_STP.mT, (width - 1, 0))
    turned_SPT = conv1d(inputs_SPT, weights.conv_PW[:, None], groups=len(weights.conv_PW))
    heads = _to_heads(silu(turned_SPT).mT, b_STH, a_STH, weights)
    mixed_SHTE, _ = _run_chunks(heads)
    mixed_STF = gate_norm(mixed_SHTE.transpose(1, 2).to(z_STF.dtype), z_STF, weights.norm_E, eps)
    if lengths_S is None:
        return mixed_STF, None
    # Tokens behind the prompt neither forget nor learn, so the last memory is that of its end.
    positions_T = torch.arange(qkv_STP.shape[1], device=lengths_S.device)
    is_prompt_S1T = (positions_T < lengths_S[:, None])[:, None]
    decay, beta = (torch.where(is_prompt_S1T, x, 0.0) for x in heads[3:])
    _, memory_SHCE = _run_chunks(heads._replace(log_decay_SHT=decay, beta_SHT=beta))
    # The convolution's inputs have width - 1 zeros before the first token.
    at_S1W = lengths_S[:, None, None] - 1 + torch.arange(width, device=lengths_S.device)
    at_SPW = at_S1W.expand(-1, inputs_SPT.shape[1], -1)
    return mixed_STF, (inputs_SPT.gather(2, at_SPW), memory_SHCE)


def step(projected_BO: Tensor, weights: DeltaWeights, state: DeltaState, eps: float) -> Tensor:
    """(B, H * E) of one token a row; the state is changed in place, which a CUDA graph needs."""
    qkv_BP, z_BF, b_BH, a_BH = _split(projected_BO, weights)
    inputs_BPW, memory_BHCE = (part.flatten(0, 1) for part in state)  # views
    inputs_BPW.copy_(torch.cat((inputs_BPW[..., 1:], qkv_BP[..., None]), dim=-1))
    turned_BP = silu((inputs_BPW * weights.conv_PW).sum(dim=-1))
    heads = _to_heads(turned_BP[:, None], b_BH[:, None], a_BH[:, None], weights)
    q_BHC, k_BHC, v_BHE, log_decay_BH, beta_BH = (part[:, :, 0] for part in heads)
    memory_BHCE *= log_decay_BH.exp()[..., None, None]
    known_BHE = (memory_BHCE * k_BHC[..., None]).sum(dim=-2)
    learnt_BHE = (v_BHE - known_BHE) * beta_BH[..., None]
    memory_BHCE += k_BHC[..., None] * learnt_BHE[..., None, :]
    mixed_BHE = (memory_BHCE * q_BHC[..., None]).sum(dim=-2).to(z_BF.dtype)
    return gate_norm(mixed_BHE, z_BF, weights.norm_E, eps)


def _split(projected: Tensor, weights: DeltaWeights) -> tuple[Tensor, ...]:
    num_heads = len(weights.log_decay_H)
    sizes = [len(weights.conv_PW), num_heads * len(weights.norm_E), num_heads, num_heads]
    return torch.split(projected, sizes, dim=-1)


def _to_heads(turned_STP: Tensor, b_STH: Tensor, a_STH: Tensor, weights: DeltaWeights) -> _Heads:
    """Of at least float32: unit keys and queries, values, log decays and step sizes."""
    exact = torch.promote_types(turned_STP.dtype, torch.float32)
    num_heads, key_size = len(weights.log_decay_H), weights.num_key_heads * weights.key_head_dim
    sizes = [key_size, key_size, turned_STP.shape[-1] - 2 * key_size]
    q, k, v = (
        part.to(exact).reshape(*part.shape[:2], heads, -1).transpose(1, 2)
        for part, heads in zip(
            torch.split(turned_STP, sizes, dim=-1),
            (weights.num_key_heads, weights.num_key_heads, num_heads),
            strict=True,
        )
    )
    shared = num_heads // weights.num_key_heads
    q, k = (_normalise(part).repeat_interleave(shared, dim=1) for part in (q, k))
    rate_H = -weights.log_decay_H.to(exact).exp()
    log_decay_STH = rate_H * softplus(a_STH.to(exact) + weights.bias_H)
    beta_STH = b_STH.sigmoid().to(exact)
    return _Heads(q * weights.key_head_dim**-0.5, k, v, log_decay_STH.mT, beta_STH.mT)


def _normalise(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + L2_EPS)


def _run_chunks(heads: _Heads) -> tuple[Tensor, Tensor]:
    """What the queries read (S, H, T, E), and the last memory (S, H, C, E).

    Token by token, M = d M + k (beta (v - (d M)' k))', and q reads M. Within a chunk the updates
    are one triangular system (arXiv 2406.06484, section 3.2; with decays arXiv 2412.06464,
    section 3.3).
    """
    num_rows, num_heads, num_tokens, _ = heads.q_SHTC.shape
    missing = -num_tokens % CHUNK
    chunks = (num_rows, num_heads, -1, CHUNK)
    q, k, v = (pad(x, (0, 0, 0, missing)).reshape(*chunks, x.shape[-1]) for x in heads[:3])
    log_decay, beta = (pad(x, (0, missing)).reshape(chunks) for x in heads[3:])
    reach = log_decay.cumsum(dim=-1)  # from the chunk's start
    is_later = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).triu(1)
    decay = (reach[..., :, None] - reach[..., None, :]).masked_fill(is_later, -torch.inf).exp()
    k_beta = k * beta[..., None]
    system = (k_beta @ k.mT) * decay
    sides = torch.cat((v * beta[..., None], k_beta * reach.exp()[..., None]), dim=-1)
    solved = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
    values, reads = torch.split(solved, [v.shape[-1], k.shape[-1]], dim=-1)
    within = (q @ k.mT) * decay
    q_from_start = q * reach.exp()[..., None]
    k_to_end = k * (reach[..., -1:] - reach).exp()[..., None]
    kept = reach[..., -1].exp()[..., None, None]
    memory = v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
    read = []
    for chunk in range(v.shape[2]):
        learnt = values[:, :, chunk] - reads[:, :, chunk] @ memory
        read.append(q_from_start[:, :, chunk] @ memory + within[:, :, chunk] @ learnt)
        memory = memory * kept[:, :, chunk] + k_to_end[:, :, chunk].mT @ learnt
    return torch.cat(read, dim=2)[:, :, :num_tokens], memory
