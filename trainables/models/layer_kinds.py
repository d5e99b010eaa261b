"""The kinds of decoder layers, by transformers' names of them: their linear layers. No torch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

MLP_GROUPS = (("gate_proj", "up_proj"), ("down_proj",))


@dataclass(frozen=True)
class LayerKind:
    """What a decoder layer consists of."""

    mixer: str
    """The submodule that mixes tokens; the other is the mlp."""
    groups: tuple[tuple[str, ...], ...]
    """The linear layers by the input that they share: into the mixer, out of it, into the MLP, out
    of it."""

    @property
    def linear_layers(self) -> tuple[str, ...]:
        """All of them, in that order."""
        return tuple(name for group in self.groups for name in group)


ATTENTION = LayerKind("self_attn", (("q_proj", "k_proj", "v_proj"), ("o_proj",), *MLP_GROUPS))
GATED_DELTA_NET = LayerKind(
    "linear_attn",
    (("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"), ("out_proj",), *MLP_GROUPS),
)
"""arXiv 2412.06464, as Qwen3.5 has it."""

LAYER_KINDS = {
    "full_attention": ATTENTION,
    "sliding_attention": ATTENTION,
    "linear_attention": GATED_DELTA_NET,
}
LINEAR_LAYERS = tuple(dict.fromkeys((*ATTENTION.linear_layers, *GATED_DELTA_NET.linear_layers)))
"""Every linear layer of any kind, those of attention first."""
_NO_TARGETS = frozenset({"in_proj_b", "in_proj_a"})
"""Step sizes and decays, one number a head: they get an adapter only where they are named."""
_MLP = frozenset(name for group in MLP_GROUPS for name in group)
TARGET_SETS = ("all", "attention", "mlp")
"""Words for sets of linear layers; attention is whatever mixes tokens."""


def parent_of(linear_layer: str) -> str:
    """The submodule of a decoder layer that a linear layer is in."""
    if linear_layer in _MLP:
        return "mlp"
    kind = ATTENTION if linear_layer in ATTENTION.linear_layers else GATED_DELTA_NET
    return kind.mixer


def list_linear_layers(layer_types: Sequence[str]) -> tuple[str, ...]:
    """Those that any layer of a model has, those of attention first."""
    present = {name for kind in set(layer_types) for name in LAYER_KINDS[kind].linear_layers}
    return tuple(name for name in LINEAR_LAYERS if name in present)


def resolve_targets(targets: Sequence[str], linear_layers: Collection[str]) -> tuple[str, ...]:
    """The linear layers of a model that get an adapter.

    Args:
        targets: names, or words of TARGET_SETS; none for no layer.
        linear_layers: all that the model has, in the order of list_linear_layers.

    Raises:
        ValueError: the model has no such layer, or none at all of a set.
    """
    missing = [name for name in targets if name not in (*linear_layers, *TARGET_SETS)]
    if missing:
        raise ValueError(
            f"the model has no {missing[0]}; its layers are {', '.join(linear_layers)}"
        )
    words, has_all = set(targets), "all" in targets
    resolved = tuple(
        name
        for name in linear_layers
        if name in words or (name not in _NO_TARGETS and (has_all or _set_of(name) in words))
    )
    if targets and not resolved:
        raise ValueError(f"the model has no layers of {','.join(targets)} that can be adapted")
    return resolved


def _set_of(linear_layer: str) -> str:
    return "mlp" if linear_layer in _MLP else "attention"
