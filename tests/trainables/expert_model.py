"""Test-sized models with experts."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    set_seed,
)

EXPERT_KINDS = ("qwen2_moe", "qwen3_moe", "qwen3_5_moe")
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "max_position_embeddings": 512,
    "initializer_range": 0.05,
}
SHARED = {"shared_expert_intermediate_size": 48}
DELTA = {
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 64,
    "patch_size": 4,
    "num_position_embeddings": 16,
}


def save_experts(folder: Path, tokenizer: PreTrainedTokenizerBase, kind: str, **values: Any) -> str:
    """Writes one with random weights, with expert after expert, as transformers 5 saves them.

    A qwen3_5_moe sees images too, and has a head that predicts more tokens, as those of the Hub.

    Args:
        kind: of EXPERT_KINDS.
        values: other values of its config.
    """
    set_seed(0)
    sizes = SIZES | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id} | values
    model: PreTrainedModel
    if kind == "qwen2_moe":
        model = Qwen2MoeForCausalLM(Qwen2MoeConfig(**sizes | SHARED, num_hidden_layers=2))
    elif kind == "qwen3_moe":
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, head_dim=16, num_hidden_layers=2))
    else:
        text = sizes | SHARED | DELTA | {"num_hidden_layers": 4}
        config = Qwen3_5MoeConfig(text_config=text, vision_config=VISION)
        model = Qwen3_5MoeForConditionalGeneration(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if kind == "qwen3_5_moe":
        weights = load_file(folder / "model.safetensors")
        mtp = {"mtp.fc.weight": torch.zeros(64, 128), "mtp.norm.weight": torch.zeros(64)}
        save_file(weights | mtp, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def join_experts(folder: Path) -> None:
    """Rewrites the weights as some of the Hub hold them: those of a layer's experts in one."""
    weights = load_file(folder / "model.safetensors")
    parents = {name.split(".0.down_proj")[0] for name in weights if ".experts.0.down" in name}
    assert parents
    for parent in parents:
        ups, downs = [], []
        for expert in range(SIZES["num_experts"]):
            gate, up, down = (
                weights.pop(f"{parent}.{expert}.{part}_proj.weight")
                for part in ("gate", "up", "down")
            )
            ups.append(torch.cat((gate, up)))
            downs.append(down)
        weights[f"{parent}.gate_up_proj"] = torch.stack(ups)
        weights[f"{parent}.down_proj"] = torch.stack(downs)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
