"""Dropout masks that are a function of their place alone, so no neighbour can move them.

A mask bit is a hash of the trial's seed, the optimizer step, the row in the effective batch, the
module, the token's position and the feature. It holds no state: a trial that is resumed, moved to
another slot, split into other micro-batches or padded to another length drops the same inputs.

Shapes: K slots, S rows of a slot in a micro-batch, T tokens of a row, N = S * T, D features.
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

KEEP_BITS = 24
"""Bits that decide whether an input is kept: its probability is exact to 2^-24."""
_ROUNDS = ((16, 0x7FEB352D), (15, 0x846CA68B - (1 << 32)))
"""Shifts and multipliers of the mixer lowbias32 (nullprogram.com/blog/2018/07/31), as int32."""
_LAST_SHIFT = 16


class Dropout(NamedTuple):
    """What decides the masks of one micro-batch."""

    keys_KS2: Tensor
    """int32: two words for each row, from row_key."""
    threshold_K: Tensor
    """int32: an input is dropped if its KEEP_BITS bits are below it."""
    scale_K: Tensor
    """float64: 1 / (1 - p)."""


def row_key(seed: int, step: int, row: int) -> tuple[int, int]:
    """The words of one row of a trial's effective batch; row counts across micro-batches."""
    return _words(f"row {seed} {step} {row}")


def module_key(number: int) -> tuple[int, int]:
    """The words of one adapted module, numbered over the whole model."""
    return _words(f"module {number}")


def make_dropout(keys_KS2: Tensor, rates_K: Tensor) -> Dropout:
    """Dropout of a micro-batch; the float64 rates, one for each slot, are on the keys' device."""
    thresholds_K = (rates_K * (1 << KEEP_BITS)).round().to(torch.int32)
    return Dropout(keys_KS2, thresholds_K, 1.0 / (1.0 - rates_K))


def drop(x_KND: Tensor, dropout: Dropout, module_key_2: Tensor) -> Tensor:
    """The inputs of a module, each kept and scaled, or zero."""
    is_kept_KND = keep_mask(x_KND.shape, dropout, module_key_2)
    exact = torch.promote_types(x_KND.dtype, torch.float32)
    scale_K11 = dropout.scale_K.to(exact)[:, None, None]
    return torch.where(is_kept_KND, x_KND * scale_K11, 0.0).to(x_KND.dtype)


def keep_mask(shape_KND: Sequence[int], dropout: Dropout, module_key_2: Tensor) -> Tensor:
    """Which inputs of a module are kept; all of a slot whose rate is zero."""
    num_slots, num_inputs, num_features = shape_KND
    num_rows = dropout.keys_KS2.shape[1]
    num_tokens = num_inputs // num_rows
    words_KS112 = (dropout.keys_KS2 ^ module_key_2)[:, :, None, None, :]
    count = num_tokens * num_features
    place_TD = torch.arange(count, dtype=torch.int32, device=module_key_2.device)
    place_TD = place_TD.view(num_tokens, num_features)
    bits_KSTD = _hash(place_TD, _mix(words_KS112[..., 0]), _mix(words_KS112[..., 1]))
    bits_KND = _shifted(bits_KSTD, 32 - KEEP_BITS).view(num_slots, num_inputs, num_features)
    return bits_KND >= dropout.threshold_K[:, None, None]


def _hash(place: Tensor, word: Tensor, other: Tensor) -> Tensor:
    """Mix a place with both words, one before and one between the mixer's rounds.

    With one word alone, two streams would be permutations of each other.
    """
    (shift, factor), (other_shift, other_factor) = _ROUNDS
    x = place ^ word
    x = (x ^ _shifted(x, shift)) * factor + other
    x = (x ^ _shifted(x, other_shift)) * other_factor
    return x ^ _shifted(x, _LAST_SHIFT)


def _mix(x: Tensor) -> Tensor:
    for shift, factor in _ROUNDS:
        x = (x ^ _shifted(x, shift)) * factor
    return x ^ _shifted(x, _LAST_SHIFT)


def _shifted(x: Tensor, num_bits: int) -> Tensor:
    """Logical shift to the right; torch's own repeats the sign."""
    return (x >> num_bits) & ((1 << (32 - num_bits)) - 1)


def _words(text: str) -> tuple[int, int]:
    word, other = struct.unpack("<ii", hashlib.blake2b(text.encode(), digest_size=8).digest())
    return word, other
