"""How a process is set up before it trains: which GPU it sees, how it imports large packages."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

COMPILES_NOTHING = {"TORCHDYNAMO_DISABLE": "1"}
"""Environment of a process with a pack. Otherwise bitsandbytes, which wraps what a CPU may run in
torch.compile, loads inductor at its import: a second."""


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


def see_one_gpu() -> None:
    """Hides all GPUs but the first that this process may use, before it uses any.

    With several, transformers' Trainer divides every batch among them, which TRL refuses.
    """
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = names.split(",")[0]
