"""Whether W&B's offline file holds what was written: a full disk leaves it torn in the middle.

The file is a log in LevelDB's format (its doc/log_format.md) behind a header of wandb's: blocks of
32 KiB, in which each piece of a record has a checksum, its length and its kind. wandb has no reader
in Python any more (0.31), and its process ends well also where a write has failed.
"""

import struct
import zlib
from pathlib import Path

_HEADER_BYTES = 7
"""Of the file: ":W&B", a magic number and a version."""
_BLOCK_BYTES = 32 * 1024
_PIECE = struct.Struct("<IHB")
"""Checksum of kind and bytes (CRC-32 of IEEE 802.3), number of bytes, kind."""


def is_intact(path: Path) -> bool:
    """Whether every piece is there as it was written, up to the file's end.

    Raises:
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    place = _HEADER_BYTES
    if len(content) < place:
        return False
    while place < len(content):
        left_bytes = _BLOCK_BYTES - place % _BLOCK_BYTES
        if left_bytes < _PIECE.size:  # a block's end holds no piece
            place += left_bytes
            continue
        if len(content) - place < _PIECE.size:
            return False
        checksum, num_bytes, kind = _PIECE.unpack_from(content, place)
        place += _PIECE.size
        piece = content[place : place + num_bytes]
        if len(piece) < num_bytes or zlib.crc32(piece, zlib.crc32(bytes([kind]))) != checksum:
            return False
        place += num_bytes
    return True
