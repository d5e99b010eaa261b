"""Whether a model's weights are what its config.json describes, from their headers. No torch."""

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trainables.errors import SweepAborted
from trainables.models.hub_files import download_hub_file, has_hub_file, is_hub_reachable
from trainables.models.model_facts import ModelFacts
from trainables.models.model_files import FIX, WEIGHTS_INDEX, list_weight_files
from trainables.models.model_types import MADE_FROM

_NF4_MARK = ".quant_state.bitsandbytes__nf4"
"""Ends the name of what bitsandbytes saves beside a weight in NF4."""
_SPLIT_EXPERT = re.compile(r"model\.layers\.\d+\.mlp\.experts\.\d+\.\w+\.weight")
"""A weight of one expert, as transformers 5 saves it; in its models, and in some checkpoints, those
of a layer lie in one tensor."""
_FLOATS = ("BF16", "F16", "F32", "F64")


class Tensor(NamedTuple):
    """What a safetensors header tells of one."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {' x '.join(map(str, self.shape))}"


def check_weights(model: str, facts: ModelFacts) -> None:
    """Compares names, shapes and types of the weights of a folder, or of a Hub model in the cache.

    transformers draws at random what it does not find, and ignores what it has no place for.

    Raises:
        SweepAborted: a file is missing or damaged, or the weights are those of another model.
    """
    tensors: dict[str, Tensor] = {}
    for path in _list_local_files(model):
        tensors |= read_header(path)
    if any(".mlp.experts." in name and name.endswith(_NF4_MARK) for name in tensors):
        raise SweepAborted(
            f"{model} holds its experts in NF4, which transformers 5 does not load", MADE_FROM
        )
    fault = _find_fault(tensors, facts) if tensors else None
    if fault is not None:
        raise SweepAborted(
            f"the weights of {model} are not what its config.json describes: {fault}",
            "give a model whose config.json and weights belong together, or download it again",
        )


def _find_fault(tensors: dict[str, Tensor], facts: ModelFacts) -> str | None:
    # A model saved without its head has no prefix, one that sees images too has a part more; tied
    # weights may be saved under either name.
    is_bare = "embed_tokens.weight" in tensors
    tensors = {
        f"model.{n}" if is_bare else n.replace("model.language_model.", "model.", 1): tensor
        for n, tensor in tensors.items()
    }
    if facts.is_tied and "lm_head.weight" in tensors:
        tensors.setdefault("model.embed_tokens.weight", tensors["lm_head.weight"])
    has_one_by_one = any(_SPLIT_EXPERT.fullmatch(name) for name in tensors)
    shapes = facts.weight_shapes
    for name, shape in _split_experts(shapes) if has_one_by_one else shapes.items():
        if name not in tensors:
            return f"there is no {name}"
        tensor = tensors[name]
        if facts.is_quantised and facts.is_linear_weight(name):
            num_bytes = math.ceil(math.prod(shape) / 2)
            if name + _NF4_MARK not in tensors or tensor != ("U8", (num_bytes, 1)):
                return f"{name} is {tensor}, not in NF4"
        elif tensor.dtype not in _FLOATS or tensor.shape != shape:
            return f"{name} is {tensor}, not {' x '.join(map(str, shape))} in floating point"
    if any(name.startswith(f"model.layers.{facts.num_layers}.") for name in tensors):
        return f"there are more than {facts.num_layers} layers"
    if facts.experts and any(f".experts.{facts.experts.num_experts}." in name for name in tensors):
        return f"there are more than {facts.experts.num_experts} experts"
    return None


def _split_experts(shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The weights of a file that holds a layer's experts one by one, gate and up apart."""
    for name, shape in shapes.items():
        parent, _, last = name.rpartition(".")
        if not parent.endswith(".mlp.experts"):
            yield name, shape
            continue
        num_experts, rows, columns = shape
        parts = ("gate_proj", "up_proj") if last == "gate_up_proj" else (last,)
        for expert, part in itertools.product(range(num_experts), parts):
            yield f"{parent}.{expert}.{part}.weight", (rows // len(parts), columns)


def _list_local_files(model: str) -> list[Path]:
    """The files of a folder's weights; of a Hub model those in the cache, if it has them all.

    Raises:
        SweepAborted: the Hub has no safetensors weights of it.
    """
    if Path(model).is_dir():
        return list_weight_files(Path(model))
    files = list_weight_files(download_hub_file(model, "config.json").parent)
    if all(path.is_file() for path in files):
        return files
    names = ("model.safetensors", WEIGHTS_INDEX)
    if is_hub_reachable() and not any(has_hub_file(model, name) for name in names):
        raise SweepAborted(
            f"{model} has no safetensors weights; pickled weights are not loaded",
            "choose a model that has them, e.g. --model Qwen/Qwen3-0.6B",
        )
    return []


def read_header(path: Path) -> dict[str, Tensor]:
    """What a safetensors file holds, by name.

    Raises:
        SweepAborted: it is missing or damaged.
        OSError: it may not be read.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        pickled = path.with_name("pytorch_model.bin").is_file()
        fix = "save it as safetensors; pickled weights are not loaded" if pickled else FIX
        raise SweepAborted(f"the model folder {path.parent} has no {path.name}", fix)
    path.open("rb").close()  # an error that says which file may not be read
    try:
        with safe_open(path, framework="np") as file:  # compares header and length
            names = file.keys()
            slices = {name: file.get_slice(name) for name in names}
            return {n: Tensor(s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}
    except SafetensorError as damaged:
        raise SweepAborted(
            f"{path} is no whole safetensors file ({path.stat().st_size:,} bytes): {damaged}",
            "download it again (after git clone: git lfs pull)",
        ) from None
