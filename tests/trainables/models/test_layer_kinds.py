"""Words for sets of linear layers stand for what a model has."""

from dataclasses import replace

import pytest

from trainables.models.layer_kinds import (
    ATTENTION,
    EXPERTS,
    GATED_DELTA_NET,
    LINEAR_LAYERS,
    SHARED_EXPERT,
    LayerKind,
    list_linear_layers,
    resolve_targets,
)

DENSE, HYBRID = (ATTENTION,), (GATED_DELTA_NET, ATTENTION)
NO_SHARED = (replace(ATTENTION, mlp=EXPERTS),)
SHARED = (replace(GATED_DELTA_NET, mlp=SHARED_EXPERT), replace(ATTENTION, mlp=SHARED_EXPERT))
MLP = ("gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize(
    ("targets", "kinds", "expected"),
    [
        (("all",), DENSE, ATTENTION.linear_layers),
        (("all",), HYBRID, (*ATTENTION.linear_layers, "in_proj_qkv", "in_proj_z", "out_proj")),
        (("attention",), DENSE, ("q_proj", "k_proj", "v_proj", "o_proj")),
        (
            ("attention",),
            HYBRID,
            ("q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkv", "in_proj_z", "out_proj"),
        ),
        ((), DENSE, ()),
        (("mlp",), HYBRID, MLP),
        (("mlp", "q_proj"), DENSE, ("q_proj", *MLP)),
        (("in_proj_a", "all"), HYBRID, (*LINEAR_LAYERS[:9], "in_proj_a", "out_proj")),
        (("all",), NO_SHARED, ("q_proj", "k_proj", "v_proj", "o_proj")),
        (("all",), SHARED, (*ATTENTION.linear_layers, "in_proj_qkv", "in_proj_z", "out_proj")),
        (("mlp",), SHARED, MLP),
        (("mlp", "shared_expert_gate"), SHARED, (*MLP, "shared_expert_gate")),
    ],
)
def test_targets_are_layers_of_the_model_in_its_order(
    targets: tuple[str, ...], kinds: tuple[LayerKind, ...], expected: tuple[str, ...]
) -> None:
    assert resolve_targets(targets, list_linear_layers(kinds)) == expected


def test_layer_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="no in_proj_z; its layers are q_proj"):
        resolve_targets(("q_proj", "in_proj_z"), list_linear_layers(DENSE))


def test_set_of_which_the_model_has_no_layer_is_refused() -> None:
    """As the mlp of a mixture whose experts stay frozen."""
    with pytest.raises(ValueError, match="no layers of mlp that can be adapted"):
        resolve_targets(("attention", "mlp"), list_linear_layers(NO_SHARED))
