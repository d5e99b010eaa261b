"""Sizes told from config.json are those of the real models and of PEFT's adapters."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import (
    AutoConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3_5ForCausalLM,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from trainables.config import Hyperparameters
from trainables.errors import SweepAborted
from trainables.models.base_model import make_lora_config
from trainables.models.layer_kinds import ATTENTION
from trainables.models.model_facts import read_model_facts

EXPERTS = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "vocab_size": 301,
    "tie_word_embeddings": False,
}
SHAPES: dict[str, dict[str, Any]] = {
    "Qwen3_MoE-30B-A3B": {
        "hidden_size": 2048,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
    "qwen3_moe": EXPERTS | {"head_dim": 32, "intermediate_size": 500},
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 40},
    "qwen3_5_moe": EXPERTS
    | {
        "num_hidden_layers": 5,
        "shared_expert_intermediate_size": 40,
        "head_dim": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 8,
    },
    "qwen3": {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 301,
        "tie_word_embeddings": True,
    },
    "qwen3 untied, own head_dim": {
        "hidden_size": 96,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "head_dim": 8,
        "vocab_size": 77,
        "tie_word_embeddings": False,
    },
    "qwen3 with biases": {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 77,
        "tie_word_embeddings": True,
        "attention_bias": True,
    },
    "Qwen3-0.6B": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "qwen3_5": {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 8,
        "vocab_size": 301,
        "tie_word_embeddings": True,
    },
    "qwen2": {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 301,
        "tie_word_embeddings": False,
    },
    "Qwen2.5-0.5B": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
}


def built(name: str, folder: Path) -> torch.nn.Module:
    """The real model on the meta device, with its config.json in folder."""
    kinds: list[tuple[str, Any, Any]] = [
        ("qwen3_5_moe", Qwen3_5MoeTextConfig, Qwen3_5MoeForCausalLM),
        ("qwen3_moe", Qwen3MoeConfig, Qwen3MoeForCausalLM),
        ("qwen2_moe", Qwen2MoeConfig, Qwen2MoeForCausalLM),
        ("qwen3_5", Qwen3_5TextConfig, Qwen3_5ForCausalLM),
        ("qwen3", Qwen3Config, Qwen3ForCausalLM),
        ("qwen2", Qwen2Config, Qwen2ForCausalLM),
    ]
    config_class, model_class = next(
        (config, model) for kind, config, model in kinds if name.lower().startswith(kind)
    )
    config: PreTrainedConfig = config_class(**SHAPES[name])
    config.architectures = [model_class.__name__]
    config.save_pretrained(folder)
    with torch.device("meta"):
        model: torch.nn.Module = model_class(config)
    return model


@pytest.mark.parametrize("name", SHAPES)
def test_weights_are_those_of_the_real_model_but_norms_and_biases(
    name: str, tmp_path: Path
) -> None:
    """Every weight is counted, save those of norms and the biases of Qwen2's q, k and v."""
    model = built(name, tmp_path)
    facts = read_model_facts(str(tmp_path))
    small = ("norm", "conv1d", "A_log", "dt_bias")
    counted = {
        name: p.numel()
        for name, p in model.named_parameters()
        if not any(part in name for part in small)
    }
    biases = sum(n for name, n in counted.items() if name.endswith("bias"))
    assert facts.num_params == sum(counted.values()) - biases
    kv = 2 * facts.num_kv_heads + facts.num_heads
    per_layer = kv * facts.head_dim + (facts.hidden_size if facts.kind == "qwen3" else 0)
    assert biases == (facts.num_layers * per_layer if facts.biased_layers else 0)
    body = [
        module.weight.numel()
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and path != "lm_head"
    ]
    assert facts.body_params == sum(body)
    left_out = sum(p.numel() for p in model.parameters()) - facts.num_params
    assert left_out < 0.02 * facts.num_params


@pytest.mark.parametrize("name", SHAPES)
def test_linear_shapes_are_those_of_the_real_model(name: str, tmp_path: Path) -> None:
    model = built(name, tmp_path)
    shapes = read_model_facts(str(tmp_path)).linear_shapes
    assert tuple(shapes)[:7] == ATTENTION.linear_layers[: len(shapes)]
    found = set()
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "lm_head" not in path:
            layer = path.rpartition(".")[2]
            assert tuple(module.weight.shape) == shapes[layer]
            found.add(layer)
    assert found == set(shapes)


@pytest.mark.parametrize("name", SHAPES)
def test_weight_shapes_are_those_of_the_real_model(name: str, tmp_path: Path) -> None:
    model = built(name, tmp_path)
    expected = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    assert read_model_facts(str(tmp_path)).weight_shapes == expected


@pytest.mark.parametrize("rank", [1, 8, 64])
@pytest.mark.parametrize("targets", [ATTENTION.linear_layers, ("q_proj", "v_proj"), ("down_proj",)])
@pytest.mark.parametrize("name", ["qwen3", "qwen3 untied, own head_dim", "qwen2"])
def test_adapter_is_as_large_as_pefts(
    name: str, targets: tuple[str, ...], rank: int, tmp_path: Path
) -> None:
    model = built(name, tmp_path)
    config = peft.LoraConfig(r=rank, target_modules=list(targets), task_type="CAUSAL_LM")
    adapter = peft.get_peft_model(model, config)
    trainable = sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    params = Hyperparameters(
        lora_rank=rank, lora_alpha=1.0, learning_rate=1e-3, target_modules=targets
    )
    assert trainable > 0
    assert read_model_facts(str(tmp_path)).count_lora_params(params) == trainable


@pytest.mark.parametrize("name", ["qwen3_moe", "qwen2_moe", "qwen3_5_moe"])
def test_adapter_of_a_model_with_experts_is_as_large_as_pefts_and_leaves_them_alone(
    name: str, tmp_path: Path
) -> None:
    model = built(name, tmp_path)
    facts = read_model_facts(str(tmp_path))
    params = Hyperparameters(lora_rank=4, lora_alpha=4, lora_dropout=0.1, learning_rate=1e-3)
    adapter = peft.get_peft_model(model, make_lora_config(params, facts.linear_shapes))
    trained = {name: p.numel() for name, p in adapter.named_parameters() if p.requires_grad}
    assert facts.count_lora_params(params) == sum(trained.values())
    assert not any(".experts." in name for name in trained)


def test_experts_of_30b_a3b_are_29_billion_weights(tmp_path: Path) -> None:
    built("Qwen3_MoE-30B-A3B", tmp_path)
    facts = read_model_facts(str(tmp_path))
    assert round(facts.num_params / 1e9, 1) == 30.5
    assert round(facts.expert_params / 1e9, 1) == 29.0
    assert facts.body_params < 1e9


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"mlp_only_layers": [0]}, "layers without experts"),
        ({"decoder_sparse_step": 2}, "layers without experts"),
        ({"num_experts_per_tok": 7}, "7 of 6"),
        ({"moe_intermediate_size": 0}, "width is 0"),
    ],
)
def test_experts_that_are_not_known_are_told(
    values: dict[str, Any], error: str, tmp_path: Path
) -> None:
    built("qwen3_moe", tmp_path)
    content = json.loads((tmp_path / "config.json").read_text()) | values
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(SweepAborted, match=error):
        read_model_facts(str(tmp_path))


def test_missing_kv_heads_and_head_dim_are_derived(tmp_path: Path) -> None:
    built("qwen2", tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    for name in ("num_key_value_heads", "head_dim"):
        content.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(content))
    facts = read_model_facts(str(tmp_path))
    assert (facts.num_kv_heads, facts.head_dim) == (4, 16)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("llama", "no Qwen"),
        ("qwen3_next", "shared expert"),
        ("qwen4_exp", "residual streams"),
        ("qwen4_exp_text", "residual streams"),
        ("qwen2_vl", "images"),
        ("qwen2_5_vl", "images"),
        ("qwen3_vl", "images"),
        ("qwen3_vl_moe", "images"),
        ("qwen2_5_omni", "sound"),
        ("qwen3_omni_moe", "sound"),
        ("qwen2_audio", "sound"),
        ("qwen3_asr", "sound"),
    ],
)
def test_other_kinds_are_refused_by_name_with_the_reason(
    kind: str, reason: str, tmp_path: Path
) -> None:
    AutoConfig.for_model(kind, architectures=["ForConditionalGeneration"]).save_pretrained(tmp_path)
    with pytest.raises(SweepAborted, match=f"is a {kind} model .* not trained: .*{reason}") as told:
        read_model_facts(str(tmp_path))
    assert "--model Qwen/Qwen3-0.6B" in told.value.fix


def test_text_part_of_a_model_that_sees_images_is_taken(tmp_path: Path) -> None:
    text = SHAPES["qwen3_5"] | {"model_type": "qwen3_5_text"}
    content = {
        "model_type": "qwen3_5",
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "text_config": text,
        "vision_config": {"hidden_size": 8},
    }
    (tmp_path / "config.json").write_text(json.dumps(content))
    facts = read_model_facts(str(tmp_path))
    assert facts.layer_types == (*("linear_attention",) * 3, "full_attention", "linear_attention")
    assert (facts.kind, facts.hidden_size) == ("qwen3_5_text", 64)
