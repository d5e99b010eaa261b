"""What a pass keeps for its backward pass is what is predicted, tensor by tensor.

On a GPU all kernels are real. Elsewhere Triton interprets ours, and stand-ins keep what flash
attention and fla's delta rule keep.
"""

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from tests.trainables.packing.small_packs import pass_of
from trainables.config import TrainingOptions
from trainables.data.tokens import Example
from trainables.models.model_facts import parse_facts
from trainables.packing.compute import model as packed_model
from trainables.packing.compute.adapters import Adapters
from trainables.packing.compute.kernels.inputs import CHUNK_TOKENS
from trainables.packing.compute.mixers import gated_delta
from trainables.packing.compute.model import PackedModel
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.memory_model import predict_pack

pytest.importorskip("triton", reason="needs Triton: make test-kernels")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []
RANK, NUM_TOKENS = 8, 64
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
}


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """For kernels that only a GPU runs."""
    if DEVICE == "cuda":
        return
    from trainables.packing.compute.kernels import delta_rule

    monkeypatch.setattr(gated_delta, "has_kernels", lambda x: True)
    monkeypatch.setattr(packed_model, "attention", lambda q, k, v, rows: _Attention.apply(q, k, v))
    monkeypatch.setattr(delta_rule, "delta_rule", lambda made, chunks: (_Rule.apply(*made), None))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_NHC: Tensor, k_NGC: Tensor, v_NGC: Tensor) -> Tensor:
        mixed_NHC, log_sums_NH = q_NHC.clone(), q_NHC[..., 0].float()
        ctx.save_for_backward(q_NHC, k_NGC, v_NGC, mixed_NHC, log_sums_NH)
        return mixed_NHC


class _Rule(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_NGC: Tensor, k_NGC: Tensor, v_NHE: Tensor, decay_NH: Tensor, beta_NH: Tensor
    ) -> Tensor:
        system_NHT = v_NHE.new_zeros(*v_NHE.shape[:2], CHUNK_TOKENS)
        ctx.save_for_backward(q_NGC, k_NGC, v_NHE, decay_NH.cumsum(0), beta_NH, system_NHT)
        return v_NHE.clone()


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [
        ("qwen3", "full_attention"),
        ("qwen3_5_text", "full_attention"),
        ("qwen3_5_text", "linear_attention"),
    ],
)
@pytest.mark.slow
def test_a_layer_keeps_what_is_predicted(model_type: str, kind: str) -> None:
    if kind == "linear_attention" and DEVICE == "cuda" and not importlib.util.find_spec("fla"):
        pytest.skip("needs fla-core: pip install '.[hybrid]'")
    few, predicted_few = _kept(model_type, ["full_attention"])
    more, predicted_more = _kept(model_type, ["full_attention", kind])
    assert few > 0
    assert more - few == pytest.approx(predicted_more - predicted_few, rel=0.02)


def _kept(model_type: str, layer_types: list[str]) -> tuple[int, int]:
    """Bytes that a forward pass keeps, and those that are predicted for its layers."""
    sizes = SIZES | (DELTA if model_type == "qwen3_5_text" else {})
    sizes |= {"layer_types": layer_types, "num_hidden_layers": len(layer_types)}
    config = AutoConfig.for_model(model_type, **sizes)
    base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(DEVICE)
    adapters = Adapters(base.config, 1, RANK, torch.device(DEVICE))
    model = PackedModel(base.requires_grad_(False), adapters, True, is_fused=True)
    batch = pass_of([[Example.from_ids([1] * (NUM_TOKENS - 2), [2, 3])]], device=DEVICE)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        model.losses(model.embed(batch), batch)
    assert batch.ids_N.numel() == NUM_TOKENS
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept}
    for parameter in [*base.parameters(), adapters.params_KP, adapters.grads_KP]:
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    pack = Capacity(
        num_slots=1,
        max_rank=RANK,
        max_tokens=NUM_TOKENS,
        eval_tokens=0,
        is_dequantised=True,
        predicted_gib=0.0,
    )
    facts = parse_facts(config.to_dict())
    return sum(storages.values()), predict_pack(facts, TrainingOptions(), pack).activations
