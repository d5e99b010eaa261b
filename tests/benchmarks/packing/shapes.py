"""The shapes of Qwen models on the Hub, by name: sizes from their config.json files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.errors import SweepAborted

_SIZES: Mapping[str, tuple[int, int, int, int, int, int | None, bool]] = {
    "Qwen3-0.6B": (28, 1024, 3072, 16, 8, None, True),
    "Qwen3-1.7B": (28, 2048, 6144, 16, 8, None, True),
    "Qwen3-4B": (36, 2560, 9728, 32, 8, None, True),
    "Qwen3-8B": (36, 4096, 12_288, 32, 8, None, False),
    "Qwen3-14B": (40, 5120, 17_408, 40, 8, None, False),
    "Qwen3-32B": (64, 5120, 25_600, 64, 8, None, False),
    "Qwen3.5-0.8B": (24, 1024, 3584, 8, 2, 16, True),
    "Qwen3.5-4B": (32, 2560, 9216, 16, 4, 32, True),
    "Qwen3.5-9B": (32, 4096, 12_288, 16, 4, 32, False),
    "Qwen3.5-27B": (64, 5120, 17_408, 24, 4, 48, False),
}
"""Layers, width of the hidden state and of the feed-forward, heads of queries and of keys, value
heads of Gated DeltaNet, and whether the head is the embedding (huggingface.co/Qwen, 2026-11)."""


def _make_config(name: str) -> Mapping[str, Any]:
    num_layers, hidden, wide, num_heads, num_kv_heads, num_value_heads, is_tied = _SIZES[name]
    sizes = {
        "num_hidden_layers": num_layers,
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "tie_word_embeddings": is_tied,
    }
    if num_value_heads is None:
        return sizes | {
            "model_type": "qwen3",
            "vocab_size": 151_936,
            "head_dim": 128,
            "max_position_embeddings": 40_960,
            "rope_theta": 1e6,
        }
    rope = {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25}
    return sizes | {
        "model_type": "qwen3_5_text",  # the part for text, as it is trained
        "vocab_size": 248_320,
        "head_dim": 256,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": num_value_heads,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "full_attention_interval": 4,
        "max_position_embeddings": 262_144,
        "rope_parameters": rope,
    }


SHAPES: Mapping[str, Mapping[str, Any]] = {name: _make_config(name) for name in _SIZES}
"""What config.json says of each, as far as sizes depend on it."""


def check_shape(model_config: Path) -> None:
    """Whether it is a folder with a config.json, or the name of a shape.

    Raises:
        SweepAborted: it is neither.
    """
    if not (model_config / "config.json").is_file() and str(model_config) not in SHAPES:
        raise SweepAborted(
            f"there is no shape {model_config}",
            f"name one of {', '.join(SHAPES)}, or a folder with a config.json",
        )
