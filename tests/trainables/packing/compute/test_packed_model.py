"""The packed decoder, against transformers' and PEFT's."""

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3Config,
    set_seed,
)

from tests.trainables.packing.small_packs import (
    make_pack,
    pass_of,
    put_masks_into,
    trial_of,
    weights_of,
)
from trainables.config import Hyperparameters, TrainingSettings
from trainables.data.tokens import IGNORED, Example
from trainables.models.base_model import autocast, load_base
from trainables.packing.compute.adapters import Adapters
from trainables.packing.compute.elementwise import rms_norm
from trainables.packing.compute.kernels.inputs import Dropout
from trainables.packing.compute.model import PackedModel, require_supported
from trainables.packing.compute.pack import Pack
from trainables.packing.compute.packed_batch import (
    MicroBatch,
    PackedInputs,
    pack_batch,
    shape_of,
    unpack_inputs,
)

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
    "qwen3_5": Qwen3_5TextConfig(
        **SIZES,
        head_dim=16,
        tie_word_embeddings=True,
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=8,
    ),
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
    packed = PackedModel(model, Adapters(model.config, 3, 4, CPU), False, False)
    rows = [[example(170), example(5)], [], [example(1), example(9), example(64)]]
    batch = pass_of(rows)
    with torch.no_grad():
        found_NV = packed.logits(packed.embed(batch), batch)
        for (start, end), row in zip(bounds(batch), [*rows[0], *rows[2]], strict=True):
            expected = model(input_ids=torch.tensor([row.input_ids])).logits[0]
            torch.testing.assert_close(found_NV[start:end], expected, rtol=1e-5, atol=1e-5)


def example(num_tokens: int, vocabulary: int = 50) -> Example:
    """Random tokens."""
    return Example.from_ids(torch.randint(0, vocabulary, (num_tokens,)).tolist(), [])


def bounds(batch: PackedInputs) -> list[tuple[int, int]]:
    """First token of each row, and the one after its last."""
    ends = batch.rows.bounds_S1.tolist()
    return list(itertools.pairwise(ends))


def test_bfloat16_rounds_where_transformers_does_under_autocast(model_dir: str) -> None:
    base = load_base(model_dir, "bfloat16")
    rows = [[example(40, 300)], [example(40, 300), example(40, 300)]]
    ids = torch.tensor([row.input_ids for own in rows for row in own])
    batch = pass_of(rows)
    with torch.no_grad(), autocast("bfloat16"):
        expected = base.model(input_ids=ids).last_hidden_state.flatten(0, 1)
    for is_dequantised in (False, True):
        packed = PackedModel(base, Adapters(base.config, 2, 4, CPU), is_dequantised, False)
        with torch.no_grad():
            hidden_ND = packed.hidden_states(packed.embed(batch), batch)
            found = rms_norm(hidden_ND, packed.norm_D, base.config.rms_norm_eps)
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
    adapters.scaling_KJ.copy_(torch.rand_like(adapters.scaling_KJ) + 0.5)
    torch.manual_seed(1)
    adapters.params_KP.copy_(torch.randn_like(adapters.params_KP) * 0.1)
    long = example(70).tokens.tolist()
    rows = [Example.from_ids(long, [6, 7]), Example.from_ids([9], [1, 2, 3, 4])]
    batch = pass_of([rows, rows[::-1]], [0.3, 0.3])
    direction = torch.randn_like(adapters.params_KP)

    def total() -> torch.Tensor:
        return packed.losses(packed.embed(batch), batch).sum()

    embedded_ND = packed.embed(batch)
    torch.autograd.grad(packed.losses(embedded_ND, batch).sum(), embedded_ND)
    found = float((adapters.grads_KP * direction).sum())
    ends = []
    for sign in (1, -1):
        adapters.params_KP.add_(direction, alpha=sign * 1e-5)
        ends.append(float(total().detach()))
        adapters.params_KP.sub_(direction, alpha=sign * 1e-5)
    assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)
    assert abs(found) > 1e-3


def test_what_fills_up_a_pass_changes_nothing(
    base: PreTrainedModel, examples: list[Example]
) -> None:
    adapters = Adapters(base.config, 3, 4, CPU)
    torch.manual_seed(0)
    adapters.params_KP.normal_(std=0.02)
    adapters.scaling_KJ.fill_(1.0)
    packed = PackedModel(base, adapters, True, False)
    micro_batches = [
        MicroBatch(0, examples[:3], 0, 7, 1, 0.3, 1.0),
        MicroBatch(2, examples[3:5], 0, 7, 1, 0.0, 1.0),
    ]
    found = []
    for rounding in ("exact", "recurring", "fine"):
        batch = pack_batch(micro_batches, shape_of(micro_batches, 3, rounding))
        inputs = unpack_inputs(torch.from_numpy(batch.numbers), batch.shape)
        embedded_ND = packed.embed(inputs)
        losses_K = packed.losses(embedded_ND, inputs)
        torch.autograd.grad(losses_K.sum(), embedded_ND)
        found.append((losses_K.detach(), adapters.grads_KP.clone()))
        adapters.grads_KP.zero_()
    torch.testing.assert_close(found[0], found[1])
    assert found[0][0][1] == 0 and (found[0][1][1] == 0).all()
    assert (found[0][0][[0, 2]] > 0).all() and found[0][1][2].abs().max() > 0


def trained_pack(
    settings: TrainingSettings, examples: list[Example], params: Hyperparameters
) -> Pack:
    """Two trials after three steps, so that B is not zero."""
    pack = make_pack(settings, 2)
    pack.join(0, trial_of("other", dataclasses.replace(params, lora_rank=9), settings), examples)
    pack.join(1, trial_of("it", params, settings), examples)
    for _ in range(3):
        assert all(result.failed is None for result in pack.step())
    return pack


def batch_of(examples: list[Example], rate: float) -> PackedInputs:
    """Four rows for two slots that have their own masks."""
    return pass_of([examples[:4], examples[:4]], [0.5, rate])


def own_dropout(batch: PackedInputs, slot: int) -> tuple[Tensor, Dropout]:
    """A slot's tokens (rows, longest) padded on the right, and the masks of all these positions."""
    assert batch.dropout is not None
    first, end = batch.segments.bounds_K2[slot].tolist()
    own = [(a, b) for a, b in bounds(batch) if first <= a and b <= end]
    width = max(b - a for a, b in own)
    ids = torch.zeros(len(own), width, dtype=torch.int64)
    for row, (a, b) in enumerate(own):
        ids[row, : b - a] = batch.ids_N[a:b]
    words = torch.stack([batch.dropout.words_N2[a] for a, _ in own])
    dropout = Dropout(
        words.repeat_interleave(width, dim=0),
        torch.arange(width, dtype=torch.int32).repeat(len(own)),
        torch.zeros(len(own) * width, dtype=torch.int32),
        batch.dropout.thresholds_K[slot : slot + 1],
        batch.dropout.scales_K[slot : slot + 1],
    )
    return ids, dropout


@pytest.mark.parametrize(("folder", "num_grads"), [("model_dir", 28), ("hybrid_dir", 50)])
def test_loss_and_gradients_are_those_of_peft_given_the_same_masks(
    settings: TrainingSettings,
    examples: list[Example],
    params: Hyperparameters,
    folder: str,
    num_grads: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    settings = dataclasses.replace(settings, model=request.getfixturevalue(folder))
    loss, grads = loss_and_grads_of_pack(settings, examples, params, tmp_path)
    expected_loss, expected = loss_and_grads_of_peft(settings, examples, params, tmp_path)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert len(grads) == len(expected) == num_grads
    for name, grad in expected.items():
        assert grads[name].dtype == grad.dtype == torch.float32
        assert float((grads[name] - grad).norm()) < 1e-5 * float(grad.norm())


def test_bfloat16_loses_no_more_of_the_gradients_than_peft_does(
    settings: TrainingSettings, examples: list[Example], params: Hyperparameters, tmp_path: Path
) -> None:
    rounded = dataclasses.replace(settings, compute_dtype="bfloat16")
    loss, grads = loss_and_grads_of_pack(rounded, examples, params, tmp_path)
    peft_loss, peft_grads = loss_and_grads_of_peft(rounded, examples, params, tmp_path)
    exact_loss, exact = loss_and_grads_of_peft(settings, examples, params, tmp_path)
    assert loss == pytest.approx(peft_loss, rel=1e-2)
    assert loss == pytest.approx(exact_loss, rel=1e-2)
    lost, lost_by_peft = (
        sum(float((found[name] - grad).norm() / grad.norm()) for name, grad in exact.items())
        for found in (grads, peft_grads)
    )
    assert lost_by_peft > 1e-3 * len(exact)
    assert lost < 1.05 * lost_by_peft


def loss_and_grads_of_pack(
    settings: TrainingSettings, examples: list[Example], params: Hyperparameters, folder: Path
) -> tuple[float, dict[str, Tensor]]:
    """Of the trial in slot 1, whose adapter is saved in the folder."""
    pack = trained_pack(settings, examples, params)
    pack.save(1, folder / "it")
    batch = batch_of(examples, params.lora_dropout)
    embedded_ND = pack.model.embed(batch)
    losses_K = pack.model.losses(embedded_ND, batch)
    torch.autograd.grad(losses_K.sum(), embedded_ND)
    grads = pack.adapters.views(pack.adapters.grads_KP[1], params.lora_rank, params.target_modules)
    return float(losses_K[1].detach()), grads


def loss_and_grads_of_peft(
    settings: TrainingSettings, examples: list[Example], params: Hyperparameters, folder: Path
) -> tuple[float, dict[str, Tensor]]:
    """Of the adapter in the folder, given the masks of slot 1."""
    base = load_base(settings.model, settings.compute_dtype)
    model = PeftModel.from_pretrained(base, str(folder / "it"), is_trainable=True).train()
    ids, dropout = own_dropout(batch_of(examples, params.lora_dropout), 1)
    put_masks_into(model, dropout)
    with autocast(settings.compute_dtype):
        logits = model(input_ids=ids).logits.float()
    shifted = torch.full_like(ids, IGNORED)
    for row, one in enumerate(examples[:4]):
        end = len(one.input_ids) - 1
        shifted[row, len(one.prompt_ids) - 1 : end] = torch.tensor(one.target_ids)
    flat = logits.flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(flat, shifted.flatten(), reduction="sum")
    loss.backward()
    grads = {
        name.replace(".default", ""): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return float(loss.detach()), grads


def test_neighbours_masks_are_not_those_of_the_trial(
    settings: TrainingSettings, examples: list[Example], params: Hyperparameters
) -> None:
    pack = trained_pack(settings, examples, params)
    assert weights_of(pack, 1, params)
    found = []
    for rate in (0.0, 0.3):
        batch = batch_of(examples, rate)
        with torch.no_grad():
            found.append(pack.model.losses(pack.model.embed(batch), batch))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="solo engine"):
        require_supported(Qwen3Config(**SIZES, layer_types=["sliding_attention"] * 2))
    llama = Qwen3Config(**SIZES)
    llama.model_type = "llama"
    with pytest.raises(ValueError, match="'llama'"):
        require_supported(llama)
