"""Qwen2's and Qwen3's decoder over the tokens of all slots, laid end to end.

Shapes: K slots, N tokens of a pass, L labels, D features, C features of a head, E features of all
heads, F features between gate and down, V vocabulary.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig, PreTrainedModel

from trainables.data.tokens import IGNORED
from trainables.models.layer_kinds import LAYER_KINDS
from trainables.models.model_facts import parse_facts
from trainables.models.model_types import HYBRID_TYPE
from trainables.packing.compute import elementwise
from trainables.packing.compute.adapters import Adapters
from trainables.packing.compute.elementwise import Norms, rms_norm
from trainables.packing.compute.kernels.inputs import HeadLayout
from trainables.packing.compute.lora import FrozenLinears, LoraGroup, freeze, packed_linears
from trainables.packing.compute.mixers import gated_delta
from trainables.packing.compute.mixers.attention import attention
from trainables.packing.compute.mixers.gated_delta import DeltaWeights
from trainables.packing.compute.packed_batch import PackedInputs
from trainables.packing.compute.pass_shapes import CHUNK_LABELS

PACKED_TYPES = ("qwen2", "qwen3", HYBRID_TYPE)


class Elementwise(NamedTuple):
    """What lies between a block's products, plain or fused."""

    add_norm: Callable[..., tuple[Tensor, Tensor]]
    heads: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor | None]]
    gate_heads: Callable[[Tensor, Tensor], Tensor]
    swiglu: Callable[[Tensor], Tensor]


PLAIN = Elementwise(
    elementwise.add_norm, elementwise.heads, elementwise.gate_heads, elementwise.swiglu
)
"""For a CPU, and for numbers that must be exact."""


def load_fused() -> Elementwise:
    """One kernel each, for a GPU."""
    # These load Triton, which a CPU has no use for.
    from trainables.packing.compute.kernels import add_norm as norm_kernels
    from trainables.packing.compute.kernels import gate
    from trainables.packing.compute.kernels import heads as head_kernels

    return Elementwise(norm_kernels.add_norm, head_kernels.heads, gate.gate_heads, gate.swiglu)


class AttentionWeights(NamedTuple):
    """What a layer of attention holds beside its linear layers."""

    norms: Norms | None
    """Norms of queries and keys; Qwen2 has none."""
    is_gated: bool
    """Whether q_proj gives each head a gate too, which what it attends to is multiplied by."""


class LayerWeights(NamedTuple):
    """One block of the base."""

    input_norm_D: Tensor
    post_norm_D: Tensor
    mixer: AttentionWeights | DeltaWeights
    linears: tuple[FrozenLinears, ...]
    """In the order of its kind's groups."""


class PackedModel:
    """The base's weights, and the forward pass of a whole pack.

    Args:
        is_dequantised: keep the base in its compute type; 4 times the memory and the same numbers.
        is_fused: one kernel for each thing between the products; for a GPU.
        is_checkpointed: keep only the blocks' inputs for the backward pass, and compute the rest of
            each block again there (arXiv 1604.06174).
    """

    def __init__(
        self,
        base: PreTrainedModel,
        adapters: Adapters,
        is_dequantised: bool,
        is_fused: bool,
        is_checkpointed: bool = False,
    ) -> None:
        require_supported(base.config)
        self.config = base.config
        self.adapters = adapters
        self.embedding_VD = base.get_input_embeddings().weight.detach()
        self.head_VD = base.get_output_embeddings().weight.detach()
        self._rotary: Any = base.model.rotary_emb
        facts = parse_facts(base.config.to_dict())
        self.head_dim = facts.head_dim
        """C."""
        self.state_positions = facts.count_state_positions(self.dtype.itemsize)
        """Positions of evaluation's cache that the state of a row is worth."""
        self._is_hybrid = facts.is_hybrid
        self.norm_D = _norm_weight(base.model.norm, facts.is_hybrid)
        self.layers = [
            _layer_weights(layer, kind, facts.is_hybrid, is_dequantised)
            for layer, kind in zip(base.model.layers, facts.layer_types, strict=True)
        ]
        linears = [linears for layer in self.layers for linears in layer.linears]
        self.num_weights = sum(group.num_weights for group in linears)
        """Weights of the linear layers of all blocks."""
        self.elementwise = load_fused() if is_fused else PLAIN
        self._is_checkpointed = is_checkpointed

    @property
    def dtype(self) -> torch.dtype:
        """The compute type."""
        dtype: torch.dtype = self.embedding_VD.dtype
        return dtype

    def embed(self, inputs: PackedInputs) -> Tensor:
        """The tokens' embeddings (N, D), from which a backward pass begins its way to adapters."""
        embedded_ND: Tensor = self.embedding_VD[inputs.ids_N]
        return embedded_ND.requires_grad_()

    def angles(self, position_ids_N: Tensor) -> tuple[Tensor, Tensor]:
        """The rotary cosines and sines (N, C) of positions, in the compute type."""
        # Models that see images have three numbers a position: of text all are the same.
        positions = position_ids_N.expand(*((3, 1) if self._is_hybrid else (1,)), -1)
        cos_1NC, sin_1NC = self._rotary(self.embedding_VD, positions)
        return cos_1NC[0], sin_1NC[0]

    def hidden_states(self, embedded_ND: Tensor, inputs: PackedInputs) -> Tensor:
        """The last layer's output (N, D), before the last norm."""
        angles = self.angles(inputs.position_ids_N)
        x_ND, y_ND = embedded_ND, None
        for weights, groups in zip(self.layers, self.adapters.layers, strict=True):
            x_ND, y_ND = self._block(x_ND, y_ND, weights, groups, angles, inputs)
        assert y_ND is not None
        return x_ND + y_ND

    def losses(self, embedded_ND: Tensor, inputs: PackedInputs) -> Tensor:
        """Each slot's loss (K,), summed over its labels; a slot's NaN stays its own."""
        labelled_LD = self.hidden_states(embedded_ND, inputs)[inputs.label_index_L]
        labelled_LD = rms_norm(labelled_LD, self.norm_D, self.config.rms_norm_eps)
        losses_L = label_losses(labelled_LD, self.head_VD, inputs.targets_L)
        slots_K1 = torch.arange(len(inputs.label_weights_K), device=losses_L.device)[:, None]
        return torch.where(inputs.label_slots_L == slots_K1, losses_L, 0.0).sum(dim=1)

    def logits(self, embedded_ND: Tensor, inputs: PackedInputs) -> Tensor:
        """All logits, (N, V)."""
        hidden_ND = self.hidden_states(embedded_ND, inputs)
        normed_ND = rms_norm(hidden_ND, self.norm_D, self.config.rms_norm_eps)
        logits_NV: Tensor = normed_ND @ self.head_VD.T
        return logits_NV

    def _block(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        if not self._is_checkpointed:
            return self._layer(*inputs)
        # Dropout is made of row keys: no generator's state has to be kept.
        outputs: tuple[Tensor, Tensor] = checkpoint(
            self._layer, *inputs, use_reentrant=False, preserve_rng_state=False
        )
        return outputs

    def _layer(
        self,
        x_ND: Tensor,
        y_ND: Tensor | None,
        weights: LayerWeights,
        groups: tuple[LoraGroup, ...],
        angles: tuple[Tensor, Tensor],
        inputs: PackedInputs,
    ) -> tuple[Tensor, Tensor]:
        """One block, in the order of operations of transformers' Qwen3DecoderLayer.

        The last sum of a block is left to the norm that follows it: x and y stand for x + y.
        """
        ops, eps = self.elementwise, self.config.rms_norm_eps
        extras = (inputs.segments, inputs.dropout)
        x_ND, normed_ND = ops.add_norm(x_ND, y_ND, weights.input_norm_D, eps)
        projected_NO = packed_linears(normed_ND, weights.linears[0], groups[0], *extras)
        if isinstance(weights.mixer, DeltaWeights):
            mixed_NE = gated_delta.mix(projected_NO, weights.mixer, inputs, eps)
        else:
            attend = partial(attention, rows=inputs.rows)
            mixed_NE = self.mix_heads(projected_NO, weights, angles, attend)
        y_ND = packed_linears(mixed_NE, weights.linears[1], groups[1], *extras)
        x_ND, normed_ND = ops.add_norm(x_ND, y_ND, weights.post_norm_D, eps)
        gate_up = packed_linears(normed_ND, weights.linears[2], groups[2], *extras)
        return x_ND, packed_linears(ops.swiglu(gate_up), weights.linears[3], groups[3], *extras)

    def mix_heads(
        self,
        projected_NO: Tensor,
        weights: LayerWeights,
        angles: tuple[Tensor, Tensor],
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> Tensor:
        """What the query heads of a layer of attention read, (N, E), before o_proj.

        Args:
            projected_NO: queries, with gates if it has them, keys and values side by side.
            attend: takes queries, keys and values, normed and turned to their positions.
        """
        assert isinstance(weights.mixer, AttentionWeights)
        mixer, eps = weights.mixer, self.config.rms_norm_eps
        layout = HeadLayout(weights.linears[0].sizes, self.head_dim, mixer.is_gated)
        ops = self.elementwise
        q, k, v, gate = ops.heads(projected_NO, mixer.norms, *angles, layout, eps)
        mixed_NE = attend(q, k, v).reshape(len(projected_NO), -1)
        return mixed_NE if gate is None else ops.gate_heads(mixed_NE, gate)


def require_supported(config: PretrainedConfig) -> None:
    """Raise ValueError for a model whose decoder is not the one below."""
    if config.model_type not in PACKED_TYPES:
        rule = f"one of {', '.join(PACKED_TYPES)}; train others with the solo engine"
        raise ValueError(f"the model's type is {config.model_type!r}; a pack needs {rule}")
    if "sliding_attention" in config.layer_types:
        raise ValueError("the model has sliding attention; train it with the solo engine")
    assert config.hidden_act == "silu"


def _layer_weights(layer: Any, kind: str, is_hybrid: bool, is_dequantised: bool) -> LayerWeights:
    mixer_layer = getattr(layer, LAYER_KINDS[kind].mixer)
    modules = {**dict(mixer_layer.named_children()), **dict(layer.mlp.named_children())}
    mixer: AttentionWeights | DeltaWeights
    if kind == "linear_attention":
        mixer = gated_delta.read_weights(mixer_layer)
    else:
        norms = [_norm_weight(modules[n], is_hybrid) for n in ("q_norm", "k_norm") if n in modules]
        mixer = AttentionWeights(Norms(*norms) if norms else None, is_hybrid)
    return LayerWeights(
        _norm_weight(layer.input_layernorm, is_hybrid),
        _norm_weight(layer.post_attention_layernorm, is_hybrid),
        mixer,
        tuple(
            freeze([modules[name] for name in names], is_dequantised)
            for names in LAYER_KINDS[kind].groups
        ),
    )


def _norm_weight(norm: Any, is_centred: bool) -> Tensor:
    """As rms_norm takes it; of a zero-centred one that is one more than what is stored."""
    weight: Tensor = norm.weight.detach()
    if not is_centred:
        return weight
    return 1.0 + weight.to(torch.promote_types(weight.dtype, torch.float32))


def label_losses(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Negative log-likelihood of each target, and 0 where it is IGNORED."""
    inputs = (hidden_ND, head_VD, targets_N)
    losses_N: Tensor = _LabelLosses.apply(*inputs)  # type: ignore[no-untyped-call]
    return losses_N


class _LabelLosses(torch.autograd.Function):
    """Makes the gradient of a chunk beside its loss, while its logits are there.

    The head is frozen, so the gradient of the hidden states is all that is kept.
    """

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> Tensor:
        chunks = (torch.split(tensor, CHUNK_LABELS) for tensor in (hidden_ND, targets_N))
        per_chunk = [
            _chunk(hidden, head_VD, targets) for hidden, targets in zip(*chunks, strict=True)
        ]
        losses, grads = zip(*per_chunk, strict=True)
        ctx.save_for_backward(torch.cat(grads))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad_ND,) = ctx.saved_tensors
        return (grad_ND * grads[0][:, None]).to(grad_ND.dtype), None, None


def _chunk(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each target, and its gradient in the hidden states."""
    is_label_N = targets_N != IGNORED
    index_N1 = targets_N.clamp(min=0)[:, None]
    logits_NV = hidden_ND @ head_VD.T
    exact = torch.promote_types(logits_NV.dtype, torch.float32)
    log_probs_NV = logits_NV.to(exact).log_softmax(dim=-1)
    losses_N = -log_probs_NV.gather(1, index_N1)[:, 0]
    minus_one = torch.full_like(index_N1, -1, dtype=exact)
    slope_NV = log_probs_NV.exp_().scatter_add_(1, index_N1, minus_one)
    grad_ND = slope_NV.to(hidden_ND.dtype) @ head_VD
    grad_ND = torch.where(is_label_N[:, None], grad_ND, 0.0)
    return torch.where(is_label_N, losses_N, 0.0), grad_ND
