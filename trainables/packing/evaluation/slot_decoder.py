"""The base with the present adapters of some slots: reads prompts, then decodes token by token.

Every tensor of a step keeps its shape and its place in memory, so that the step can be captured as
a CUDA graph.

Shapes: K slots, S rows of a slot, B = K * S, T tokens of a prompt or positions of a row, N = S * T,
D features, C features of a head, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from trainables.packing.compute.elementwise import rms_norm
from trainables.packing.compute.lora import LoraGroup
from trainables.packing.compute.model import PackedModel
from trainables.packing.evaluation.kv_cache import (
    FrozenGroup,
    KeysValues,
    Sizes,
    prompt_layer,
    token_layer,
)


@dataclass(frozen=True)
class SlotDecoder:
    """A pack's model for some slots; later training steps do not move it."""

    model: PackedModel
    layers: tuple[tuple[FrozenGroup, ...], ...]
    """Copies of the slots' adapters, in the compute type."""

    @classmethod
    def of(cls, model: PackedModel, slots: Sequence[int]) -> Self:
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
        return dataclasses.replace(self, layers=layers)

    def new_cache(self, num_rows: int, num_positions: int) -> list[KeysValues]:
        """Zeros for every layer; what a mask hides is still multiplied, so it must be finite."""
        head_dim = self.rotation(1)[0].shape[-1]
        num_heads = self.model.config.num_key_value_heads
        shape = (self.num_slots, num_rows, num_heads, num_positions, head_dim)
        like = self.model.embedding_VD
        return [KeysValues(like.new_zeros(shape), like.new_zeros(shape)) for _ in self.layers]

    def rotation(self, num_positions: int) -> tuple[Tensor, Tensor]:
        """The rotary cosines and sines (T, C) of the first positions."""
        position_ids_1T = torch.arange(num_positions, device=self.device)[None]
        cos_1TC, sin_1TC = self.model.rotary(self.model.embedding_VD, position_ids_1T)
        return cos_1TC[0], sin_1TC[0]

    def read(self, input_ids_ST: Tensor, cache: Sequence[KeysValues] | None = None) -> Tensor:
        """The last layer's output (K, N, D) over rows that all slots share, kept in the cache.

        Args:
            input_ids_ST: rows padded on the right.
            cache: at least as many positions as tokens; None keeps nothing.
        """
        num_rows, num_tokens = input_ids_ST.shape
        x_KND: Tensor = self.model.embedding_VD[input_ids_ST.flatten().expand(self.num_slots, -1)]
        num_rows_of_all = num_rows * self.num_slots
        cos_BTC, sin_BTC = (
            table_TC.repeat(num_rows_of_all, 1, 1) for table_TC in self.rotation(num_tokens)
        )
        sizes = self._sizes(num_rows, cos_BTC)
        cached_layers = [None] * len(self.layers) if cache is None else cache
        for weights, groups, cached in zip(
            self.model.layers, self.layers, cached_layers, strict=True
        ):
            x_KND = prompt_layer(x_KND, weights, groups, cached, cos_BTC, sin_BTC, sizes)
        return x_KND

    def step(
        self,
        tokens_KS: Tensor,
        positions_KS: Tensor,
        cache: Sequence[KeysValues],
        rotation: tuple[Tensor, Tensor],
    ) -> Tensor:
        """The last layer's output (K, S, D) over one token a row, whose keys go to the cache."""
        x_KSD: Tensor = self.model.embedding_VD[tokens_KS]
        positions_B = positions_KS.flatten()
        cos_B1C, sin_B1C = (table_TC[positions_B][:, None] for table_TC in rotation)
        sizes = self._sizes(tokens_KS.shape[1], cos_B1C)
        for weights, groups, cached in zip(self.model.layers, self.layers, cache, strict=True):
            x_KSD = token_layer(
                x_KSD, weights, groups, cached, positions_B, cos_B1C, sin_B1C, sizes
            )
        return x_KSD

    def logits(self, x: Tensor) -> Tensor:
        """The head over the last layer's outputs, (..., D) to (..., V)."""
        normed = rms_norm(x, self.model.norm_D, self.model.config.rms_norm_eps)
        logits: Tensor = normed @ self.model.head_VD.T
        return logits

    def _sizes(self, num_rows: int, cos: Tensor) -> Sizes:
        eps = self.model.config.rms_norm_eps
        return Sizes(num_rows, cos.shape[-1], eps, self.model.elementwise)


def _freeze_group(group: LoraGroup, index_K: Tensor, dtype: torch.dtype) -> FrozenGroup:
    scaling_KM = group.scaling_KM[index_K]
    lora_b = [
        (lora_b_KOR[index_K] * scaling_KM[:, module, None, None]).to(dtype)
        for module, lora_b_KOR in enumerate(group.lora_b_KOR)
    ]
    lora_a_KID = group.lora_a_KMRD[index_K].flatten(1, 2).to(dtype)
    return FrozenGroup(lora_a_KID, tuple(lora_b))
