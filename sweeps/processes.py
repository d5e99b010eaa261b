"""Trials' processes outlive their trials, so that those that come later begin at once."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ray.tune.execution import tune_controller
from ray.tune.utils.object_cache import _ObjectCache


@contextmanager
def kept(most: int) -> Iterator[None]:
    """A Tuner that is fitted meanwhile keeps up to so many processes without a trial to its end.

    Tune ends those that no trial waits for. A search that ends has none waiting, and its finals
    began by starting processes: 4 s beside an H200, in which one of them trained alone.
    """
    whole = tune_controller._ObjectCache  # Tune has no setting for it
    tune_controller._ObjectCache = partial(_Kept, most)
    try:
        yield
    finally:
        tune_controller._ObjectCache = whole


class _Kept(_ObjectCache):  # type: ignore[misc]
    """Tune's store of processes without a trial, which holds them whether or not any waits.

    Args:
        most: processes.
    """

    def __init__(self, most: int, **options: Any) -> None:
        super().__init__(**options)
        self._most = most

    def cache_object(self, key: Any, obj: Any) -> bool:
        if self._num_cached_objects >= self._most:
            return False
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Generator[Any, None, None]:
        if force_all:
            yield from super().flush_cached_objects(force_all=True)
