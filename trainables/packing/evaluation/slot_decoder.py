"""The base with the present adapters of some slots: reads prompts, then decodes token by token.

Prompts are padded on the right and a row's answer goes on at its own next position, so a prompt is
read under the causal mask alone, as in training. Every tensor of a step keeps its shape and its
place in memory, so that the step can be captured as a CUDA graph.

Shapes: K slots, S rows of a slot, B = K * S, T tokens of a prompt or positions of a row, N tokens
of a slot, A = K * N tokens of all slots, D features in, O features out, E features of all heads,
H query heads, G key heads, C features of a head, M modules that share an input, R rank,
V vocabulary; of a tree of labels N nodes, which Q = H / G * N queries of a key head stand for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from trainables.metrics.label_tree import LabelTree
from trainables.packing.compute.elementwise import rms_norm
from trainables.packing.compute.lora import FrozenLinears, LoraGroup, add_base_product
from trainables.packing.compute.mixers import gated_delta
from trainables.packing.compute.mixers.gated_delta import DeltaState, DeltaWeights, PaddedRows
from trainables.packing.compute.model import LayerWeights, PackedModel


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


LayerState = KeysValues | DeltaState
TREE_NODES = 1 << 13
"""Nodes of all rows whose systems are solved together: at 64 nodes a tree and 32 value heads of 128
features, which make some 8 KiB of float32 a node and head, 2 GiB."""
Angles = tuple[Tensor, Tensor]
"""Cosines and sines (A, C) of the tokens' positions."""
Mix = Callable[[Tensor], Tensor]
"""What a layer makes of its projections (A, O), to be projected back."""


def map_state(state: LayerState, change: Callable[[Tensor], Tensor]) -> LayerState:
    """With other tensors: some rows of it, or copies."""
    parts = map(change, state)
    return KeysValues(*parts) if isinstance(state, KeysValues) else DeltaState(*parts)


@dataclass(frozen=True)
class SlotDecoder:
    """A pack's model for some slots; later training steps do not move it."""

    model: PackedModel
    layers: tuple[tuple[FrozenGroup, ...], ...]
    """Copies of the slots' adapters, in the compute type."""

    @classmethod
    def from_slots(cls, model: PackedModel, slots: Sequence[int]) -> Self:
        """The decoder of these slots, in this order."""
        index_K = torch.tensor(slots, device=model.embedding_VD.device)
        layers = tuple(
            tuple(_freeze_group(group, index_K, model.dtype) for group in groups)
            for groups in model.adapters.layers
        )
        return cls(model, layers)

    @property
    def num_slots(self) -> int:
        """K."""
        return len(self.layers[0][0].lora_a_KID)

    @property
    def device(self) -> torch.device:
        """Where the base is."""
        device: torch.device = self.model.embedding_VD.device
        return device

    def select_slots(self, index_K: Tensor) -> Self:
        """A decoder of some of these slots, by their index in K."""
        layers = tuple(
            tuple(FrozenGroup(a[index_K], tuple(b[index_K] for b in bs)) for a, bs in groups)
            for groups in self.layers
        )
        return replace(self, layers=layers)

    @property
    def is_recurrent(self) -> bool:
        """Whether a layer keeps a state of its rows."""
        return any(isinstance(layer.mixer, DeltaWeights) for layer in self.model.layers)

    def make_cache(self, num_rows: int, num_positions: int) -> list[LayerState]:
        """Zeros for every layer; what a mask hides is still multiplied, so it must be finite."""
        num_heads = self.model.config.num_key_value_heads
        shape = (self.num_slots, num_rows, num_heads, num_positions, self.model.head_dim)
        like = self.model.embedding_VD
        return [
            gated_delta.new_state(layer.mixer, self.num_slots, num_rows, like)
            if isinstance(layer.mixer, DeltaWeights)
            else KeysValues(like.new_zeros(shape), like.new_zeros(shape))
            for layer in self.model.layers
        ]

    def compute_rotation(self, num_positions: int) -> tuple[Tensor, Tensor]:
        """The rotary cosines and sines (T, C) of the first positions."""
        return self.model.angles(torch.arange(num_positions, device=self.device))

    def prefill(
        self,
        input_ids_ST: Tensor,
        lengths_S: Tensor,
        cache: Sequence[LayerState],
        num_targets: int = 0,
    ) -> Tensor:
        """The last layer's output (K, N, D) over rows that all slots share, padded on the right.

        Their keys and values become the first positions of the cache; states are those behind the
        prompts.

        Args:
            lengths_S: tokens of each prompt.
            num_targets: tokens of the longest target behind a prompt.
        """
        num_rows, num_tokens = input_ids_ST.shape
        cos_TC, sin_TC = self.compute_rotation(num_tokens)
        num_copies = self.num_slots * num_rows
        angles = (cos_TC.repeat(num_copies, 1), sin_TC.repeat(num_copies, 1))
        states = [state for state in cache if isinstance(state, DeltaState)]
        rows: Any = None  # which only layers with states read
        if states:
            lengths_B, num_inputs = lengths_S.repeat(self.num_slots), states[0].inputs_KSLP.shape[2]
            rows = gated_delta.lay_out_rows(lengths_B, num_tokens, num_targets, num_inputs)
        x_AD: Tensor = self.model.embedding_VD[input_ids_ST.flatten().repeat(self.num_slots)]
        mix_state = partial(self._mix_prompts, rows=rows)
        attend = partial(_attend_in_prompts, num_tokens=num_tokens)
        x_AD = self._run_layers(x_AD, angles, cache, mix_state, attend)
        return x_AD.view(self.num_slots, -1, x_AD.shape[1])

    def read_tree(self, tree: LabelTree, lengths_S: Tensor, cache: Sequence[LayerState]) -> Tensor:
        """The last layer's output (K, S, N, D) over the nodes of a tree behind every prompt.

        Args:
            lengths_S: tokens of each prompt.
            cache: of the prompts, which stays as it is.
        """
        positions = (lengths_S[:, None] + tree.depths_N).flatten().repeat(self.num_slots)
        num_prompt = max(s.keys_KSGTC.shape[3] for s in cache if isinstance(s, KeysValues))
        cos_TC, sin_TC = self.compute_rotation(num_prompt + len(tree.tokens_N))
        angles = (cos_TC[positions], sin_TC[positions])
        num_prompts = self.num_slots * len(lengths_S)
        x_AD: Tensor = self.model.embedding_VD[tree.tokens_N.repeat(num_prompts)]
        mix_state = partial(self._mix_tree, is_seen_NN=tree.is_seen_NN)
        attend = partial(_attend_in_tree, lengths_S=lengths_S, tree=tree)
        x_AD = self._run_layers(x_AD, angles, cache, mix_state, attend)
        return x_AD.view(self.num_slots, len(lengths_S), -1, x_AD.shape[1])

    def step(
        self,
        tokens_KS: Tensor,
        positions_KS: Tensor,
        cache: Sequence[LayerState],
        rotation: tuple[Tensor, Tensor],
        is_done_KS: Tensor,
    ) -> Tensor:
        """The last layer's output (K, S, D) over one token a row, which the cache then holds.

        Args:
            is_done_KS: rows that nobody asks for any more: what is given of them means nothing.
        """
        positions_B = positions_KS.flatten()
        angles = (rotation[0][positions_B], rotation[1][positions_B])
        x_BD: Tensor = self.model.embedding_VD[tokens_KS.flatten()]

        def mix_state(projected_BO: Tensor, mixer: DeltaWeights, state: DeltaState) -> Tensor:
            eps, is_done_B = self.model.config.rms_norm_eps, is_done_KS.flatten()
            return gated_delta.step(projected_BO, mixer, state, positions_B, is_done_B, eps)

        attend = partial(_attend_to_cache, positions_B=positions_B)
        x_BD = self._run_layers(x_BD, angles, cache, mix_state, attend)
        return x_BD.view(*tokens_KS.shape, -1)

    def logits(self, x: Tensor) -> Tensor:
        """The head over the last layer's outputs, (..., D) to (..., V)."""
        normed = rms_norm(x, self.model.norm_D, self.model.config.rms_norm_eps)
        logits: Tensor = normed @ self.model.head_VD.T
        return logits

    def logsumexp(self, logits: Tensor) -> Tensor:
        """float32 (...) of logits (..., V)."""
        if logits.is_cuda:
            from trainables.packing.compute.kernels.logsumexp import logsumexp  # loads Triton

            return logsumexp(logits)
        return logits.float().logsumexp(dim=-1)

    def _run_layers(
        self,
        x_AD: Tensor,
        angles: Angles,
        cache: Sequence[LayerState],
        mix_state: Callable[..., Tensor],
        attend: Callable[..., Tensor],
    ) -> Tensor:
        """All blocks, each in the order of operations of PackedModel's.

        Args:
            mix_state: takes a layer's projections (A, O), its mixer and its state.
            attend: takes queries, keys and values of a layer, and what is cached of it.
        """
        for weights, groups, cached in zip(self.model.layers, self.layers, cache, strict=True):
            mix: Mix
            if isinstance(cached, DeltaState):
                assert isinstance(weights.mixer, DeltaWeights)
                mix = partial(mix_state, mixer=weights.mixer, state=cached)
            else:
                attend_cached = partial(attend, cached=cached)
                mix = partial(
                    self.model.mix_heads, weights=weights, angles=angles, attend=attend_cached
                )
            x_AD = self._run_layer(x_AD, weights, groups, mix)
        return x_AD

    def _run_layer(
        self, x_AD: Tensor, weights: LayerWeights, groups: Sequence[FrozenGroup], mix: Mix
    ) -> Tensor:
        # What it makes goes when it returns, and the projections before that: the next layer's
        # would not fit beside them (sizing.memory_model).
        ops, eps, linears = self.model.elementwise, self.model.config.rms_norm_eps, weights.linears
        _, normed_AD = ops.add_norm(x_AD, None, weights.input_norm_D, eps)
        mixed_AE = mix(_apply_linears(normed_AD, linears[0], groups[0]))
        y_AD = _apply_linears(mixed_AE, linears[1], groups[1])
        x_AD, normed_AD = ops.add_norm(x_AD, y_AD, weights.post_norm_D, eps)
        gate_up = _apply_linears(normed_AD, linears[2], groups[2])
        return x_AD + _apply_linears(ops.swiglu(gate_up), linears[3], groups[3])

    def _mix_prompts(
        self, projected_AO: Tensor, mixer: DeltaWeights, state: DeltaState, *, rows: PaddedRows
    ) -> Tensor:
        """A layer of Gated DeltaNet over whole rows, whose prompts' states are kept."""
        projected_BTO = projected_AO.view(*rows.is_prompt_ST1.shape[:2], projected_AO.shape[1])
        eps = self.model.config.rms_norm_eps
        mixed_BTF, parts = gated_delta.read(projected_BTO, mixer, eps, rows)
        for kept, new in zip(state[:2], parts, strict=True):
            kept.copy_(new.view_as(kept))
        return mixed_BTF.flatten(0, 1)

    def _mix_tree(
        self, projected_AO: Tensor, mixer: DeltaWeights, state: DeltaState, *, is_seen_NN: Tensor
    ) -> Tensor:
        """A layer of Gated DeltaNet over the nodes of a tree behind every prompt."""
        num_nodes, eps = len(is_seen_NN), self.model.config.rms_norm_eps
        share = max(1, TREE_NODES // num_nodes)
        rows = (projected_AO.view(-1, num_nodes, projected_AO.shape[1]), *state[:2])
        parts = (torch.split(x if x is rows[0] else x.flatten(0, 1), share) for x in rows)
        mixed = [
            gated_delta.read_tree(projected, mixer, eps, is_seen_NN, *own)
            for projected, *own in zip(*parts, strict=True)
        ]
        return torch.cat(mixed).flatten(0, 1)


def _attend_in_prompts(
    q: Tensor, k: Tensor, v: Tensor, *, cached: KeysValues, num_tokens: int
) -> Tensor:
    """Attention (B, T, H, C) of whole rows, queries (A, H, C), keys and values (A, G, C)."""
    q, k, v = (part.view(-1, num_tokens, *part.shape[1:]).transpose(1, 2) for part in (q, k, v))
    # Every slot reads the same rows, so the batch is K * S rows of T tokens. Right padding needs no
    # mask: under the causal mask no real token sees what comes after it, and what padding computes
    # is overwritten in the cache by the answer, position by position, before it is ever seen.
    for cached_KSGTC, new_BGTC in zip(cached, (k, v), strict=True):
        first_KSGTC = cached_KSGTC[:, :, :, :num_tokens]
        first_KSGTC.copy_(new_BGTC.reshape(first_KSGTC.shape))
    mixed_BHTC = scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=q.shape[-1] ** -0.5, enable_gqa=True
    )
    return mixed_BHTC.transpose(1, 2)


def _attend_in_tree(
    q_AHC: Tensor,
    k_AGC: Tensor,
    v_AGC: Tensor,
    *,
    cached: KeysValues,
    lengths_S: Tensor,
    tree: LabelTree,
) -> Tensor:
    """Attention (A, H, C) or (B, N, G, H / G, C) of a tree's nodes."""
    if q_AHC.is_cuda and q_AHC.dtype == torch.bfloat16:
        # It loads Triton.
        from trainables.packing.compute.kernels.tree_attention import tree_attention

        return tree_attention(q_AHC, k_AGC, v_AGC, cached, lengths_S, tree.is_seen_NN)
    num_slots, _, num_key_heads, num_prompt, head_dim = cached.keys_KSGTC.shape
    num_nodes = len(tree.tokens_N)
    keys_BGTC, values_BGTC = (
        torch.cat(
            (old.flatten(0, 1), new.view(-1, num_nodes, num_key_heads, head_dim).transpose(1, 2)),
            dim=2,
        )
        for old, new in zip(cached, (k_AGC, v_AGC), strict=True)
    )
    # As in _attend_to_cache no key is repeated in memory. The kernels that take a mask on a GPU
    # want as many query heads as key heads.
    is_seen_SNT = tree.find_visible(lengths_S, num_prompt, num_prompt + num_nodes)
    shared = q_AHC.shape[1] // num_key_heads
    is_seen_B1QT = is_seen_SNT.repeat(num_slots, shared, 1)[:, None]
    q = q_AHC.view(-1, num_nodes, num_key_heads, shared, head_dim).permute(0, 2, 3, 1, 4)
    mixed_BGQC = scaled_dot_product_attention(
        q.flatten(2, 3), keys_BGTC, values_BGTC, attn_mask=is_seen_B1QT, scale=head_dim**-0.5
    )
    mixed = mixed_BGQC.reshape(-1, num_key_heads, shared, num_nodes, head_dim)
    return mixed.permute(0, 3, 1, 2, 4)


def _attend_to_cache(
    q_BHC: Tensor, k_BGC: Tensor, v_BGC: Tensor, *, cached: KeysValues, positions_B: Tensor
) -> Tensor:
    """Attention of one token a row, which sees its row's positions up to its own."""
    keys_BGTC, values_BGTC = (x.view(-1, *x.shape[2:]) for x in cached)
    # Rows stand at positions of their own, so keys are written by index, in place: a CUDA graph of
    # the step needs the cache to stay where it is.
    row_B = torch.arange(len(positions_B), device=positions_B.device)
    keys_BGTC[row_B, :, positions_B] = k_BGC
    values_BGTC[row_B, :, positions_B] = v_BGC
    if q_BHC.is_cuda and q_BHC.dtype == torch.bfloat16:
        # It loads Triton.
        from trainables.packing.compute.kernels.token_attention import token_attention

        return token_attention(q_BHC, keys_BGTC, values_BGTC, positions_B)
    # The query heads that share a key head stand in for tokens: no key is repeated in memory.
    num_rows, num_key_heads, num_positions, head_dim = keys_BGTC.shape
    position_T = torch.arange(num_positions, device=positions_B.device)
    is_seen_B11T = (position_T <= positions_B[:, None])[:, None, None]
    q_BGQC = q_BHC.reshape(num_rows, num_key_heads, -1, head_dim)
    return scaled_dot_product_attention(
        q_BGQC, keys_BGTC, values_BGTC, attn_mask=is_seen_B11T, scale=head_dim**-0.5
    )


def _apply_linears(x_AD: Tensor, linears: FrozenLinears, group: FrozenGroup) -> Tensor:
    """The outputs (A, O) of the modules that share an input, side by side.

    LoRA's products are written first and the base's adds to them, as in training.
    """
    # One product gives the inner numbers of all modules that share x; each slot multiplies its own
    # tokens by its own matrices (bmm), because here all slots have equally many.
    num_slots, rank = len(group.lora_a_KID), group.lora_b_KOR[0].shape[-1]
    x_KND = x_AD.view(num_slots, -1, x_AD.shape[1])
    inner_MKNR = torch.split(torch.bmm(x_KND, group.lora_a_KID.mT), rank, dim=-1)
    y_AO = x_AD.new_empty(len(x_AD), sum(linears.sizes))
    parts = torch.split(y_AO.view(num_slots, -1, y_AO.shape[1]), list(linears.sizes), dim=-1)
    for y_KNO, inner_KNR, lora_b_KOR in zip(parts, inner_MKNR, group.lora_b_KOR, strict=True):
        torch.bmm(inner_KNR, lora_b_KOR.mT, out=y_KNO)
    add_base_product(y_AO, x_AD, linears)
    return y_AO


def _freeze_group(group: LoraGroup, index_K: Tensor, dtype: torch.dtype) -> FrozenGroup:
    scaling_KM = group.scaling_KM[index_K]
    lora_b = [
        (lora_b_KOR[index_K] * scaling_KM[:, module, None, None]).to(dtype)
        for module, lora_b_KOR in enumerate(group.lora_b_KOR)
    ]
    lora_a_KID = group.lora_a_KMRD[index_K].flatten(1, 2).to(dtype)
    return FrozenGroup(lora_a_KID, tuple(lora_b))
