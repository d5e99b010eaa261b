"""Which types of models a sweep trains, and why it refuses others. No torch."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainables.errors import SweepAborted

HYBRID_TYPE = "qwen3_5_text"
"""Qwen3.5 to Qwen3.8: three layers of Gated DeltaNet to one of gated attention."""
HYBRID_TYPES = (HYBRID_TYPE, "qwen3_5_moe_text")
"""With experts too."""
EXPERT_TYPES = ("qwen2_moe", "qwen3_moe", "qwen3_5_moe_text")
"""Mixtures of experts."""
MODEL_TYPES = ("qwen2", "qwen3", HYBRID_TYPE, *EXPERT_TYPES)
"""model_type values that a sweep trains."""
_NOT_TRAINED = (
    (r"qwen4_exp.*", "its residual streams and n-gram tables are not known to LoRA's libraries"),
    (r"qwen3_next", "PEFT takes the layers of its shared expert for those of all its experts"),
    (
        r"qwen.*(_vl|_omni|_audio|_asr).*",
        "it reads images or sound, and transformers loads no part of it for text alone",
    ),
)
"""Types that look like Qwen, as regular expressions, and why a sweep refuses them."""
MADE_FROM = "choose the model that it was made from, e.g. --model Qwen/Qwen3-0.6B"
"""What to do with a model that is quantised in another way."""


def check_type(model: str, config: Mapping[str, Any]) -> None:
    """Whether a model of this config.json is trained.

    Raises:
        SweepAborted: it is not, with the reason.
    """
    kind = str(config.get("model_type"))
    architectures = [str(name) for name in config.get("architectures") or []]
    text_kind = str(get_text_config(config).get("model_type"))
    if text_kind in MODEL_TYPES and any(
        re.fullmatch(r".*ForCausalLM|Qwen3_5(Moe)?ForConditionalGeneration", name)
        for name in architectures
    ):
        return
    reasons = [why for pattern, why in _NOT_TRAINED if re.fullmatch(pattern, kind)]
    why = reasons[0] if reasons else "it is no Qwen causal language model"
    raise SweepAborted(
        f"{model} is a {kind} model ({', '.join(architectures) or 'no architecture'}), which is "
        f"not trained: {why}",
        "choose a Qwen2.5, Qwen3 or Qwen3.5 language model, e.g. --model Qwen/Qwen3-0.6B",
    )


def check_quantisation(model: str, stored: Mapping[str, Any], layers: Sequence[str]) -> None:
    """What is quantised already must be what a sweep makes of a model: NF4, in all linear layers.

    Args:
        stored: the quantization_config of its config.json.
        layers: names of the weights of its linear layers.

    Raises:
        SweepAborted: it is not.
    """
    if not stored:
        return
    method = stored.get("quant_method", "bitsandbytes")
    if method == "bitsandbytes":
        bits = {"load_in_4bit": "4-bit", "load_in_8bit": "8-bit"}
        method = "".join(name for key, name in bits.items() if stored.get(key)) or method
    if method == "4-bit":
        method = str(stored.get("bnb_4bit_quant_type", "fp4"))  # bitsandbytes' default
    if method != "nf4":
        raise SweepAborted(
            f"{model} is quantised already ({method}); a sweep quantises to NF4 by itself",
            MADE_FROM,
        )
    skipped = set(stored.get("llm_int8_skip_modules") or ()) - {"lm_head"}
    left_out = [name for name in layers if any(str(skip) in name for skip in skipped)]
    if left_out:
        raise SweepAborted(
            f"{model} is quantised to NF4 with {len(left_out)} of its {len(layers)} linear layers "
            f"left out, the first {left_out[0].removesuffix('.weight')}; a sweep needs all in NF4",
            MADE_FROM,
        )


def get_text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Selects the part that reads text, of a model that also sees images; sweeps load no other."""
    return {**config, **(config.get("text_config") or {})}
