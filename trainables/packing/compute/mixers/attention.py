"""Causal attention within each row, over rows of any lengths that lie end to end.

Shapes: S rows, N tokens of a pass, T tokens of the longest row, H query heads, G key heads, C
features of a head.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from trainables.packing.compute.packed_batch import Rows, pad_rows


def attention(q_NHC: Tensor, k_NGC: Tensor, v_NGC: Tensor, rows: Rows) -> Tensor:
    """(N, H, C); key heads serve groups of query heads."""
    if q_NHC.is_cuda and q_NHC.dtype in (torch.bfloat16, torch.float16):
        # The operator under torch.nn.attention.varlen.varlen_attn. The public function's signature
        # changed from torch 2.11 to 2.13 (2.13 refuses grouped key heads without enable_gqa); what
        # the operator takes did not. test_attention.py fails when that changes.
        bounds = (rows.bounds_S1, rows.bounds_S1, rows.longest, rows.longest)
        dropout_p, is_causal, return_debug_mask = 0.0, True, False
        options = (dropout_p, is_causal, return_debug_mask)
        scale = q_NHC.shape[-1] ** -0.5
        mixed: Tensor = torch.ops.aten._flash_attention_forward(
            q_NHC, k_NGC, v_NGC, *bounds, *options, scale=scale
        )[0]
        return mixed
    return _padded_attention(q_NHC, k_NGC, v_NGC, rows)


def _padded_attention(q_NHC: Tensor, k_NGC: Tensor, v_NGC: Tensor, rows: Rows) -> Tensor:
    """Where there is no kernel for ragged rows: on a CPU, and in float32."""
    index_ST, is_real_ST = pad_rows(rows, len(q_NHC))
    q, k, v = (
        torch.where(is_real_ST[:, :, None, None], x[index_ST], 0.0).transpose(1, 2)
        for x in (q_NHC, k_NGC, v_NGC)
    )
    mixed_SHTC = scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=q.shape[-1] ** -0.5, enable_gqa=True
    )
    return mixed_SHTC.transpose(1, 2)[is_real_ST]
