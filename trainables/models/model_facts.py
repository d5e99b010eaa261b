"""What a model's config.json tells before anything is loaded: type, shapes, sizes. No torch."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from trainables.config import Hyperparameters
from trainables.errors import SweepAborted
from trainables.models.layer_kinds import (
    DENSE_MLP,
    EXPERTS,
    KEPT_TOKENS,
    LAYER_KINDS,
    SHARED_EXPERT,
    SHARED_GATE,
    DeltaFacts,
    ExpertFacts,
    LayerKind,
    MlpKind,
    find_parent,
    list_linear_layers,
    require_positive,
    resolve_targets,
)
from trainables.models.model_files import read_config
from trainables.models.model_types import (
    EXPERT_TYPES,
    HYBRID_TYPES,
    check_quantisation,
    check_type,
    get_text_config,
)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The shape of a Qwen decoder."""

    kind: str
    layer_types: tuple[str, ...]
    """What each layer is, as transformers names it; a key of LAYER_KINDS."""
    hidden_size: int
    intermediate_size: int
    """Features of a token between gate and down: of the MLP, or of all experts that it passes."""
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    """Tokens of the longest text that the model was made for."""
    is_tied: bool
    """Whether the output head shares the embedding's weights."""
    delta: DeltaFacts | None = None
    """Shape of the layers of linear attention; None where there are none."""
    experts: ExpertFacts | None = None
    """In all layers; None where there are none."""
    activation: str = "silu"
    """What stands between gate and down."""
    biased_layers: tuple[str, ...] = ()
    """The linear layers that have a bias."""
    is_quantised: bool = False
    """Whether the files hold the linear layers in NF4 already."""

    def __post_init__(self) -> None:
        require_positive(self)
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads} heads cannot share {self.num_kv_heads} of keys")

    @property
    def num_layers(self) -> int:
        """Decoder layers of all kinds."""
        return len(self.layer_types)

    @property
    def is_hybrid(self) -> bool:
        """Whether layers of linear attention stand between those of attention."""
        return self.delta is not None

    @property
    def mlp(self) -> MlpKind:
        """What follows the mixer in each layer."""
        if self.experts is None:
            return DENSE_MLP
        return EXPERTS if self.experts.shared_width is None else SHARED_EXPERT

    @cached_property
    def layers(self) -> tuple[LayerKind, ...]:
        """What each layer consists of."""
        return tuple(replace(LAYER_KINDS[name], mlp=self.mlp) for name in self.layer_types)

    @property
    def has_sliding_attention(self) -> bool:
        """Whether some layers see a window of the last tokens only, which packs do not train."""
        return "sliding_attention" in self.layer_types

    @cached_property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(features out, features in) of each linear layer of any kind, as its weight has them."""
        hidden, wide = self.hidden_size, self.intermediate_size
        if self.experts is not None and self.experts.shared_width is not None:
            wide = self.experts.shared_width
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        shapes = {
            "q_proj": (2 * q if self.is_hybrid else q, hidden),  # with the gate of each head
            "k_proj": (kv, hidden),
            "v_proj": (kv, hidden),
            "o_proj": (hidden, q),
            "gate_proj": (wide, hidden),
            "up_proj": (wide, hidden),
            "down_proj": (hidden, wide),
            SHARED_GATE: (1, hidden),
        }
        if self.delta is not None:
            shapes |= {
                "in_proj_qkv": (self.delta.conv_channels, hidden),
                "in_proj_z": (self.delta.value_size, hidden),
                "in_proj_b": (self.delta.num_value_heads, hidden),
                "in_proj_a": (self.delta.num_value_heads, hidden),
                "out_proj": (hidden, self.delta.value_size),
            }
        return {name: shapes[name] for name in list_linear_layers(self.layers)}

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight, by its name in the model's files; experts lie together."""
        embedding = (self.vocab_size, self.hidden_size)
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": embedding,
            "model.norm.weight": embedding[1:],
        }
        if not self.is_tied:
            shapes["lm_head.weight"] = embedding
        for index, kind in enumerate(self.layers):
            layer = self._layer_shapes(kind)
            shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
        return shapes

    def _layer_shapes(self, kind: LayerKind) -> dict[str, tuple[int, ...]]:
        """The shape of every weight of a layer."""
        hidden = (self.hidden_size,)
        shapes: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": hidden,
            "post_attention_layernorm.weight": hidden,
        }
        for name in kind.linear_layers:
            shape, parent = self.linear_shapes[name], find_parent(name, kind.mlp)
            shapes[f"{parent}.{name}.weight"] = shape
            if name in self.biased_layers:
                shapes[f"{parent}.{name}.bias"] = shape[:1]
        if self.experts is not None:
            shapes |= self._expert_shapes(self.experts)
        if kind.mixer == "linear_attn" and self.delta is not None:
            heads = (self.delta.num_value_heads,)
            shapes |= {
                "linear_attn.conv1d.weight": (self.delta.conv_channels, 1, self.delta.conv_width),
                "linear_attn.A_log": heads,
                "linear_attn.dt_bias": heads,
                "linear_attn.norm.weight": (self.delta.value_head_dim,),
            }
        elif not self.kind.startswith("qwen2"):
            norms = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")
            shapes |= dict.fromkeys(norms, (self.head_dim,))
        return shapes

    def _expert_shapes(self, experts: ExpertFacts) -> dict[str, tuple[int, ...]]:
        """Shapes of a layer's router and experts, as transformers 5 has them in memory."""
        return {
            "mlp.gate.weight": (experts.num_experts, self.hidden_size),
            "mlp.experts.gate_up_proj": (experts.num_experts, 2 * experts.width, self.hidden_size),
            "mlp.experts.down_proj": (experts.num_experts, self.hidden_size, experts.width),
        }

    def is_linear_weight(self, name: str) -> bool:
        """Whether a name of the model's files is that of a linear layer's weight: one for NF4."""
        return name.split(".")[-2] in self.linear_shapes and ".experts." not in name

    def count_features(self, linear_layers: Collection[str]) -> int:
        """Features in and out of those linear layers, over all decoder layers."""
        counts = self._linear_counts
        return sum(counts[name] * sum(self.linear_shapes[name]) for name in linear_layers)

    @property
    def body_params(self) -> int:
        """Weights of the linear layers of all blocks: what NF4 quantises."""
        counts = self._linear_counts
        return sum(counts[name] * math.prod(shape) for name, shape in self.linear_shapes.items())

    @cached_property
    def _linear_counts(self) -> Counter[str]:
        """How many there are of each name."""
        return Counter(name for kind in self.layers for name in kind.linear_layers)

    @property
    def expert_params(self) -> int:
        """Weights of all experts and routers: they stay frozen in the compute type, since
        bitsandbytes (0.50) quantises linear layers alone."""
        if self.experts is None:
            return 0
        return self.num_layers * sum(map(math.prod, self._expert_shapes(self.experts).values()))

    @property
    def num_params(self) -> int:
        """All weights, norms left out."""
        body = self.body_params + self.expert_params
        return body + self.vocab_size * self.hidden_size * (1 if self.is_tied else 2)

    def count_position_bytes(self, itemsize: int) -> int:
        """Bytes of a position of a row in evaluation's cache: its keys and values in all layers of
        attention, in a type of that size."""
        num_layers = self.num_layers - self.layer_types.count("linear_attention")
        return num_layers * 2 * self.num_kv_heads * self.head_dim * itemsize

    def count_state_positions(self, itemsize: int) -> int:
        """How many positions take as much as what a row keeps however long it is: in every layer of
        linear attention a float32 matrix a head, the last inputs of the convolution, and what
        KEPT_TOKENS taught."""
        if self.delta is None:
            return 0
        memory = 4 * self.delta.value_size * self.delta.key_head_dim
        inputs = itemsize * self.delta.conv_channels * (self.delta.conv_width - 1)
        key_size = (self.delta.conv_channels - self.delta.value_size) // 2
        taught = 4 * (self.delta.value_size + self.delta.num_value_heads)
        row = memory + inputs + KEPT_TOKENS * (itemsize * key_size + taught)
        num_layers = self.layer_types.count("linear_attention")
        return math.ceil(num_layers * row / self.count_position_bytes(itemsize))

    def count_lora_params(self, params: Hyperparameters) -> int:
        """Trainable weights of one adapter."""
        targets = resolve_targets(params.target_modules, self.linear_shapes)
        return params.lora_rank * self.count_features(targets)


def read_model_facts(model: str) -> ModelFacts:
    """Reads the config.json of a folder or a Hub model.

    Raises:
        SweepAborted: there is no such model, or it is not one of MODEL_TYPES.
    """
    config = read_config(model)
    fix = "download the model again"
    try:
        check_type(model, config)
        facts = parse_facts(config)
        layers = [name for name in facts.weight_shapes if facts.is_linear_weight(name)]
        check_quantisation(model, config.get("quantization_config") or {}, layers)
        return facts
    except KeyError as missing:
        raise SweepAborted(f"the config.json of {model} has no {missing}", fix) from None
    except (AttributeError, TypeError, ValueError, ZeroDivisionError) as damaged:
        raise SweepAborted(f"the config.json of {model} is damaged: {damaged}", fix) from None


def parse_facts(config: Mapping[str, Any]) -> ModelFacts:
    """The facts of a config.json, or of what a transformers config's to_dict gives."""
    config = get_text_config(config)
    heads = int(config["num_attention_heads"])
    kind = str(config["model_type"])
    biased: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    if kind == "qwen2_moe":
        biased = biased if config.get("qkv_bias", True) else ()
    elif kind != "qwen2":
        biased = (*biased, "o_proj") if config.get("attention_bias") else ()
    experts = _read_expert_facts(config) if kind in EXPERT_TYPES else None
    return ModelFacts(
        kind=kind,
        layer_types=_read_layer_types(config),
        hidden_size=int(config["hidden_size"]),
        intermediate_size=(
            experts.widths_per_token if experts else int(config["intermediate_size"])
        ),
        num_heads=heads,
        num_kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        vocab_size=int(config["vocab_size"]),
        max_positions=int(config.get("max_position_embeddings") or 32768),
        is_tied=bool(config.get("tie_word_embeddings", False)),
        delta=_read_delta_facts(config) if kind in HYBRID_TYPES else None,
        experts=experts,
        activation=str(config.get("hidden_act", "silu")),
        biased_layers=biased,
        is_quantised=bool(config.get("quantization_config")),
    )


def _read_layer_types(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What each layer is; missing ones are filled in as transformers' configs do."""
    num_layers = int(config["num_hidden_layers"])
    layer_types = config.get("layer_types")
    if layer_types is not None:
        if len(layer_types) != num_layers or not set(layer_types) <= set(LAYER_KINDS):
            raise ValueError(f"layer_types is {layer_types}, of {num_layers} layers")
        return tuple(layer_types)
    if config["model_type"] in HYBRID_TYPES:
        every = int(config.get("full_attention_interval", 4))
        return tuple(
            "linear_attention" if (index + 1) % every else "full_attention"
            for index in range(num_layers)
        )
    is_used = bool(config.get("use_sliding_window")) and config.get("sliding_window", 1) is not None
    num_full = int(config.get("max_window_layers", 28)) if is_used else num_layers
    return tuple(
        "full_attention" if index < num_full else "sliding_attention" for index in range(num_layers)
    )


def _read_delta_facts(config: Mapping[str, Any]) -> DeltaFacts:
    return DeltaFacts(
        num_key_heads=int(config.get("linear_num_key_heads", 16)),
        num_value_heads=int(config.get("linear_num_value_heads", 32)),
        key_head_dim=int(config.get("linear_key_head_dim", 128)),
        value_head_dim=int(config.get("linear_value_head_dim", 128)),
        conv_width=int(config.get("linear_conv_kernel_dim", 4)),
    )


def _read_expert_facts(config: Mapping[str, Any]) -> ExpertFacts:
    """Reads the experts of a config whose layers all have them.

    Raises:
        ValueError: some have none, and PEFT (0.21) takes their layers for those of experts.
    """
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        raise ValueError("layers without experts stand between those with experts")
    has_shared = config["model_type"] != "qwen3_moe"
    return ExpertFacts(
        num_experts=int(config.get("num_experts") or config["num_local_experts"]),
        num_per_token=int(config["num_experts_per_tok"]),
        width=int(config["moe_intermediate_size"]),
        shared_width=int(config["shared_expert_intermediate_size"]) if has_shared else None,
    )
