"""Packs of a test-sized model, the solo runs that they must equal, and dropout put into PEFT."""

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

import trainables.solo.trainer
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig
from trainables.data.prepared_rows import read_rows
from trainables.data.tokens import Example, encode_training_rows
from trainables.models.base_model import load_base, load_tokenizer
from trainables.models.model_facts import parse_facts
from trainables.packing.compute.kernels.inputs import Dropout
from trainables.packing.compute.masks import keep_mask, module_key
from trainables.packing.compute.pack import Pack
from trainables.packing.compute.packed_batch import (
    MicroBatch,
    PackedInputs,
    pack_batch,
    shape_of,
    unpack_inputs,
)
from trainables.packing.compute.slot import StepResult
from trainables.solo.rung_callback import RungReportCallback

MAX_TOKENS = 1000
Plan = dict[int, Callable[[Pack], object]]


def examples_of(settings: TrainingSettings) -> list[Example]:
    """The training rows as solo encodes them."""
    rows = read_rows(settings.rows_dir).train
    tokenizer = load_tokenizer(settings.model)
    limits = settings.max_length_tokens, settings.max_new_tokens
    return encode_training_rows(tokenizer, rows, *limits)


def longer(settings: TrainingSettings, num_steps: int, **changes: Any) -> TrainingSettings:
    """The settings with another budget, reported once at its end."""
    return dataclasses.replace(settings, max_steps=num_steps, rungs=(num_steps,), **changes)


def trial_of(
    name: str, params: Hyperparameters, settings: TrainingSettings, folder: Path = Path("/none")
) -> TrialConfig:
    """A trial."""
    return TrialConfig(trial_id=name, params=params, settings=settings, folder=folder)


def make_pack(
    settings: TrainingSettings, num_slots: int, max_tokens: int = MAX_TOKENS, **options: Any
) -> Pack:
    """A pack on the settings' model, for ranks up to 16."""
    base = load_base(settings.model, settings.compute_dtype, settings.base)
    return Pack(base, num_slots, 16, max_tokens, **options)


def pass_of(
    rows: Sequence[Sequence[Example]],
    rates: Sequence[float] | None = None,
    step: int = 1,
    device: str = "cpu",
) -> PackedInputs:
    """Each slot's rows as a pass; a slot's number is its seed."""
    rates = rates or [0.0] * len(rows)
    micro_batches = [
        MicroBatch(slot, own, 0, slot, step, rate, 1.0)
        for slot, (own, rate) in enumerate(zip(rows, rates, strict=True))
        if own
    ]
    packed = pack_batch(micro_batches, shape_of(micro_batches, len(rows), "exact"))
    return unpack_inputs(torch.from_numpy(packed.numbers).to(device), packed.shape)


def run_pack(pack: Pack, plan: Plan | None = None) -> dict[str, list[StepResult]]:
    """Step until nothing is left, doing what the plan says before its steps (counted from 1)."""
    found: dict[str, list[StepResult]] = defaultdict(list)
    plan = dict(plan or {})
    number = 1
    while True:
        plan.pop(number, lambda pack: None)(pack)
        results = pack.step()
        if not results:
            break
        for result in results:
            found[result.trial_id].append(result)
        number += 1
    assert not plan, f"the pack ended at step {number}, before {sorted(plan)}"
    return found


def losses(results: Sequence[StepResult]) -> list[float]:
    return [result.loss for result in results]


def run_solo(
    params: Hyperparameters, settings: TrainingSettings, folder: Path
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """TRL's logs of every step, and the final weights."""
    logs: list[dict[str, float]] = []

    class Recorded(RungReportCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if "loss" in kwargs["logs"]:
                logs.append(dict(kwargs["logs"]))
            super().on_log(args, state, control, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainables.solo.trainer, "RungReportCallback", Recorded)
        trainables.solo.trainer.train(
            trial_of("solo", params, settings, folder), lambda report: None
        )
    last = folder / f"checkpoint-{settings.max_steps}"
    return logs, load_file(last / "adapter_model.safetensors")


def weights_of(pack: Pack, slot: int, params: Hyperparameters) -> dict[str, Tensor]:
    """A slot's LoRA matrices by PEFT's names."""
    row_P = pack.adapters.params_KP[slot]
    return pack.adapters.views(row_P, params.lora_rank, params.target_modules)


def largest_relative(pairs: Sequence[tuple[float, float]]) -> float:
    """Largest relative difference."""
    assert pairs
    return max(abs(one - other) / abs(other) for one, other in pairs)


def weight_distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest distance of two matrices, relative to the norm of the second."""
    assert one.keys() == other.keys() and one
    return max(float((one[name] - other[name]).norm() / other[name].norm()) for name in one)


class GivenMask(torch.nn.Module):
    """In the place of PEFT's lora_dropout: drops what a pack's slot would drop."""

    def __init__(self, dropout: Dropout, number: int) -> None:
        super().__init__()
        self.dropout = dropout
        self.key = torch.tensor(module_key(number), dtype=torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """x with the masks of its rows and positions."""
        kept = keep_mask(x.shape[2], self.dropout, self.key)
        return (x * kept.view(x.shape) * self.dropout.scales_K).to(x.dtype)


def put_masks_into(model: PeftModel, dropout: Dropout) -> None:
    """Give a PEFT model the masks of one slot."""
    base = model.get_base_model()
    names = tuple(parse_facts(base.config.to_dict()).linear_shapes)
    found = 0
    for layer_number, layer in enumerate(base.model.layers):
        children = {n: m for part in layer.children() for n, m in part.named_children()}
        for place, name in enumerate(names):
            with contextlib.suppress(AttributeError, KeyError):
                number = layer_number * len(names) + place
                children[name].lora_dropout["default"] = GivenMask(dropout, number)
                found += 1
    assert found, "no adapted module was found"
