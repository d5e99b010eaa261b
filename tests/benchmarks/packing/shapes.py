"""The shapes of Qwen models on the Hub, by name: sizes from their config.json files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.errors import SweepAborted

_QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rope_theta": 1e6,
}
_QWEN3_5 = {
    "model_type": "qwen3_5_text",  # the part for text, as it is trained
    "vocab_size": 248_320,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
    "max_position_embeddings": 262_144,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25},
}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "Qwen3-0.6B": {
        **_QWEN3,
        "num_hidden_layers": 28,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
    "Qwen3-1.7B": {
        **_QWEN3,
        "num_hidden_layers": 28,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
    "Qwen3-4B": {
        **_QWEN3,
        "num_hidden_layers": 36,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "tie_word_embeddings": True,
    },
    "Qwen3-8B": {
        **_QWEN3,
        "num_hidden_layers": 36,
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
    "Qwen3-14B": {
        **_QWEN3,
        "num_hidden_layers": 40,
        "hidden_size": 5120,
        "intermediate_size": 17_408,
        "num_attention_heads": 40,
        "tie_word_embeddings": False,
    },
    "Qwen3-32B": {
        **_QWEN3,
        "num_hidden_layers": 64,
        "hidden_size": 5120,
        "intermediate_size": 25_600,
        "num_attention_heads": 64,
        "tie_word_embeddings": False,
    },
    "Qwen3.5-0.8B": {
        **_QWEN3_5,
        "num_hidden_layers": 24,
        "hidden_size": 1024,
        "intermediate_size": 3584,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "linear_num_value_heads": 16,
        "tie_word_embeddings": True,
    },
    "Qwen3.5-4B": {
        **_QWEN3_5,
        "num_hidden_layers": 32,
        "hidden_size": 2560,
        "intermediate_size": 9216,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "linear_num_value_heads": 32,
        "tie_word_embeddings": True,
    },
    "Qwen3.5-9B": {
        **_QWEN3_5,
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "linear_num_value_heads": 32,
        "tie_word_embeddings": False,
    },
    "Qwen3.5-27B": {
        **_QWEN3_5,
        "num_hidden_layers": 64,
        "hidden_size": 5120,
        "intermediate_size": 17_408,
        "num_attention_heads": 24,
        "num_key_value_heads": 4,
        "linear_num_value_heads": 48,
        "tie_word_embeddings": False,
    },
}


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
