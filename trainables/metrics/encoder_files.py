"""Whether an encoder for BERTScore can be had, found without loading it. No torch."""

import json
from pathlib import Path
from typing import Any

from trainables.errors import SweepAborted
from trainables.models.hub_files import hub_file, hub_has

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
LAYER_COUNTS = ("num_hidden_layers", "n_layers", "n_layer", "encoder_layers", "num_layers")
"""What architectures call their number of blocks in config.json."""


def check_encoder(encoder: str, layer: int) -> None:
    """Looks at a folder's or a Hub model's config and weights; downloads the config alone.

    Raises:
        SweepAborted: there is no such model, it has fewer layers, or no safetensors weights.
    """
    fix = "name a folder or a Hub model with safetensors weights: --bertscore-encoder"
    folder = Path(encoder)
    try:
        path = folder / "config.json" if folder.is_dir() else hub_file(encoder, "config.json")
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = [n for n in LAYER_COUNTS if isinstance(config.get(n), int)]
        has_weights = any(_has(encoder, name) for name in WEIGHTS)
    except (OSError, ValueError, AttributeError) as refused:
        reason = str(refused).strip().partition("\n")[0] or type(refused).__name__
        raise SweepAborted(
            f"BERTScore's encoder {encoder} cannot be had: {reason}",
            f"{fix}, or leave out --bertscore",
        ) from None
    if names and layer > config[names[0]]:
        raise SweepAborted(
            f"BERTScore's layer is {layer}, and {encoder} has {config[names[0]]}",
            f"give a layer from 1 to {config[names[0]]}: --bertscore-layer",
        )
    if not has_weights:
        raise SweepAborted(f"BERTScore's encoder {encoder} has no safetensors weights", fix)


def _has(encoder: str, name: str) -> bool:
    folder = Path(encoder)
    return (folder / name).is_file() if folder.is_dir() else hub_has(encoder, name)
