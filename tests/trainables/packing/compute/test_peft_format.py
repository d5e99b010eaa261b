"""Slots in PEFT's format: first weights, saved folders, and what PEFT reads from them."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict

from tests.trainables.packing.small_packs import (
    longer,
    make_pack,
    pass_of,
    run_pack,
    trial_of,
    weights_of,
)
from trainables.checkpoint import PACK_STATE_NAMES
from trainables.config import ComputeDtype, Hyperparameters, TrainingSettings
from trainables.data.tokens import Example
from trainables.models.base_model import load_base
from trainables.models.layer_kinds import ATTENTION
from trainables.packing.compute import peft_format
from trainables.packing.compute.peft_format import (
    SlotState,
    initial_weights,
    read_slot,
    write_slot,
)
from trainables.solo.trainer import add_adapter


@pytest.mark.parametrize("modules", [ATTENTION.linear_layers, ("up_proj", "q_proj")])
def test_first_weights_are_those_of_a_solo_trial(
    settings: TrainingSettings, params: Hyperparameters, modules: tuple[str, ...]
) -> None:
    params = dataclasses.replace(params, target_modules=modules, use_rslora=True)
    base = load_base(settings.model, settings.compute_dtype)
    before = torch.get_rng_state()
    found = initial_weights(base.config, params, settings.seed)
    assert torch.equal(torch.get_rng_state(), before)
    expected = get_peft_model_state_dict(add_adapter(base, params, settings.seed))
    assert found.keys() == expected.keys() and len(found) == 4 * len(modules)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(value.dtype == torch.float32 for value in found.values())
    other = initial_weights(base.config, params, settings.seed + 1)
    assert any(not torch.equal(found[name], other[name]) for name in found)


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float32"])
def test_first_weights_over_an_unquantised_base_are_rounded_as_peft_rounds_them(
    settings: TrainingSettings, params: Hyperparameters, compute_dtype: ComputeDtype
) -> None:
    base = load_base(settings.model, compute_dtype, "bf16")
    found = initial_weights(base.config, params, settings.seed)
    expected = get_peft_model_state_dict(add_adapter(base, params, settings.seed))
    assert found.keys() == expected.keys() and found
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(value.dtype == torch.float32 for value in found.values())


@pytest.mark.parametrize("modules", [ATTENTION.linear_layers, ("o_proj", "down_proj")])
def test_saved_slot_gives_peft_the_same_logits(
    settings: TrainingSettings,
    examples: list[Example],
    params: Hyperparameters,
    modules: tuple[str, ...],
    tmp_path: Path,
) -> None:
    params = dataclasses.replace(params, target_modules=modules, use_rslora=True)
    pack = make_pack(settings, 2)
    pack.join(0, trial_of("other", dataclasses.replace(params, lora_rank=7), settings), examples)
    pack.join(1, trial_of("it", params, settings), examples)
    run_pack(pack)
    pack.save(1, tmp_path / "checkpoint-4")
    batch = pass_of([examples[:1], examples[:1]])
    with torch.no_grad():
        found = pack.model.logits(pack.model.embed(batch), batch).chunk(2)
    base = load_base(settings.model, settings.compute_dtype)
    model = PeftModel.from_pretrained(base, str(tmp_path / "checkpoint-4"))
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([examples[0].input_ids])).logits
    torch.testing.assert_close(found[1], expected[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found[0], expected[0], rtol=1e-3, atol=1e-3)


def test_saved_slot_is_read_back_whole(
    settings: TrainingSettings, examples: list[Example], params: Hyperparameters, tmp_path: Path
) -> None:
    pack = make_pack(settings, 1)
    pack.join(0, trial_of("it", params, settings), examples)
    pack.step()
    folder = tmp_path / "checkpoint-2"
    pack.save(0, folder)
    pack.step()
    pack.save(0, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    assert all((folder / name).is_file() for name in PACK_STATE_NAMES)
    state = read_slot(folder, params)
    assert state.step == 2
    held = weights_of(pack, 0, params)
    assert all(torch.equal(state.weights[name], held[name]) for name in held)
    assert state.exp_avg.keys() == state.exp_avg_sq.keys() == held.keys()
    assert any(moment.abs().max() > 0 for moment in state.exp_avg_sq.values())


def test_folder_of_another_trial_is_refused(
    settings: TrainingSettings, examples: list[Example], params: Hyperparameters, tmp_path: Path
) -> None:
    pack = make_pack(settings, 1)
    pack.join(0, trial_of("it", params, settings), examples)
    pack.save(0, tmp_path / "saved")
    other = dataclasses.replace(params, learning_rate=1e-9)
    with pytest.raises(ValueError, match="learning_rate"):
        read_slot(tmp_path / "saved", other)


def test_interrupted_save_leaves_the_last_one(
    settings: TrainingSettings,
    examples: list[Example],
    params: Hyperparameters,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack = make_pack(longer(settings, 2), 1)
    pack.join(0, trial_of("it", params, settings), examples)
    pack.save(0, tmp_path / "saved")
    pack.step()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("trainables.packing.compute.peft_format.save_file", full)
        with pytest.raises(OSError, match="no space"):
            pack.save(0, tmp_path / "saved")
    assert read_slot(tmp_path / "saved", params).step == 0
    pack.save(0, tmp_path / "saved")
    assert read_slot(tmp_path / "saved", params).step == 1


def test_two_that_save_a_trial_at_once_do_not_mix(
    params: Hyperparameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pack that was given up may be cut off in the middle of a save, and live."""
    folder, save_file = tmp_path / "checkpoint-4", peft_format.save_file
    states = [
        SlotState(weights={"w": torch.full((2,), n)}, exp_avg={}, exp_avg_sq={}, step=4)
        for n in (1.0, 2.0)
    ]
    write = functools.partial(write_slot, params=params, model="m", linear_layers=["q_proj"])

    def save_beside(*args: Any, **options: Any) -> None:
        if len(states) == 2:
            write(folder, states.pop())
        save_file(*args, **options)

    monkeypatch.setattr(peft_format, "save_file", save_beside)
    write(folder, states[0])
    assert read_slot(folder, params).weights["w"].tolist() == [1.0, 1.0]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]
