"""Whether a model's folder holds what loading it takes, found without loading it. No torch."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainables.errors import SweepAborted, get_first_line
from trainables.files import parse_json
from trainables.models.hub_files import download_hub_file, has_hub_file
from trainables.shell import write_command

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""What AutoTokenizer reads of a Qwen model, as far as a model has them."""
FIX = "give the folder that save_pretrained wrote for model and tokenizer, or download it again"
READ_BYTES = 2**24
WEIGHTS_INDEX = "model.safetensors.index.json"
_LAYER_COUNTS = ("num_hidden_layers", "n_layers", "n_layer", "encoder_layers", "num_layers")
"""What architectures call their number of blocks in config.json."""


def list_tokenizer_files(model: str, names: Sequence[str] = TOKENIZER_FILES) -> list[Path]:
    """Which of the files a folder has, or a Hub model: nodes may have loaded it elsewhere."""
    if Path(model).is_dir():
        return [path for name in names if (path := Path(model) / name).is_file()]
    files = []
    for name in names:
        with contextlib.suppress(OSError):  # it has none of that name
            files.append(download_hub_file(model, name))
    return files


def check_encoder(encoder: str, layer: int) -> None:
    """Looks at config and weights of BERTScore's encoder; of a Hub model's downloads the config.

    Raises:
        SweepAborted: there is no such model, it has fewer layers, or no safetensors weights.
    """
    fix = "name a folder or a Hub model with safetensors weights: --bertscore-encoder"
    folder = Path(encoder)
    is_local = folder.is_dir()
    try:
        path = folder / "config.json" if is_local else download_hub_file(encoder, "config.json")
        config: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        num_layers = next((n for n in map(config.get, _LAYER_COUNTS) if isinstance(n, int)), layer)
        has_weights = any(
            (folder / name).is_file() if is_local else has_hub_file(encoder, name)
            for name in ("model.safetensors", WEIGHTS_INDEX)
        )
    except (OSError, ValueError, AttributeError) as refused:
        error = f"BERTScore's encoder {encoder} cannot be had: {get_first_line(refused)}"
        raise SweepAborted(error, f"{fix}, or leave out --bertscore") from None
    if layer > num_layers:
        raise SweepAborted(
            f"BERTScore's layer is {layer}, and {encoder} has {num_layers}",
            f"give a layer from 1 to {num_layers}: --bertscore-layer",
        )
    if not has_weights:
        raise SweepAborted(f"BERTScore's encoder {encoder} has no safetensors weights", fix)


def list_weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder, whether they are there or not.

    Raises:
        SweepAborted: the index of several files is damaged.
    """
    if not (folder / WEIGHTS_INDEX).is_file():
        return [folder / "model.safetensors"]
    shards = read_json(folder / WEIGHTS_INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise SweepAborted(f"{folder / WEIGHTS_INDEX} names no weights", FIX)
    return [folder / str(name) for name in sorted(set(map(str, shards.values())))]


def read_ahead(model: str) -> None:
    """Reads the weights of a folder or a cached Hub model, so that the system has them in memory by
    the time that they are loaded; what is missing or damaged is for the loading to tell."""
    with contextlib.suppress(OSError, SweepAborted):
        folder = Path(model)
        if not folder.is_dir():
            from huggingface_hub import try_to_load_from_cache  # slow; a local folder needs none

            folder = Path(str(try_to_load_from_cache(model, "config.json"))).parent
        buffer = bytearray(READ_BYTES)
        for path in list_weight_files(folder):
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def read_json(path: Path) -> dict[str, Any]:
    """A file of a model's folder.

    Raises:
        SweepAborted: it is missing or holds no JSON object.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SweepAborted(f"the model folder {path.parent} has no {path.name}", FIX) from None
    except ValueError as damaged:
        raise SweepAborted(f"{path} is not JSON: {damaged}", FIX) from None
    if not isinstance(content, dict):
        raise SweepAborted(f"{path} is not a JSON object", FIX)
    return content


def read_config(model: str) -> dict[str, Any]:
    """The config.json of a folder or a Hub model.

    Raises:
        SweepAborted: there is no such model, or it is an adapter.
    """
    if Path(model).is_dir():
        _refuse_adapter(model)
        return read_json(Path(model) / "config.json")
    fix = "check the name and the network, or give a folder: --model DIR"
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise SweepAborted(f"there is no model folder {model}", fix)
    try:
        _refuse_adapter(model)
        return read_json(download_hub_file(model, "config.json"))
    except (OSError, ValueError) as refused:
        error = f"the model {model} cannot be had: {get_first_line(refused)}"
        raise SweepAborted(error, fix) from None


def _refuse_adapter(model: str) -> None:
    """transformers would load the adapter's base, and the adapter into it."""
    for path in list_tokenizer_files(model, ("adapter_config.json",)):
        base = read_json(path).get("base_model_name_or_path")
        raise SweepAborted(
            f"{model} is an adapter of {base or 'a model that it does not name'}, not a model",
            f"give its base: --model {write_command(base) if base else 'ID_OR_DIR'}",
        )
