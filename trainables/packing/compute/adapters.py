"""Where a pack's adapters are: one row of numbers a slot, and each module's weights as views of it.

One (K, P) tensor makes the optimizer a handful of kernels. Ranks are padded with zeros to the
pack's largest: the padded rows of A and columns of B get gradients of exactly zero, because each
is a product with the other.

Shapes: K slots, P LoRA numbers of a slot, D features in, O features out, R rank (padded),
M modules that share an input, J linear layers of all kinds of decoder layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PretrainedConfig

from trainables.models.layer_kinds import (
    LAYER_KINDS,
    find_parent,
    resolve_targets,
)
from trainables.models.model_facts import parse_facts
from trainables.packing.compute.lora import LoraGroup
from trainables.packing.compute.masks import module_key


@dataclass(frozen=True)
class _Block:
    """Where one matrix of one module lies in a slot's row of numbers."""

    name: str
    module: str
    start: int
    rows: int
    columns: int
    is_lora_a: bool


class Adapters:
    """The LoRA weights of all slots and their gradients.

    Args:
        num_slots: K.
        max_rank: the largest rank that a slot can hold.
        dtype: float32, as PEFT keeps adapters; float64 serves to check gradients.
    """

    def __init__(
        self,
        config: PretrainedConfig,
        num_slots: int,
        max_rank: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.max_rank = max_rank
        shapes = parse_facts(config.to_dict()).linear_shapes
        self.linear_layers = tuple(shapes)
        self._blocks = _layout(shapes, config.layer_types, max_rank)
        num_params = self._blocks[-1].start + self._blocks[-1].rows * self._blocks[-1].columns
        self.params_KP = torch.zeros(num_slots, num_params, device=device, dtype=dtype)
        self.grads_KP = torch.zeros_like(self.params_KP)
        self.scaling_KJ = torch.zeros(
            num_slots, len(self.linear_layers), device=device, dtype=dtype
        )
        starts = {block.name: block.start for block in self._blocks}
        self.layers = [
            tuple(self._group(layer, names, starts, shapes) for names in LAYER_KINDS[kind].groups)
            for layer, kind in enumerate(config.layer_types)
        ]

    def set_scaling(self, slot: int, scaling: float, targets: Sequence[str]) -> None:
        """Scale the slot's products of its target modules, and switch off all its others."""
        modules = resolve_targets(targets, self.linear_layers)
        row = [scaling if name in modules else 0.0 for name in self.linear_layers]
        self.scaling_KJ[slot] = torch.tensor(row, dtype=self.scaling_KJ.dtype)

    def views(self, row_P: Tensor, rank: int, targets: Sequence[str]) -> dict[str, Tensor]:
        """A slot's row of weights (or of moments) as PEFT's tensors, without the padding."""
        modules = resolve_targets(targets, self.linear_layers)
        views = {}
        for block in self._blocks:
            if block.module in modules:
                numbers = row_P[block.start : block.start + block.rows * block.columns]
                matrix = numbers.view(block.rows, block.columns)
                views[block.name] = matrix[:rank] if block.is_lora_a else matrix[:, :rank]
        return views

    def _group(
        self,
        layer: int,
        names: tuple[str, ...],
        starts: dict[str, int],
        shapes: dict[str, tuple[int, int]],
    ) -> LoraGroup:
        first = self.linear_layers.index(names[0])
        assert self.linear_layers[first : first + len(names)] == names
        start = starts[peft_name(layer, names[0], "A")]
        starts_b = [starts[peft_name(layer, name, "B")] for name in names]
        shape_a = (len(names), self.max_rank, shapes[names[0]][1])
        shapes_b = [(shapes[name][0], self.max_rank) for name in names]
        number = layer * len(self.linear_layers) + first
        keys = [module_key(number + index) for index in range(len(names))]
        weights, grads = self.params_KP, self.grads_KP
        return LoraGroup(
            lora_a_KMRD=_view(weights, start, shape_a),
            lora_b_KOR=tuple(map(_view, [weights] * len(names), starts_b, shapes_b)),
            grad_a_KMRD=_view(grads, start, shape_a),
            grad_b_KOR=tuple(map(_view, [grads] * len(names), starts_b, shapes_b)),
            scaling_KM=self.scaling_KJ[:, first : first + len(names)],
            module_keys_M2=torch.tensor(keys, dtype=torch.int32, device=weights.device),
        )


def peft_name(layer: int, module: str, matrix: str) -> str:
    """The name of a LoRA matrix in PEFT's files."""
    parent = find_parent(module)
    return f"base_model.model.model.layers.{layer}.{parent}.{module}.lora_{matrix}.weight"


def _layout(
    shapes: dict[str, tuple[int, int]], layer_types: Sequence[str], rank: int
) -> list[_Block]:
    """All blocks of a slot; the A matrices of modules that share an input are neighbours."""
    blocks: list[_Block] = []
    start = 0
    for layer, kind in enumerate(layer_types):
        for names in LAYER_KINDS[kind].groups:
            for matrix in "AB":
                for module in names:
                    out, into = shapes[module]
                    rows, columns = (rank, into) if matrix == "A" else (out, rank)
                    name = peft_name(layer, module, matrix)
                    blocks.append(_Block(name, module, start, rows, columns, matrix == "A"))
                    start += rows * columns
    return blocks


def _view(tensor_KP: Tensor, start: int, shape: tuple[int, ...]) -> Tensor:
    """One matrix of every slot."""
    end = start + torch.Size(shape).numel()
    return tensor_KP[:, start:end].view(len(tensor_KP), *shape)
