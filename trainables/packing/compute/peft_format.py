"""A slot in PEFT's format: initialised as PEFT initialises, saved as PEFT saves, resumable."""

import copy
import dataclasses
import json
import shutil
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig

from trainables.checkpoint import PACK_STATE_NAMES, TMP_SUFFIX, read_adapter_params
from trainables.config import Hyperparameters
from trainables.files import open_weights, parse_json, sync_path
from trainables.models.base_model import make_lora_config
from trainables.models.model_facts import parse_facts

WEIGHTS_NAME = "adapter_model.safetensors"
MOMENTS_NAME, STATE_NAME = PACK_STATE_NAMES


@dataclass(frozen=True, kw_only=True)
class SlotState:
    """A trial between two optimizer steps; it goes on exactly from here in any slot."""

    weights: dict[str, Tensor]
    """LoRA matrices by PEFT's names, without padding."""
    exp_avg: dict[str, Tensor]
    """AdamW's moments by the same names; empty before the first step."""
    exp_avg_sq: dict[str, Tensor]
    step: int
    """Optimizer steps done."""


def initial_weights(
    config: PretrainedConfig, params: Hyperparameters, seed: int
) -> dict[str, Tensor]:
    """The LoRA matrices that solo.add_adapter gives, without a base.

    PEFT itself makes them, on a model of the same structure whose weights take no memory. The
    process's random state stays as it was.
    """
    bare = copy.deepcopy(config)
    # PEFT draws in float32, and rounds to the type of the weights beside it unless that is NF4.
    is_quantised = bare.__dict__.pop("quantization_config", None) is not None
    dtype = torch.float32 if is_quantised else bare.dtype
    with torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(bare)
        for layer in skeleton.model.layers:
            _materialise(layer, dtype)
        torch.default_generator.manual_seed(seed)
        model = get_peft_model(
            skeleton, make_lora_config(params, parse_facts(bare.to_dict()).linear_shapes)
        )
    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


def write_slot(
    folder: Path,
    state: SlotState,
    params: Hyperparameters,
    model: str,
    linear_layers: Collection[str],
) -> None:
    """Write a slot beside folder and rename it to that, replacing what was there.

    Args:
        model: the base's name in the adapter's config.
        linear_layers: all that the base has.
    """
    # of a name of its own: a pack that was given up may still be writing beside the next one
    tmp = folder.with_name(f"{folder.name}-{uuid.uuid4().hex[:8]}{TMP_SUFFIX}")
    tmp.mkdir(parents=True)
    peft_config = make_lora_config(params, linear_layers)
    peft_config.base_model_name_or_path = model
    peft_config.inference_mode = True
    peft_config.save_pretrained(str(tmp))
    save_file(_to_cpu(state.weights), tmp / WEIGHTS_NAME, metadata={"format": "pt"})
    moments = {f"exp_avg.{name}": value for name, value in state.exp_avg.items()}
    moments |= {f"exp_avg_sq.{name}": value for name, value in state.exp_avg_sq.items()}
    save_file(_to_cpu(moments), tmp / MOMENTS_NAME)
    record = {"step": state.step, "params": dataclasses.asdict(params)}
    (tmp / STATE_NAME).write_text(json.dumps(record), encoding="utf-8")
    open_weights(tmp, STATE_NAME)
    for path in tmp.iterdir():  # the rename makes them count
        sync_path(path)
    if folder.exists():
        shutil.rmtree(folder)
    tmp.rename(folder)


def read_slot(folder: Path, params: Hyperparameters) -> SlotState:
    """Read what write_slot wrote.

    Raises:
        ValueError: the folder is of a trial with other hyperparameters.
    """
    record: dict[str, Any] = parse_json((folder / STATE_NAME).read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(dataclasses.asdict(params)))
    if record["params"] != wanted:
        raise ValueError(f"{folder} is of a trial with {record['params']}, not {wanted}")
    moments = load_file(folder / MOMENTS_NAME)
    return SlotState(
        weights=load_file(folder / WEIGHTS_NAME),
        exp_avg=_select_prefix(moments, "exp_avg."),
        exp_avg_sq=_select_prefix(moments, "exp_avg_sq."),
        step=record["step"],
    )


def read_adapter(folder: Path) -> tuple[dict[str, Tensor], Hyperparameters]:
    """A finished adapter's weights, and the hyperparameters that its PEFT config tells."""
    return load_file(folder / WEIGHTS_NAME), read_adapter_params(folder)


def _materialise(layer: Any, dtype: torch.dtype) -> None:
    """Give a meta layer's linears weights that PEFT takes for real: one number, expanded."""
    for child in layer.modules():
        if isinstance(child, torch.nn.Linear):
            weight = torch.zeros(1, 1, dtype=dtype)
            child.weight = torch.nn.Parameter(weight.expand(child.weight.shape))


def _select_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors[name] for name in names}


def _to_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
