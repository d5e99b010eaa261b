"""Where the adapters lie: every number belongs to one matrix, and views reach storage."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tests.examples import max_examples
from trainables.models.layer_kinds import ATTENTION
from trainables.packing.compute.adapters import Adapters

CPU = torch.device("cpu")


def test_matrices_fill_a_row_without_overlap(base: PreTrainedModel) -> None:
    adapters = Adapters(base.config, 2, 4, CPU)
    counts = torch.zeros_like(adapters.params_KP)
    views = adapters.views(counts[1], 4, ATTENTION.linear_layers)
    for view in views.values():
        view += 1
    assert len(views) == 2 * len(ATTENTION.linear_layers) * base.config.num_hidden_layers
    assert (counts[1] == 1).all() and (counts[0] == 0).all()


@max_examples(20)
@given(
    rank=st.integers(1, 8),
    modules=st.lists(st.sampled_from(ATTENTION.linear_layers), min_size=1, unique=True),
)
def test_views_have_the_trials_rank_and_modules(
    base: PreTrainedModel, rank: int, modules: list[str]
) -> None:
    adapters = Adapters(base.config, 1, 8, CPU)
    views = adapters.views(adapters.params_KP[0], rank, modules)
    assert len(views) == 2 * len(modules) * base.config.num_hidden_layers
    for name, view in views.items():
        assert name.split(".")[-3] in modules
        assert view.shape[0 if "lora_A" in name else 1] == rank


def test_module_weights_and_gradients_are_views_of_the_rows(base: PreTrainedModel) -> None:
    adapters = Adapters(base.config, 2, 4, CPU)
    down = adapters.layers[1][3]
    names = adapters.views(adapters.params_KP[1], 4, ("down_proj",))
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_"
    names[f"{name}A.weight"].fill_(3.0)
    names[f"{name}B.weight"].fill_(5.0)
    assert (down.lora_a_KMRD[1] == 3).all() and (down.lora_a_KMRD[0] == 0).all()
    assert (down.lora_b_KOR[0][1] == 5).all()
    down.grad_a_KMRD[0] += 9
    grads = adapters.views(adapters.grads_KP[0], 4, ATTENTION.linear_layers)
    assert (grads[f"{name}A.weight"] == 9).all()
    total = sum(float(grad.sum()) for grad in grads.values())
    assert total == pytest.approx(9 * down.lora_a_KMRD[0].numel())


def test_scaling_switches_modules_in_the_groups(base: PreTrainedModel) -> None:
    adapters = Adapters(base.config, 2, 4, CPU)
    adapters.set_scaling(1, 2.5, ("k_proj", "down_proj"))
    qkv, _, gate_up, down = adapters.layers[0]
    assert qkv.scaling_KM.tolist() == [[0, 0, 0], [0, 2.5, 0]]
    assert gate_up.scaling_KM.tolist() == [[0, 0], [0, 0]]
    assert down.scaling_KM.tolist() == [[0], [2.5]]
