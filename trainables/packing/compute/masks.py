"""Dropout masks that are a function of their position alone, so no neighbour can move them.

A mask bit is a hash of the trial's seed, the optimizer step, the row in the effective batch, the
module, the token's position and the feature. It holds no state: a trial that is resumed, moved to
another slot or split into other passes drops the same inputs.

Shapes: K slots, N tokens of a pass, D features, P pairs of them.
"""

import hashlib
import struct

import torch
from torch import Tensor

from trainables.packing.compute.kernels.inputs import KEEP_BITS, LAST_SHIFT, ROUNDS, Dropout


def row_key(seed: int, step: int, row: int) -> tuple[int, int]:
    """The words of one row of a trial's effective batch."""
    return _words(f"row {seed} {step} {row}")


def module_key(number: int) -> tuple[int, int]:
    """The words of one adapted module, numbered over the whole model."""
    return _words(f"module {number}")


def threshold(rate: float) -> int:
    """A dropout rate as a number of KEEP_BITS bits."""
    return round(rate * (1 << KEEP_BITS))


def drop(x_ND: Tensor, dropout: Dropout, module_key_2: Tensor) -> Tensor:
    """The inputs of a module, each kept and scaled, or zero."""
    known = {} if dropout.known is None else dropout.known
    key = (x_ND.shape[1], *module_key_2.tolist())
    if key not in known:
        known[key] = keep_mask(x_ND.shape[1], dropout, module_key_2)
    exact = torch.promote_types(x_ND.dtype, torch.float32)
    scales_N1 = dropout.scales_K.to(exact)[dropout.slots_N][:, None]
    return torch.where(known[key], x_ND * scales_N1, 0.0).to(x_ND.dtype)


def keep_mask(num_features: int, dropout: Dropout, module_key_2: Tensor) -> Tensor:
    """Which inputs (N, D) of a module are kept; all of a slot whose rate is zero."""
    # The stream of one row and one module: its two words, mixed so that neighbouring rows and
    # modules have nothing in common. Along the stream a counter numbers pairs of features, position
    # by position; steps of num_features instead of num_pairs leave numbers out, which is harmless.
    words_N21 = (dropout.words_N2 ^ module_key_2)[:, :, None]
    features_D = torch.arange(num_features, dtype=torch.int32, device=words_N21.device)
    pairs_P = features_D[: (num_features + 1) // 2]
    counters_NP = dropout.position_ids_N[:, None] * num_features + pairs_P
    bits_NP = _hash(counters_NP, _mix(words_N21[:, 0]), _mix(words_N21[:, 1]))
    # Low half of the hash for the even feature, high half for the odd one.
    low_NP, high_NP = bits_NP & ((1 << KEEP_BITS) - 1), _shift_right(bits_NP, KEEP_BITS)
    halves_NP2 = torch.stack((low_NP, high_NP), -1)
    thresholds_N1 = dropout.thresholds_K[dropout.slots_N][:, None]
    return halves_NP2.flatten(1)[:, :num_features] >= thresholds_N1


def _hash(counter: Tensor, word: Tensor, other: Tensor) -> Tensor:
    """Mix a counter with both words, one before and one between the mixer's rounds.

    With one word alone, two streams would be permutations of each other.
    """
    (shift, factor), (other_shift, other_factor) = ROUNDS
    x = counter ^ word
    x = (x ^ _shift_right(x, shift)) * _to_int32(factor) + other
    x = (x ^ _shift_right(x, other_shift)) * _to_int32(other_factor)
    return x ^ _shift_right(x, LAST_SHIFT)


def _mix(x: Tensor) -> Tensor:
    """lowbias32, in int32 arithmetic that wraps around."""
    for shift, factor in ROUNDS:
        x = (x ^ _shift_right(x, shift)) * _to_int32(factor)
    return x ^ _shift_right(x, LAST_SHIFT)


def _shift_right(x: Tensor, num_bits: int) -> Tensor:
    """Logical shift to the right; torch's own repeats the sign."""
    return (x >> num_bits) & ((1 << (32 - num_bits)) - 1)


def _to_int32(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word


def _words(text: str) -> tuple[int, int]:
    word, other = struct.unpack("<ii", hashlib.blake2b(text.encode(), digest_size=8).digest())
    return word, other
