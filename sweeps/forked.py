"""Packs of this machine are forked from a process that imports torch while the sweep is checked."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.find import address_to_join
from cluster.forking.start import forking
from sweeps.config import SweepConfig
from trainables.imports import PACK_ENV, PACK_IMPORTS


@contextmanager
def packs(config: SweepConfig) -> Iterator[str | None]:
    """Yields what starts a pack's process, see packs.running; None where Python does.

    Only Linux is known to let libraries of this size be used in a fork.
    """
    if config.engine != "packed" or sys.platform != "linux" or address_to_join() is not None:
        yield None
        return
    with forking(PACK_IMPORTS, PACK_ENV) as py_executable:
        yield py_executable
