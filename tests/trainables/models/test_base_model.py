"""The NF4 base and its tokenizer."""

from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from transformers import PreTrainedTokenizerFast

from trainables.config import ComputeDtype, Hyperparameters
from trainables.models.base_model import load_base, load_tokenizer
from trainables.solo.trainer import new_adapter


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float32"])
def test_base_is_frozen_and_its_linear_layers_are_nf4(
    model_dir: str, compute_dtype: ComputeDtype
) -> None:
    base = load_base(model_dir, compute_dtype)
    assert not any(parameter.requires_grad for parameter in base.parameters())
    layers = [module for module in base.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 2 * 7
    states = [layer.weight.quant_state for layer in layers]
    assert {state.quant_type for state in states} == {"nf4"}
    assert all(state.nested for state in states)
    assert base.get_input_embeddings().weight.dtype == getattr(torch, compute_dtype)
    assert base.config._attn_implementation == "sdpa"


def test_gradients_reach_the_lowest_layer_after_an_evaluation(
    model_dir: str, params: Hyperparameters
) -> None:
    model = new_adapter(load_base(model_dir, "bfloat16"), params, 0)
    ids = torch.arange(8, 16)[None]
    with torch.no_grad():
        model.eval()(input_ids=ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.train()(input_ids=ids, labels=ids).loss.backward()
    lowest = [p for n, p in model.named_parameters() if "layers.0.self_attn.q_proj.lora_B" in n]
    assert len(lowest) == 1
    assert lowest[0].grad is not None
    assert lowest[0].grad.abs().max() > 0


def test_tokenizer_without_padding_pads_with_its_end(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    bare = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|endoftext|>"
    )
    bare.chat_template = tokenizer.chat_template
    bare.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token == "<|endoftext|>"


def test_tokenizer_without_chat_template_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    bare = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|endoftext|>"
    )
    bare.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no chat template"):
        load_tokenizer(str(tmp_path))
