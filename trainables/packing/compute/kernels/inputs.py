"""What a pass tells its kernels: which tokens belong to which slot, and what decides their masks.

Loads neither torch nor Triton, so that the sizes of a pass can be reckoned without them.

Shapes: K slots, S rows, N tokens of a pass, B blocks, X pieces of rows, O outputs of a projection,
C features of a head.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_TOKENS = 64
"""The kernels take a slot's tokens in blocks of so many; passes grow by it at least."""
CHUNK_TOKENS = 64
"""Tokens of a row whose delta rule is one triangular system; fla's kernels take so many."""
L2_EPS = 1e-6
"""Added to the square of a key's length, or a query's, as transformers' l2norm does."""
KEEP_BITS = 16
"""Bits that decide whether an input is kept: its probability is exact to 2^-17. Two neighbouring
features share the 32 bits of one hash, which costs as much as reading them."""
ROUNDS = ((16, 0x7FEB352D), (15, 0x846CA68B))
"""Shifts and multipliers of the mixer lowbias32 (nullprogram.com/blog/2018/07/31)."""
LAST_SHIFT = 16


class Segments(NamedTuple):
    """Which tokens belong to which slot; each slot's tokens are neighbours."""

    bounds_K2: "Tensor"
    """int32: each slot's first token, and the one after its last."""
    blocks_B3: "Tensor"
    """int32: a slot, the first of at most BLOCK_TOKENS of its tokens, and the end of them; the slot
    of tokens that fill up a pass is NO_SLOT."""
    slots_N: "Tensor"
    """int32: each token's slot."""
    longest: int
    """Tokens of the largest slot."""


class Chunks(NamedTuple):
    """Rows in pieces of CHUNK_TOKENS, as fla's kernels take them."""

    bounds_S2: "Tensor"
    """int32: as of rows, and a last one that is empty."""
    pieces_X2: "Tensor"
    """int32: a row, and the number of a piece of it; what fills up belongs to the empty row. In
    those kernels a piece's place in the table is also that of its state, so none may be twice."""


class Dropout(NamedTuple):
    """What decides the masks of one pass."""

    words_N2: "Tensor"
    """int32: the two words of each token's row, from row_key."""
    position_ids_N: "Tensor"
    """int32: each token's position in its row."""
    slots_N: "Tensor"
    """int32: each token's slot."""
    thresholds_K: "Tensor"
    """int32: an input is dropped if its KEEP_BITS bits are below it."""
    scales_K: "Tensor"
    """float32: 1 / (1 - p)."""
    known: "dict[tuple[int, ...], Tensor] | None" = None
    """Masks that drop has made, kept for the backward pass; None makes each anew."""


class DeltaSizes(NamedTuple):
    """Heads of a layer of Gated DeltaNet, of queries and keys, and of values."""

    num_key_heads: int
    key_head_dim: int
    num_heads: int
    value_head_dim: int


class HeadLayout(NamedTuple):
    """How heads lie in a projection: those of queries, of keys and of values side by side."""

    sizes: tuple[int, ...]
    """Features of each kind, the queries' with their gates."""
    head_dim: int
    is_gated: bool = False
    """Whether each query head's gate follows it."""

    def split(self, projected_NO: "Tensor") -> "tuple[Tensor, Tensor, Tensor, Tensor | None]":
        """Views (N, heads, C) of queries, keys, values, and gates if it has them."""
        q, k, v = (
            part.view(len(part), -1, self.head_dim)
            for part in projected_NO.split_with_sizes(self.sizes, dim=1)
        )
        return (q[:, ::2], k, v, q[:, 1::2]) if self.is_gated else (q, k, v, None)
