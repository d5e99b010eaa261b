"""The shapes of the bench, and the operations that are counted of them."""

from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3_5ForCausalLM

from tests.benchmarks.packing.products import count_linear, count_products
from tests.benchmarks.packing.shapes import SHAPES, check_shape
from trainables.config import Hyperparameters
from trainables.data.tokens import Example
from trainables.errors import SweepAborted
from trainables.models.base_model import make_lora_config
from trainables.models.layer_kinds import LAYER_KINDS
from trainables.models.model_facts import ModelFacts, parse_facts

RANK_4 = Hyperparameters(lora_rank=4, lora_alpha=8.0, lora_dropout=0.0, learning_rate=1e-4)
TINY = {"num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128, "vocab_size": 96}
TINY_DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
TINY_DELTA |= {"linear_key_head_dim": 16, "linear_value_head_dim": 32}


def tiny(name: str) -> tuple[torch.nn.Module, ModelFacts]:
    config = AutoConfig.for_model(**{**SHAPES[name], **TINY, **TINY_DELTA})
    return AutoModelForCausalLM.from_config(config), parse_facts(config.to_dict())


def row(num_prompt_tokens: int, num_labels: int) -> Example:
    return Example.from_ids([1] * num_prompt_tokens, [2] * num_labels)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen3-0.6B", 0.596),
        ("Qwen3-1.7B", 1.72),
        ("Qwen3-4B", 4.02),
        ("Qwen3-8B", 8.19),
        ("Qwen3-14B", 14.77),
        ("Qwen3-32B", 32.76),
        ("Qwen3.5-0.8B", 0.752),
        ("Qwen3.5-4B", 4.21),
        ("Qwen3.5-9B", 8.95),
        ("Qwen3.5-27B", 26.9),
    ],
)
def test_shape_has_the_parameters_of_its_model(name: str, billions: float) -> None:
    config = AutoConfig.for_model(**SHAPES[name])
    facts = parse_facts(config.to_dict())
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    weights = {key: tuple(tensor.shape) for key, tensor in model.named_parameters()}
    assert weights == facts.weight_shapes
    assert facts.num_params == pytest.approx(billions * 1e9, rel=2e-3)


def test_shape_is_a_name_or_a_folder(tmp_path: Path) -> None:
    check_shape(Path("Qwen3.5-4B"))
    (tmp_path / "config.json").write_text("{}")
    check_shape(tmp_path)
    with pytest.raises(SweepAborted, match="there is no shape Qwen4") as refused:
        check_shape(Path("Qwen4"))
    assert "Qwen3.5-0.8B" in refused.value.fix


@pytest.mark.parametrize("name", ["Qwen3-4B", "Qwen3.5-4B"])
def test_linear_layers_adapters_and_head_count_as_torch_counts_them(name: str) -> None:
    model, facts = tiny(name)
    model.requires_grad_(False)
    adapted = get_peft_model(model, make_lora_config(RANK_4, facts.linear_shapes))
    inputs = torch.randn(1, 10, 64, requires_grad=True)  # so that all layers pass gradients on
    with FlopCounterMode(display=False) as counter:
        adapted(inputs_embeds=inputs).logits.sum().backward()
    # products of matrices alone; those of attention and the delta rule are batches of products
    by_torch = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    ours = count_products(facts, RANK_4, [row(0, 10)])
    q_size = facts.num_heads * facts.head_dim
    kinds = [LAYER_KINDS[kind].mixer for kind in facts.layer_types]
    mixers = kinds.count("self_attn") * 6 * q_size * 10**2
    if facts.delta is not None:
        mixers += kinds.count("linear_attn") * 18 * (4 * 16 * 32) * 10
    assert isinstance(model, Qwen3_5ForCausalLM) == (facts.delta is not None)
    assert ours - mixers == by_torch


def test_attention_grows_with_the_square_of_a_row_and_the_delta_rule_does_not() -> None:
    _, dense = tiny("Qwen3-4B")
    _, hybrid = tiny("Qwen3.5-4B")

    def rest(facts: ModelFacts, *rows: Example) -> int:
        tokens = sum(len(one.input_ids) for one in rows)
        adapters = 6 * facts.count_lora_params(RANK_4) * tokens
        return count_products(facts, RANK_4, rows) - count_linear(facts, tokens) - adapters

    q_size = 32 * 128
    assert rest(dense, row(10, 0)) == 4 * 6 * q_size * 100
    assert rest(dense, row(20, 0)) == 4 * rest(dense, row(10, 0))
    assert rest(dense, row(10, 0), row(10, 0)) == 2 * rest(dense, row(10, 0))
    delta = 3 * 18 * (4 * 16 * 32)
    assert rest(hybrid, row(10, 0)) == 6 * (16 * 256) * 100 + delta * 10
    assert rest(hybrid, row(9, 1)) - rest(hybrid, row(10, 0)) == 4 * 96 * 64
