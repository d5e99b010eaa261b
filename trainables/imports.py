"""Imports of large packages, in less time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

PACK_IMPORTS = "trainables.packing.preloaded"
"""The module that a process imports from which packs are forked."""
COMPILES_NOTHING = {"TORCHDYNAMO_DISABLE": "1"}
"""Environment of a process with a pack."""
PACK_ENV = {
    **COMPILES_NOTHING,
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""Environment that PACK_IMPORTS is imported with: no thread is started, no GPU touched. The pack
has a number of threads of its own, and what is said of them in capacity.cpu_threads."""


@contextmanager
def uncollected() -> Iterator[None]:
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
