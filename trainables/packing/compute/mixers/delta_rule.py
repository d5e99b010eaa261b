"""The gated delta rule (arXiv 2412.06464): what queries read of a memory that each token changes.

Token by token, M = d M + k (beta (v - (d M)' k))', and q reads M. In a chunk of tokens the updates
are one triangular system (arXiv 2406.06484, section 3.2; with decays arXiv 2412.06464, section
3.3).

Shapes: S rows, T tokens of a row, N nodes of a tree, H value heads, G key heads, C features of a
key, E of a value.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from trainables.packing.compute.kernels.inputs import CHUNK_TOKENS


class Heads(NamedTuple):
    """What the rule takes of every token."""

    q_STGC: Tensor
    """Unit vectors, as the keys are."""
    k_STGC: Tensor
    v_STHE: Tensor
    log_decay_STH: Tensor
    beta_STH: Tensor


def has_kernels(x: Tensor) -> bool:
    """Whether kernels compute with numbers like these; others are computed more exactly."""
    return x.is_cuda and x.dtype == torch.bfloat16


def run_rule(heads: Heads, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What the queries read (S, T, H, E), and the last memory (S, H, C, E).

    Args:
        memory: that of each row's beginning; None for one without a token.
    """
    if not has_kernels(heads.q_STGC):
        return _run_chunks(heads, memory)
    # It loads fla.
    from trainables.packing.compute.kernels.delta_rule import delta_rule_of_padded

    return delta_rule_of_padded(heads, memory)


def run_tree_rule(heads: Heads, memory_SHCE: Tensor, is_seen_NN: Tensor) -> Tensor:
    """What the queries of a tree's nodes read (S, N, H, E) behind a memory.

    A chunk's system holds for a tree too, if a token's past is its ancestors: branches need no
    memories of their own.

    Args:
        heads: of at least float32.
        is_seen_NN: which nodes (columns) each node (row) sees: itself and its ancestors, which come
            before it.
    """
    q, k, v, log_decay, beta = lay_out(heads)
    reach = log_decay @ is_seen_NN.to(log_decay.dtype).T  # from the memory
    values, reads, within = _solve(q, k, v, reach, beta, is_seen_NN)
    learnt = values - reads @ memory_SHCE
    mixed_SHNE = (q * reach.exp()[..., None]) @ memory_SHCE + within @ learnt
    return mixed_SHNE.transpose(1, 2)


def _run_chunks(heads: Heads, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
    num_tokens = heads.q_STGC.shape[1]
    missing = -num_tokens % CHUNK_TOKENS
    parts = (pad(x, (*[0, 0] * (x.ndim - 2), 0, missing)) for x in heads)
    laid_out = lay_out(Heads(*parts))
    q, k, v, log_decay, beta = (torch.unflatten(x, 2, (-1, CHUNK_TOKENS)) for x in laid_out)
    reach = log_decay.cumsum(dim=-1)  # from the chunk's start
    is_seen = torch.ones(CHUNK_TOKENS, CHUNK_TOKENS, dtype=torch.bool, device=q.device).tril()
    values, reads, within = _solve(q, k, v, reach, beta, is_seen)
    q_from_start = q * reach.exp()[..., None]
    k_to_end = k * (reach[..., -1:] - reach).exp()[..., None]
    kept = reach[..., -1].exp()[..., None, None]
    if memory is None:
        memory = v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1])
    read = []
    for chunk in range(v.shape[2]):
        learnt = values[:, :, chunk] - reads[:, :, chunk] @ memory
        read.append(q_from_start[:, :, chunk] @ memory + within[:, :, chunk] @ learnt)
        memory = memory * kept[:, :, chunk] + k_to_end[:, :, chunk].mT @ learnt
    return torch.cat(read, dim=2)[:, :, :num_tokens].transpose(1, 2), memory


def _solve(
    q: Tensor, k: Tensor, v: Tensor, reach: Tensor, beta: Tensor, is_seen: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What tokens (..., T, features) that see some of those before them learn without a memory,
    what they would know from it, and how much each reads of what the others learn (..., T, T).

    Args:
        reach: the sum of log decays from the memory to each token (..., T).
    """
    decay = (reach[..., :, None] - reach[..., None, :]).masked_fill(~is_seen, -torch.inf).exp()
    k_beta = k * beta[..., None]
    system = (k_beta @ k.mT) * decay
    sides = torch.cat((v * beta[..., None], k_beta * reach.exp()[..., None]), dim=-1)
    solved = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
    values, reads = torch.split(solved, [v.shape[-1], k.shape[-1]], dim=-1)
    return values, reads, (q @ k.mT) * decay


def lay_out(heads: Heads) -> tuple[Tensor, ...]:
    """Queries, scaled, keys and values (S, H, T, features), log decays and step sizes (S, H, T)."""
    q, k, *others = (part.transpose(1, 2) for part in heads)
    shared, scale = others[0].shape[1] // q.shape[1], q.shape[-1] ** -0.5
    q, k = (part.repeat_interleave(shared, dim=1) for part in (q, k))
    return q * scale, k, *others
