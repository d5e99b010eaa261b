"""Imports of a pack's process without torch's compiler, which nothing in it uses."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
MARKS = ("allow_in_graph", "assume_constant_result", "disable")
"""Decorators that tell the compiler how to treat a function, and do nothing without it."""


@contextmanager
def without_compiler() -> Iterator[None]:
    """What is imported meanwhile leaves torch._dynamo out; it loads for whoever needs it later.

    bitsandbytes and transformers mark functions for torch.compile at their import. The marks alone
    load dynamo, inductor and, where it is installed, sklearn: 4.5 of the 9 seconds that a pack's
    imports took beside an H200. The marked functions run as they are written.
    """
    import torch  # loads torch, in the process that is about to use it

    if COMPILER in sys.modules:
        yield
        return
    stand_in, compile_ = _StandIn(COMPILER), torch.compile
    vars(torch)["compile"] = _as_it_is
    sys.modules[COMPILER] = vars(torch)["_dynamo"] = stand_in
    try:
        yield
    finally:
        vars(torch)["compile"] = compile_
        stand_in.make_way()


class _StandIn(ModuleType):
    """The compiler's decorators as long as nothing else of it is wanted; then the compiler."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = [f"{one}/_dynamo" for one in sys.modules["torch"].__path__]
        for mark in MARKS:
            setattr(self, mark, _as_it_is)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.make_way()
        return getattr(importlib.import_module(COMPILER), name)

    def make_way(self) -> None:
        """Whoever imports the compiler from now on gets it."""
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER], vars(sys.modules["torch"])["_dynamo"]


def _as_it_is(function: Callable[..., Any] | None = None, *args: Any, **options: Any) -> Any:
    """Decorates nothing, with options or without."""
    return _as_it_is if function is None else function
