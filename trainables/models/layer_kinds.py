"""The kinds of decoder layers, by transformers' names of them: their linear layers, and the shapes
of what only some have. No torch."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

SHARED_GATE = "shared_expert_gate"


@dataclass(frozen=True)
class MlpKind:
    """What follows the mixer in a decoder layer."""

    parent: str = "mlp"
    """The submodule that the linear layers are in."""
    groups: tuple[tuple[str, ...], ...] = (("gate_proj", "up_proj"), ("down_proj",))
    """The linear layers by the input that they share: into the MLP, out of it."""


DENSE_MLP = MlpKind()
EXPERTS = MlpKind(groups=())
"""A router and experts, whose weights lie in tensors of three dimensions: no linear layer."""
SHARED_EXPERT = MlpKind("mlp.shared_expert", (*DENSE_MLP.groups, (SHARED_GATE,)))
"""Beside them an expert that every token passes through, and a gate, which is not inside it."""


@dataclass(frozen=True)
class LayerKind:
    """What a decoder layer consists of."""

    mixer: str
    """The submodule that mixes tokens."""
    mixer_groups: tuple[tuple[str, ...], ...]
    """Its linear layers by the input that they share: into the mixer, out of it."""
    mlp: MlpKind = DENSE_MLP
    """What follows it."""

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """All linear layers by the input that they share."""
        return self.mixer_groups + self.mlp.groups

    @property
    def linear_layers(self) -> tuple[str, ...]:
        """All of them, in that order."""
        return tuple(name for group in self.groups for name in group)


ATTENTION = LayerKind("self_attn", (("q_proj", "k_proj", "v_proj"), ("o_proj",)))
GATED_DELTA_NET = LayerKind(
    "linear_attn", (("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"), ("out_proj",))
)
"""arXiv 2412.06464, as Qwen3.5 has it."""

KEPT_TOKENS = 8
"""What so many tokens taught a row in decoding is kept beside its memory, which is written for the
last of them only: its bytes then move some 1.2 times a token instead of twice."""

LAYER_KINDS = {
    "full_attention": ATTENTION,
    "sliding_attention": ATTENTION,
    "linear_attention": GATED_DELTA_NET,
}
"""With a dense MLP."""
LINEAR_LAYERS = tuple(
    dict.fromkeys((*ATTENTION.linear_layers, *GATED_DELTA_NET.linear_layers, SHARED_GATE))
)
"""Every linear layer of any kind, those of attention first."""
_NO_TARGETS = frozenset({"in_proj_b", "in_proj_a", SHARED_GATE})
"""Step sizes, decays and gates of few numbers: they get an adapter only where they are named."""
_MLP = frozenset(name for group in SHARED_EXPERT.groups for name in group)
TARGET_SETS = ("all", "attention", "mlp")
"""Words for sets of linear layers; attention is whatever mixes tokens."""


def find_parent(linear_layer: str, mlp: MlpKind = DENSE_MLP) -> str:
    """The submodule of a decoder layer that a linear layer is in."""
    if linear_layer in _MLP:
        return "mlp" if linear_layer == SHARED_GATE else mlp.parent
    kind = ATTENTION if linear_layer in ATTENTION.linear_layers else GATED_DELTA_NET
    return kind.mixer


def list_linear_layers(kinds: Iterable[LayerKind]) -> tuple[str, ...]:
    """Those that any layer of a model has, those of attention first."""
    present = {name for kind in set(kinds) for name in kind.linear_layers}
    return tuple(name for name in LINEAR_LAYERS if name in present)


def list_target_sets(linear_layers: Collection[str]) -> tuple[str, ...]:
    """The words of TARGET_SETS that stand for layers of a model."""
    return TARGET_SETS if _MLP.intersection(linear_layers) else ("all", "attention")


def resolve_targets(targets: Sequence[str], linear_layers: Collection[str]) -> tuple[str, ...]:
    """The linear layers of a model that get an adapter.

    Args:
        targets: names, or words of TARGET_SETS; none for no layer.
        linear_layers: all that the model has, in the order of list_linear_layers.

    Raises:
        ValueError: the model has no such layer, or none of a set.
    """
    if "mlp" in targets and "mlp" not in list_target_sets(linear_layers):
        raise ValueError("the model has no layers of mlp that can be adapted: experts stay frozen")
    missing = [name for name in targets if name not in (*linear_layers, *TARGET_SETS)]
    if missing:
        raise ValueError(
            f"the model has no {missing[0]}; its layers are {', '.join(linear_layers)}"
        )
    words, has_all = set(targets), "all" in targets
    return tuple(
        name
        for name in linear_layers
        if name in words or (name not in _NO_TARGETS and (has_all or _find_set(name) in words))
    )


def _find_set(linear_layer: str) -> str:
    return "mlp" if linear_layer in _MLP else "attention"


@dataclass(frozen=True, kw_only=True)
class DeltaFacts:
    """The shape of a layer of Gated DeltaNet."""

    num_key_heads: int
    num_value_heads: int
    key_head_dim: int
    value_head_dim: int
    conv_width: int
    """Tokens that the convolution before it sees."""

    @property
    def conv_channels(self) -> int:
        """Queries, keys and values, which the convolution mixes over time."""
        return 2 * self.num_key_heads * self.key_head_dim + self.value_size

    @property
    def value_size(self) -> int:
        """Features of all value heads."""
        return self.num_value_heads * self.value_head_dim

    @property
    def projected_size(self) -> int:
        """Features that its mixer takes: queries, keys, values, gates, step sizes and decays."""
        return self.conv_channels + self.value_size + 2 * self.num_value_heads


@dataclass(frozen=True, kw_only=True)
class ExpertFacts:
    """The shape of the experts that a layer has in place of an MLP."""

    num_experts: int
    num_per_token: int
    """Experts that the router chooses for a token."""
    width: int
    """Features between gate and down of each."""
    shared_width: int | None = None
    """Width of the expert that every token passes through; None where there is none."""

    def __post_init__(self) -> None:
        require_positive(self)
        if self.num_per_token > self.num_experts:
            raise ValueError(f"a token cannot have {self.num_per_token} of {self.num_experts}")

    @property
    def widths_per_token(self) -> int:
        """Features between gate and down, of all the experts that a token passes through."""
        return self.num_per_token * self.width + (self.shared_width or 0)


def require_positive(facts: Any) -> None:
    """Every whole number of a shape is at least 1."""
    for field in fields(facts):
        value = getattr(facts, field.name)
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ValueError(f"{field.name} is {value}; it must be at least 1")
