"""What a model's config.json tells before anything is loaded: type, shapes, sizes. No torch."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from trainables.config import Hyperparameters
from trainables.errors import SweepAborted
from trainables.models.hub_files import hub_file
from trainables.models.model_files import read_json, tokenizer_files

MODEL_TYPES = ("qwen2", "qwen3")
"""model_type values whose decoder blocks have the seven linear layers of LINEAR_LAYERS."""
_MADE_FROM = "choose the model that it was made from, e.g. --model Qwen/Qwen3-0.6B"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The shape of a dense Qwen decoder."""

    kind: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    """Tokens of the longest text that the model was made for."""
    is_tied: bool
    """Whether the output head shares the embedding's weights."""
    has_sliding_attention: bool = False
    """Whether some layers see a window of the last tokens only, which packs do not train."""
    activation: str = "silu"
    """What stands between gate and down."""
    biased_layers: tuple[str, ...] = ()
    """The linear layers that have a bias."""
    is_quantised: bool = False
    """Whether the files hold the linear layers in NF4 already."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise ValueError(f"{field.name} is {value}; it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads} heads cannot share {self.num_kv_heads} of keys")

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(features out, features in) of each linear layer of a block, as its weight has them."""
        hidden, wide = self.hidden_size, self.intermediate_size
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        return {
            "q_proj": (q, hidden),
            "k_proj": (kv, hidden),
            "v_proj": (kv, hidden),
            "o_proj": (hidden, q),
            "gate_proj": (wide, hidden),
            "up_proj": (wide, hidden),
            "down_proj": (hidden, wide),
        }

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight, by its name in the model's files."""
        hidden = (self.hidden_size,)
        block: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": hidden,
            "post_attention_layernorm.weight": hidden,
        }
        for name, shape in self.linear_shapes.items():
            layer = (
                f"{'mlp' if name in ('gate_proj', 'up_proj', 'down_proj') else 'self_attn'}.{name}"
            )
            block[f"{layer}.weight"] = shape
            if name in self.biased_layers:
                block[f"{layer}.bias"] = shape[:1]
        if self.kind == "qwen3":
            norms = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")
            block |= dict.fromkeys(norms, (self.head_dim,))
        embedding = (self.vocab_size, self.hidden_size)
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": embedding,
            "model.norm.weight": hidden,
        }
        if not self.is_tied:
            shapes["lm_head.weight"] = embedding
        layers = [f"model.layers.{index}" for index in range(self.num_layers)]
        return shapes | {f"{at}.{name}": shape for at in layers for name, shape in block.items()}

    @property
    def body_params(self) -> int:
        """Weights of the linear layers of all blocks: what NF4 quantises."""
        return self.num_layers * sum(out * into for out, into in self.linear_shapes.values())

    @property
    def num_params(self) -> int:
        """All weights, norms left out."""
        return self.body_params + self.vocab_size * self.hidden_size * (1 if self.is_tied else 2)

    def lora_params(self, params: Hyperparameters) -> int:
        """Trainable weights of one adapter."""
        shapes = [self.linear_shapes[name] for name in params.target_modules]
        return self.num_layers * params.lora_rank * sum(out + into for out, into in shapes)


def read_model_facts(model: str) -> ModelFacts:
    """Reads the config.json of a folder or a Hub model.

    Raises:
        SweepAborted: there is no such model, or it is not a dense Qwen causal language model.
    """
    config = _config_json(model)
    fix = "download the model again"
    try:
        _check_kind(model, config)
        facts = facts_of(config)
        _check_quantisation(model, config.get("quantization_config") or {}, facts)
        return facts
    except KeyError as missing:
        raise SweepAborted(f"the config.json of {model} has no {missing}", fix) from None
    except (AttributeError, TypeError, ValueError, ZeroDivisionError) as damaged:
        raise SweepAborted(f"the config.json of {model} is damaged: {damaged}", fix) from None


def _check_kind(model: str, config: dict[str, Any]) -> None:
    kind = str(config.get("model_type"))
    architectures = config.get("architectures") or []
    if kind not in MODEL_TYPES or not any(str(a).endswith("ForCausalLM") for a in architectures):
        raise SweepAborted(
            f"{model} is a {kind} model ({', '.join(map(str, architectures)) or 'no architecture'})"
            ", not a Qwen causal language model",
            "choose a dense Qwen2, Qwen2.5 or Qwen3 model, e.g. --model Qwen/Qwen3-0.6B",
        )


def _check_quantisation(model: str, stored: dict[str, Any], facts: ModelFacts) -> None:
    """What is quantised already must be what a sweep makes of a model: NF4, in all linear layers.

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
            _MADE_FROM,
        )
    skipped = set(stored.get("llm_int8_skip_modules") or ()) - {"lm_head"}
    layers = [name for name in facts.weight_shapes if name.endswith("_proj.weight")]
    left_out = [name for name in layers if any(str(skip) in name for skip in skipped)]
    if left_out:
        raise SweepAborted(
            f"{model} is quantised to NF4 with {len(left_out)} of its {len(layers)} linear layers "
            f"left out, the first {left_out[0].removesuffix('.weight')}; a sweep needs all in NF4",
            _MADE_FROM,
        )


def facts_of(config: Mapping[str, Any]) -> ModelFacts:
    """The facts of a config.json, or of what a transformers config's to_dict gives."""
    heads = int(config["num_attention_heads"])
    kind = str(config["model_type"])
    biased: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    if kind != "qwen2":
        biased = (*biased, "o_proj") if config.get("attention_bias") else ()
    return ModelFacts(
        kind=kind,
        num_layers=int(config["num_hidden_layers"]),
        hidden_size=int(config["hidden_size"]),
        intermediate_size=int(config["intermediate_size"]),
        num_heads=heads,
        num_kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        vocab_size=int(config["vocab_size"]),
        max_positions=int(config.get("max_position_embeddings") or 32768),
        is_tied=bool(config.get("tie_word_embeddings", False)),
        has_sliding_attention=_has_sliding_attention(config),
        activation=str(config.get("hidden_act", "silu")),
        biased_layers=biased,
        is_quantised=bool(config.get("quantization_config")),
    )


def _has_sliding_attention(config: Mapping[str, Any]) -> bool:
    """Whether any layer slides; fills a missing layer_types as transformers' configs do."""
    layer_types = config.get("layer_types")
    if layer_types is not None:
        return set(layer_types) != {"full_attention"}
    is_used = bool(config.get("use_sliding_window")) and config.get("sliding_window", 1) is not None
    return is_used and int(config.get("max_window_layers", 28)) < int(config["num_hidden_layers"])


def _config_json(model: str) -> dict[str, Any]:
    if Path(model).is_dir():
        _refuse_adapter(model)
        return read_json(Path(model) / "config.json")
    fix = "check the name and the network, or give a folder: --model DIR"
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise SweepAborted(f"there is no model folder {model}", fix)
    try:
        _refuse_adapter(model)
        return read_json(hub_file(model, "config.json"))
    except (OSError, ValueError) as refused:
        reason = str(refused).strip().splitlines()[0] if str(refused) else type(refused).__name__
        raise SweepAborted(f"the model {model} cannot be had: {reason}", fix) from None


def _refuse_adapter(model: str) -> None:
    """transformers would load the adapter's base, and the adapter into it."""
    for path in tokenizer_files(model, ("adapter_config.json",)):
        base = read_json(path).get("base_model_name_or_path")
        raise SweepAborted(
            f"{model} is an adapter of {base or 'a model that it does not name'}, not a model",
            f"give its base: --model {shlex.quote(str(base)) if base else 'ID_OR_DIR'}",
        )
