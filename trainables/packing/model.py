"""Qwen2's and Qwen3's decoder over the rows of all slots, written for one compiled graph a shape.

decoder_layer is a function of tensors alone, so that all layers of a model share one compiled
graph. Rows are padded on the right and attention is causal: no token ever sees padding, so there
is no mask.

Shapes: K slots, S rows of a slot, T tokens of a row, N = S * T, D features, C features of a head,
E features of all heads, L labelled positions of a slot, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu
from transformers import PretrainedConfig, PreTrainedModel

from trainables.config import LINEAR_LAYERS
from trainables.packing.adapters import Adapters
from trainables.packing.lora import FrozenLinear, LoraGroup, freeze, packed_linears
from trainables.packing.loss import label_losses
from trainables.packing.masks import Dropout

MODEL_TYPES = ("qwen2", "qwen3")
MAX_GRAPHS = 128
"""Compiled graphs of the layer: one for each number of tokens, with and without dropout, with and
without adapters below it. torch._dynamo allows 8 unless told otherwise."""


class LayerWeights(NamedTuple):
    """One block of the base."""

    input_norm_D: Tensor
    post_norm_D: Tensor
    q_norm_C: Tensor | None
    k_norm_C: Tensor | None
    linears: tuple[FrozenLinear, ...]
    """In the order of LINEAR_LAYERS."""


class Sizes(NamedTuple):
    """What the shapes of the weights do not tell."""

    num_rows: int
    head_dim: int
    norm_eps: float


class PackedModel:
    """The base's weights, and the forward pass of a whole pack.

    Args:
        base: from load_base.
        adapters: of the same model.
        is_dequantised: keep the base in its compute type; 4 times the memory and the same numbers.
        is_compiled: compile the decoder layer, once for every number of tokens.
    """

    def __init__(
        self, base: PreTrainedModel, adapters: Adapters, is_dequantised: bool, is_compiled: bool
    ) -> None:
        require_supported(base.config)
        self.config = base.config
        self.adapters = adapters
        self.embedding_VD = base.get_input_embeddings().weight.detach()
        self.head_VD = base.get_output_embeddings().weight.detach()
        self.rotary: Any = base.model.rotary_emb
        self.norm_D = base.model.norm.weight.detach()
        self.layers = [_layer_weights(layer, is_dequantised) for layer in base.model.layers]
        self._layer = _compiled_layer() if is_compiled else decoder_layer

    @property
    def dtype(self) -> torch.dtype:
        """The compute type."""
        dtype: torch.dtype = self.embedding_VD.dtype
        return dtype

    def hidden(self, input_ids_KST: Tensor, dropout: Dropout | None) -> Tensor:
        """The last hidden states, (K, N, D)."""
        num_slots, num_rows, num_tokens = input_ids_KST.shape
        hidden_KND = self.embedding_VD[input_ids_KST.view(num_slots, -1)]
        positions_1T = torch.arange(num_tokens, device=input_ids_KST.device)[None]
        cos_1TC, sin_1TC = self.rotary(hidden_KND, positions_1T)
        sizes = Sizes(num_rows, cos_1TC.shape[-1], self.config.rms_norm_eps)
        for weights, groups in zip(self.layers, self.adapters.layers, strict=True):
            hidden_KND = self._layer(
                hidden_KND, weights, groups, cos_1TC[0], sin_1TC[0], dropout, sizes
            )
        return rms_norm(hidden_KND, self.norm_D, sizes.norm_eps)

    def losses(
        self,
        input_ids_KST: Tensor,
        label_places_KL: Tensor,
        targets_KL: Tensor,
        dropout: Dropout | None,
    ) -> Tensor:
        """Each slot's loss (K,), summed over its labels.

        Every slot's labels are taken from its own rows, so a slot's NaN stays its own.
        """
        hidden_KND = self.hidden(input_ids_KST, dropout)
        index_KLD = label_places_KL[:, :, None].expand(-1, -1, hidden_KND.shape[-1])
        labelled_ND = hidden_KND.gather(1, index_KLD).flatten(0, 1)
        losses_N = label_losses(labelled_ND, self.head_VD, targets_KL.flatten())
        return losses_N.view_as(targets_KL).sum(dim=1)

    def logits(self, input_ids_KST: Tensor) -> Tensor:
        """All logits, (K, N, V), without dropout."""
        logits_KNV: Tensor = self.hidden(input_ids_KST, None) @ self.head_VD.T
        return logits_KNV


def require_supported(config: PretrainedConfig) -> None:
    """Raise ValueError for a model whose decoder is not the one below."""
    if config.model_type not in MODEL_TYPES:
        rule = f"one of {', '.join(MODEL_TYPES)}; train others with the solo engine"
        raise ValueError(f"the model's type is {config.model_type!r}; a pack needs {rule}")
    if set(config.layer_types) != {"full_attention"}:
        raise ValueError("the model has sliding attention; train it with the solo engine")
    assert config.hidden_act == "silu"


def decoder_layer(
    x_KND: Tensor,
    weights: LayerWeights,
    groups: tuple[LoraGroup, ...],
    cos_TC: Tensor,
    sin_TC: Tensor,
    dropout: Dropout | None,
    sizes: Sizes,
) -> Tensor:
    """One block, in the order of operations of transformers' Qwen3DecoderLayer."""
    qkv_group, o_group, gate_up_group, down_group = groups
    linears = weights.linears
    normed_KND = rms_norm(x_KND, weights.input_norm_D, sizes.norm_eps)
    q, k, v = packed_linears(normed_KND, linears[:3], qkv_group, dropout)
    mixed_KND = _attention(q, k, v, weights, cos_TC, sin_TC, sizes)
    x_KND = x_KND + packed_linears(mixed_KND, linears[3:4], o_group, dropout)[0]
    normed_KND = rms_norm(x_KND, weights.post_norm_D, sizes.norm_eps)
    gate, up = packed_linears(normed_KND, linears[4:6], gate_up_group, dropout)
    return x_KND + packed_linears(silu(gate) * up, linears[6:], down_group, dropout)[0]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x over its root mean square, times the weight; at least in float32."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    normed = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + eps)
    return weight * normed.to(x.dtype)


def _compiled_layer() -> Any:
    torch._dynamo.config.recompile_limit = MAX_GRAPHS
    return torch.compile(decoder_layer, fullgraph=True, dynamic=False)


def _attention(
    q_KNE: Tensor,
    k_KNE: Tensor,
    v_KNE: Tensor,
    weights: LayerWeights,
    cos_TC: Tensor,
    sin_TC: Tensor,
    sizes: Sizes,
) -> Tensor:
    """Causal attention within each row; key heads serve groups of query heads."""
    heads = (q_KNE.shape[0] * sizes.num_rows, cos_TC.shape[0], -1, sizes.head_dim)
    q, k, v = q_KNE.view(heads), k_KNE.view(heads), v_KNE.view(heads)
    if weights.q_norm_C is not None and weights.k_norm_C is not None:
        q = rms_norm(q, weights.q_norm_C, sizes.norm_eps)
        k = rms_norm(k, weights.k_norm_C, sizes.norm_eps)
    q = rotated(q.transpose(1, 2), cos_TC, sin_TC)
    k = rotated(k.transpose(1, 2), cos_TC, sin_TC)
    mixed = scaled_dot_product_attention(
        q, k, v.transpose(1, 2), is_causal=True, scale=sizes.head_dim**-0.5, enable_gqa=True
    )
    return mixed.transpose(1, 2).reshape(q_KNE.shape[0], q_KNE.shape[1], -1)


def rotated(x: Tensor, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864), with the halves of a head as pairs."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos_TC + turned * sin_TC


def _layer_weights(layer: Any, is_dequantised: bool) -> LayerWeights:
    attention = layer.self_attn
    modules = {**dict(attention.named_children()), **dict(layer.mlp.named_children())}
    has_norms = "q_norm" in modules
    return LayerWeights(
        layer.input_layernorm.weight.detach(),
        layer.post_attention_layernorm.weight.detach(),
        modules["q_norm"].weight.detach() if has_norms else None,
        modules["k_norm"].weight.detach() if has_norms else None,
        tuple(freeze(modules[name], is_dequantised) for name in LINEAR_LAYERS),
    )
