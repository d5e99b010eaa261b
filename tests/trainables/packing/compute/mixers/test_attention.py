"""The private operator of torch that attention calls on a GPU is what it was when it was chosen."""

import torch

PASSED = {
    "query": "Tensor",
    "key": "Tensor",
    "value": "Tensor",
    "cum_seq_q": "Optional[Tensor]",
    "cum_seq_k": "Optional[Tensor]",
    "max_q": "int",
    "max_k": "int",
    "dropout_p": "float",
    "is_causal": "bool",
    "return_debug_mask": "bool",
}


def test_flash_attention_takes_what_attention_passes() -> None:
    """Its schema is known without a GPU; a new torch that changes it must be looked at."""
    schema = torch.ops.aten._flash_attention_forward.default._schema
    positional = {arg.name: str(arg.type) for arg in schema.arguments if not arg.kwarg_only}
    assert positional == PASSED
    assert "scale" in {arg.name for arg in schema.arguments if arg.kwarg_only}
    assert schema.returns[0].name == "output"
