"""Imports of large packages, in less time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

COMPILES_NOTHING = {"TORCHDYNAMO_DISABLE": "1"}
"""Environment of a process with a pack."""


@contextmanager
def gc_disabled() -> Iterator[None]:
    """Imports meanwhile are not interrupted by the collection of cyclic garbage, nor looked through
    by later ones: what modules are made of stays.

    Torch with transformers is imported in three quarters of the time; afterwards a full collection,
    which took up to a second, takes none.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
