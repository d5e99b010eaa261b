"""An adapter in the weights of its base, which transformers then loads without PEFT."""

from pathlib import Path

import torch
from peft import PeftModel

from trainables.config import BaseType, ComputeDtype
from trainables.errors import SweepAborted
from trainables.files import open_weights
from trainables.models.base_model import DTYPES, load_base

SHARD_SIZE = "4GB"


def save_merged(
    model: str, adapter: Path, folder: Path, compute_dtype: ComputeDtype, base_type: BaseType
) -> None:
    """Writes model type, shapes and bfloat16 weights of the base with the adapter in them.

    A quantised base is what NF4 holds of it: over this one the adapter was trained and scored, and
    its weights make good what NF4 rounds away. In the original weights it would be another model.

    Args:
        folder: gets the files; weights of more than SHARD_SIZE are in several.
        compute_dtype: of the sweep, in which the base's weights are multiplied.

    Raises:
        SweepAborted: the GPU's memory does not hold the base.
    """
    try:
        base = load_base(model, compute_dtype, base_type)
        if base_type == "nf4":
            base = base.dequantize(dtype=DTYPES[compute_dtype])
        merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    except torch.OutOfMemoryError:
        raise SweepAborted(
            f"the GPU's free memory does not hold {model} in {compute_dtype}",
            "merge on the CPU: set CUDA_VISIBLE_DEVICES= before the same command",
        ) from None
    merged.to(torch.bfloat16).save_pretrained(str(folder), max_shard_size=SHARD_SIZE)
    open_weights(folder, "config.json")
