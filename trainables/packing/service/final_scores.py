"""Scores of finished adapters, in the slots of a pack that are free."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from trainables.checkpoint_storage import fetch_checkpoint
from trainables.data.rows import select_fixed_slice
from trainables.metrics.eval_result import EvalResult
from trainables.models.memory import retry_with_less_memory
from trainables.packing.compute.pack import Pack
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.service.loading import LoadedPack

NO_ROOM = "out of memory with one trial in the pack; lower max_length_tokens"


def score_adapters(
    loaded: LoadedPack, adapters: Mapping[str, Path], validation: PackEvaluator | None
) -> dict[str, EvalResult]:
    """The scores of trainables.final_test.score_final_test.

    Args:
        validation: what scores the untuned base on the rows of the trials' last reports; None if
            the base is not scored, on those of the test either.

    Raises:
        RuntimeError: no slot is free, or not even one row fits in the memory.
    """
    storage = loaded.settings.storage
    tested: dict[str, Path | None] = {} if validation is None else {"test_base": None}
    for name, path in adapters.items():
        tested[name] = fetch_checkpoint(storage, path, is_compared=True)
    rows = loaded.splits.test
    test = loaded.make_evaluator(select_fixed_slice(rows, len(rows)))
    scores = dict(zip(tested, _score(loaded.pack, list(tested.values()), test), strict=True))
    if validation is not None:
        (scores["validation_base"],) = _score(loaded.pack, [None], validation)
    return scores


def _score(
    pack: Pack, adapters: Sequence[Path | None], evaluator: PackEvaluator
) -> list[EvalResult]:
    """The scores of saved adapters, None for the untuned base, as many at once as fit."""
    num_free = len(pack.free_slots())
    if num_free == 0:
        raise RuntimeError("no slot of the pack is free")
    results: list[EvalResult] = []
    for first in range(0, len(adapters), num_free):
        with pack.hold_adapters(adapters[first : first + num_free]) as slots:
            results += retry_with_less_memory(
                partial(evaluator.evaluate, pack.model, slots),
                evaluator.use_less_memory,
                _raise_no_room,
                "the test",
            )
    return results


def _raise_no_room() -> None:
    raise RuntimeError(NO_ROOM)
