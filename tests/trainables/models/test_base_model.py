"""The base, in NF4 and not, and its tokenizer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerFast

from trainables.config import ComputeDtype, Hyperparameters
from trainables.errors import SweepAborted
from trainables.models.base_model import load_base, load_tokenizer
from trainables.models.chat_template import list_stop_ids
from trainables.models.model_facts import read_model_facts
from trainables.models.weights import check_weights
from trainables.solo.trainer import add_adapter
from trainables.tiny import HYBRID_DIR, MODEL_DIR


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


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float32"])
def test_base_that_is_not_quantised_has_the_weights_of_its_files(
    compute_dtype: ComputeDtype,
) -> None:
    base = load_base(str(MODEL_DIR), compute_dtype, "bf16")
    assert not any(isinstance(module, Linear4bit) for module in base.modules())
    assert not any(parameter.requires_grad for parameter in base.parameters())
    dtype = getattr(torch, compute_dtype)
    stored = load_file(MODEL_DIR / "model.safetensors")
    loaded = base.state_dict()
    assert all(torch.equal(loaded[name], weight.to(dtype)) for name, weight in stored.items())
    assert {parameter.dtype for parameter in base.parameters()} == {dtype} == {base.config.dtype}


@pytest.mark.slow
def test_hybrid_on_a_cpu_leaves_fla_alone(tmp_path: Path) -> None:
    rule = tmp_path / "fla" / "ops" / "gated_delta_rule.py"
    rule.parent.mkdir(parents=True)
    for folder in (rule.parent, rule.parent.parent):
        (folder / "__init__.py").touch()
    rule.write_text("def chunk_gated_delta_rule(*args, **named): raise RuntimeError('no driver')")
    code = (
        "import sys, torch\n"
        "from trainables.models.base_model import load_base\n"
        "base = load_base(sys.argv[1], 'float32')\n"
        "assert base(torch.arange(9)[None]).logits.isfinite().all()"
    )
    paths = os.pathsep.join((str(tmp_path), *filter(None, sys.path)))
    hidden = {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(HYBRID_DIR)],
        env=os.environ | hidden,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def quantise(folder: Path, dtype: torch.dtype = torch.bfloat16, **options: Any) -> str:
    """A folder as bitsandbytes saves the bundled model; 4-bit unless options say otherwise."""
    shutil.copytree(MODEL_DIR, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    quantization = BitsAndBytesConfig(
        load_in_4bit="load_in_8bit" not in options, bnb_4bit_compute_dtype=dtype, **options
    )
    AutoModelForCausalLM.from_pretrained(
        MODEL_DIR, quantization_config=quantization, dtype=dtype, device_map={"": "cpu"}
    ).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("compute_dtype", ["bfloat16", "float32"])
def test_model_saved_in_nf4_for_float16_computes_as_asked(
    compute_dtype: ComputeDtype, tmp_path: Path
) -> None:
    options = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    folder = quantise(tmp_path / "nf4", torch.float16, **options)
    check_weights(folder, read_model_facts(folder))
    base, ours = load_base(folder, compute_dtype), load_base(str(MODEL_DIR), compute_dtype)
    ids = torch.arange(8, 40)[None]
    dtype = getattr(torch, compute_dtype)
    assert {p.dtype for p in base.parameters()} == {torch.uint8, dtype}
    assert base(ids).logits.dtype == dtype
    torch.testing.assert_close(base(ids).logits, ours(ids).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"load_in_8bit": True}, r"already \(8-bit\)"),
        ({"bnb_4bit_quant_type": "fp4"}, r"already \(fp4\)"),
        (
            {"bnb_4bit_quant_type": "nf4", "llm_int8_skip_modules": ["lm_head", "layers.1.mlp"]},
            "3 of its 28 linear layers left out, the first model.layers.1.mlp.gate_proj;",
        ),
        (
            {"bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": torch.bfloat16},
            "q_proj.weight is BF16 16384 x 1, not in NF4",
        ),
    ],
)
def test_model_that_is_quantised_otherwise_is_refused(
    options: dict[str, Any], error: str, tmp_path: Path
) -> None:
    folder = quantise(tmp_path / "quantised", **options)
    with pytest.raises(SweepAborted, match=error) as told:
        check_weights(folder, read_model_facts(folder))
    assert "model" in told.value.fix


def test_gradients_reach_the_lowest_layer_after_an_evaluation(
    model_dir: str, params: Hyperparameters
) -> None:
    model = add_adapter(load_base(model_dir, "bfloat16"), params, 0)
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


def test_tokenizer_that_names_no_special_tokens_stops_and_pads_at_the_end_of_turn(
    tmp_path: Path,
) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL_DIR, model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    del config["eos_token"], config["pad_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(str(model))
    assert list_stop_ids(tokenizer) == [2]
    assert tokenizer.pad_token == "<|im_end|>"


def test_tokenizer_without_chat_template_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    bare = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|endoftext|>"
    )
    bare.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no chat template"):
        load_tokenizer(str(tmp_path))
