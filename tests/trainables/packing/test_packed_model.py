"""The packed decoder, against transformers' and PEFT's."""

import dataclasses
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from small_packs import new_pack, put_masks_into, trial_of, weights_of
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    set_seed,
)

from trainables.base_model import autocast, load_base
from trainables.config import Hyperparameters, TrainingSettings
from trainables.examples import Example
from trainables.packing.adapters import Adapters
from trainables.packing.batch import MicroBatch, Part, assemble
from trainables.packing.masks import Dropout, make_dropout
from trainables.packing.model import PackedModel, decoder_layer, require_supported
from trainables.packing.pack import Pack

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
}
CPU = torch.device("cpu")


def random_model(name: str) -> PreTrainedModel:
    """A model with random weights, biases and norms."""
    set_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name])
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return model.requires_grad_(False).eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name: str) -> None:
    model = random_model(name)
    packed = PackedModel(model, Adapters(model.config, 2, 4, CPU), False, False)
    ids_KST = torch.randint(0, 50, (2, 3, 17))
    with torch.no_grad():
        found = packed.logits(ids_KST).view(6, 17, 50)
        expected = model(input_ids=ids_KST.view(6, 17)).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_rounds_where_transformers_does_under_autocast(model_dir: str) -> None:
    base = load_base(model_dir, "bfloat16")
    ids_KST = torch.randint(0, 300, (2, 2, 40))
    with torch.no_grad(), autocast("bfloat16"):
        expected = base.model(input_ids=ids_KST.view(4, 40)).last_hidden_state
    for is_dequantised in (False, True):
        packed = PackedModel(base, Adapters(base.config, 2, 4, CPU), is_dequantised, False)
        with torch.no_grad():
            found = packed.hidden(ids_KST, None).view_as(expected)
        assert found.dtype == expected.dtype == torch.bfloat16
        distance = (found - expected).float().norm() / expected.float().norm()
        assert float(distance) < 1e-3


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_the_whole_model_agree_with_finite_differences(name: str) -> None:
    """Dropout 0.3, in float64: the derivative along a random direction."""
    model = random_model(name).double()
    model.model.rotary_emb.float()
    adapters = Adapters(model.config, 2, 3, CPU, torch.float64)
    packed = PackedModel(model, adapters, False, False)
    adapters.scaling_K7.copy_(torch.rand(2, 7) + 0.5)
    torch.manual_seed(1)
    adapters.params_KP.copy_(torch.randn_like(adapters.params_KP) * 0.1)
    rows = [Example([3, 4, 5], [6, 7]), Example([9], [1, 2, 3, 4])]
    batch = assemble([Part(rows, 0, seed, 1, seed, 1.0) for seed in (1, 2)], 2, CPU)
    dropout = make_dropout(batch.row_keys_KS2, torch.full((2,), 0.3, dtype=torch.float64))
    direction = torch.randn_like(adapters.params_KP)

    def total() -> torch.Tensor:
        return packed.losses(
            batch.input_ids_KST, batch.label_places_KL, batch.targets_KL, dropout
        ).sum()

    total().backward()
    found = float((adapters.grads_KP * direction).sum())
    ends = []
    for sign in (1, -1):
        adapters.params_KP.add_(direction, alpha=sign * 1e-5)
        ends.append(float(total().detach()))
        adapters.params_KP.sub_(direction, alpha=sign * 1e-5)
    assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)
    assert abs(found) > 1e-3


def test_padding_changes_nothing(base: PreTrainedModel) -> None:
    packed = PackedModel(base, Adapters(base.config, 1, 4, CPU), True, False)
    ids = torch.randint(0, 300, (1, 2, 20))
    with torch.no_grad():
        short = packed.hidden(ids, None).view(2, 20, -1)
        for filler in (0, 17):
            padded = torch.nn.functional.pad(ids, (0, 44), value=filler)
            long = packed.hidden(padded, None).view(2, 64, -1)
            torch.testing.assert_close(long[:, :20], short)


def trained_pack(
    settings: TrainingSettings, examples: list[Example], params: Hyperparameters
) -> Pack:
    """Two trials after three steps, so that B is not zero."""
    pack = new_pack(settings, 2)
    pack.join(0, trial_of("other", dataclasses.replace(params, lora_rank=9), settings), examples)
    pack.join(1, trial_of("it", params, settings), examples)
    for _ in range(3):
        assert all(result.failed is None for result in pack.step())
    return pack


def batch_of(examples: list[Example], rate: float) -> tuple[MicroBatch, Dropout]:
    """Four rows for two slots that have their own masks."""
    batch = assemble([Part(examples[:4], 0, seed, 1, 0, 1.0) for seed in (5, 6)], 4, CPU)
    return batch, make_dropout(batch.row_keys_KS2, torch.tensor([0.5, rate], dtype=torch.float64))


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_loss_and_gradients_are_those_of_peft_given_the_same_masks(
    settings: TrainingSettings,
    examples: list[Example],
    params: Hyperparameters,
    compute_dtype: str,
    tmp_path: Path,
) -> None:
    settings = dataclasses.replace(settings, compute_dtype=compute_dtype)
    pack = trained_pack(settings, examples, params)
    pack.save(1, tmp_path / "it")
    batch, dropout = batch_of(examples, params.lora_dropout)
    losses_K = pack.model.losses(
        batch.input_ids_KST, batch.label_places_KL, batch.targets_KL, dropout
    )
    losses_K.sum().backward()
    base = load_base(settings.model, settings.compute_dtype)
    model = PeftModel.from_pretrained(base, str(tmp_path / "it"), is_trainable=True).train()
    own = Dropout(dropout.keys_KS2[1:], dropout.threshold_K[1:], dropout.scale_K[1:])
    put_masks_into(model, own)
    with autocast(settings.compute_dtype):
        logits = model(input_ids=batch.input_ids_KST[1]).logits.float()
    flat = logits.flatten(0, 1)[batch.label_places_KL[1]]
    loss = torch.nn.functional.cross_entropy(flat, batch.targets_KL[1], reduction="sum")
    loss.backward()
    grads = pack.adapters.views(pack.adapters.grads_KP[1], params.lora_rank, params.target_modules)
    near = 1e-5 if compute_dtype == "float32" else 1e-2
    assert float(losses_K[1].detach()) == pytest.approx(float(loss.detach()), rel=near)
    assert len(grads) == 28
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found = grads[name.replace(".default", "")]
            assert found.dtype == parameter.grad.dtype == torch.float32
            assert float((found - parameter.grad).norm()) < near * float(parameter.grad.norm())


def test_neighbours_masks_are_not_those_of_the_trial(
    settings: TrainingSettings, examples: list[Example], params: Hyperparameters
) -> None:
    pack = trained_pack(settings, examples, params)
    assert weights_of(pack, 1, params)
    found = []
    for rate in (0.0, 0.3):
        batch, dropout = batch_of(examples, rate)
        with torch.no_grad():
            found.append(
                pack.model.losses(
                    batch.input_ids_KST, batch.label_places_KL, batch.targets_KL, dropout
                )
            )
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


def test_layers_of_one_length_share_two_graphs(base: PreTrainedModel) -> None:
    """One with adapters below it and one without; compiled whole, without a graph break."""
    adapters = Adapters(base.config, 2, 4, CPU)
    torch.manual_seed(0)
    adapters.params_KP.normal_(std=0.02)
    adapters.scaling_K7.fill_(1.0)
    ids = torch.randint(0, 300, (2, 2, 64))
    keys = torch.arange(8, dtype=torch.int32).view(2, 2, 2)
    dropout = make_dropout(keys, torch.tensor([0.3, 0.0], dtype=torch.float64))
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    packed = PackedModel(base, adapters, False, False)
    expected = packed.hidden(ids, dropout)
    torch._dynamo.reset()
    packed._layer = torch.compile(decoder_layer, fullgraph=True, dynamic=False, backend=backend)
    torch.testing.assert_close(packed.hidden(ids, dropout), expected)
    packed.hidden(ids, dropout)
    assert len(graphs) == 2


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="solo engine"):
        require_supported(Qwen3Config(**SIZES, layer_types=["sliding_attention"] * 2))
    llama = Qwen3Config(**SIZES)
    llama.model_type = "llama"
    with pytest.raises(ValueError, match="'llama'"):
        require_supported(llama)
