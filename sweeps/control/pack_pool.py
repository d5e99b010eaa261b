"""The packs of a sweep: Ray actors that live from before its first trial until after its test."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from sweeps.cost.allocation import Allocation
from trainables.checkpoint import wait_for_writers
from trainables.config import Hyperparameters, TrainingSettings
from trainables.errors import SweepAborted
from trainables.metrics.eval_result import EvalResult
from trainables.packing.service.actor import start_pack
from trainables.packing.service.ledger import Ledger, read_ledgers
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.throughput import Throughput, slowest

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

SHUTDOWN_TIMEOUT_S = 60.0
"""How long packs that end are waited for."""
LOAD_TIMEOUT_S = 300.0
"""How long packs are waited for to load and to measure their throughput."""
ANSWER_TIMEOUT_S = 5.0
"""How long packs are waited for that have to answer only if they are up."""


@contextlib.contextmanager
def run_packs(
    allocation: Allocation,
    settings: TrainingSettings,
    checkpoints: Path,
    *,
    has_trials: bool,
    probed: Sequence[Hyperparameters] = (),
) -> Iterator[list[ActorHandle]]:
    """Packs on as many GPUs as the allocation says, wherever the cluster has them.

    None for solo trials, and none where no trial is left to run.

    Processes of an earlier driver are waited for, and these packs in the end, so that nobody else
    writes to the checkpoints' folder or holds the GPUs.

    Args:
        probed: what the packs' throughput is measured with; see PackHost.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    wait_for_writers(checkpoints, SHUTDOWN_TIMEOUT_S)
    actors = [
        start_pack(
            settings,
            allocation.capacity,
            checkpoints,
            has_gpu=allocation.num_gpus > 0,
            probed=probed,
        )
        for _ in range(allocation.num_packs if has_trials else 0)
        if allocation.capacity is not None
    ]
    try:
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)
        if actors:
            wait_for_writers(checkpoints, SHUTDOWN_TIMEOUT_S)


def ask_started(actors: Sequence[ActorHandle]) -> list[ray.ObjectRef[object]]:
    """One answer a pack, once its process has imported what it needs."""
    return [actor.__ray_ready__.remote() for actor in actors]


def wait_for(
    asked: Sequence[ray.ObjectRef[Answer]], timeout_s: float = LOAD_TIMEOUT_S
) -> list[ray.ObjectRef[Answer]]:
    """Those that have been answered, by a pack or by its death, once all are or the time is up."""
    if not asked:
        return []
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=timeout_s)
    return list(answered)


def find_slowest_throughput(
    asked: Sequence[ray.ObjectRef[Throughput | None]], timeout_s: float
) -> Throughput | None:
    """The throughput of the slowest pack that has answered in time; None where none was measured.

    A pack that dies meanwhile tells nothing, and Ray starts it again; nor does one that has no GPU
    yet after LOAD_TIMEOUT_S, as on a cluster that grows.

    Raises:
        SweepAborted: a pack cannot load.
    """
    measured: list[Throughput] = []
    for answer in wait_for(asked, timeout_s):
        try:
            throughput = ray.get(answer)
        except RayError as refused:
            cause = refused.cause if isinstance(refused, RayTaskError) else refused
            if isinstance(cause, SweepAborted):
                raise cause from None
            logger.warning("a pack could not measure its throughput: %s", cause)
        else:
            measured += [throughput] if throughput is not None else []
    return slowest(measured) if measured else None


def decide(actors: Sequence[ActorHandle], step: int, should_continue: Mapping[str, bool]) -> None:
    """Tell which trials continue after their reports at a step; returns at once.

    Their processes would say so one by one; a stopped one only when it is handed the next trial,
    and its slot would train for nothing until then.
    """
    for actor in actors:
        actor.decide.remote(step, should_continue)


def run_final_test(
    actors: Sequence[ActorHandle],
    allocation: Allocation,
    settings: TrainingSettings,
    adapters: Mapping[str, Path],
) -> dict[str, EvalResult]:
    """Scores as of trainables.final_test.score, by the packs that are up.

    Where those together cannot, one of them does it, else a process of its own.
    """
    up = _find_up(actors)
    together = [up] if len(up) > 1 else []
    for testers in [*together, *([actor] for actor in up)]:
        try:
            parts = ray.get(_begin_tests(testers, adapters))
        except RayError as refused:
            logger.warning("a pack could not do the final test: %s", refused)
        else:
            return {name: result for part in parts for name, result in part.items()}
    for actor in actors:  # they hold the GPUs
        ray.kill(actor)
    task = ray.remote(num_cpus=1, num_gpus=1 if allocation.num_gpus else 0)(_score)
    results: dict[str, EvalResult] = ray.get(task.remote(settings, adapters, allocation.capacity))
    return results


def _begin_tests(
    testers: Sequence[ActorHandle], adapters: Mapping[str, Path]
) -> list[ray.ObjectRef[dict[str, EvalResult]]]:
    """The final test's parts: of several packs one scores the base, and the others share the
    adapters."""
    first, *others = testers
    if not others:
        return [first.final_scores.remote(adapters, True)]
    shares = [dict(list(adapters.items())[n :: len(others)]) for n in range(len(others))]
    asked = [
        actor.final_scores.remote(share, False)
        for actor, share in zip(others, shares, strict=True)
        if share
    ]
    return [first.final_scores.remote({}, True), *asked]


def _find_up(actors: Sequence[ActorHandle]) -> list[ActorHandle]:
    """The packs that have started, and live."""
    asked = ask_started(actors)
    answered = wait_for(asked, ANSWER_TIMEOUT_S)
    up = []
    for actor, answer in zip(actors, asked, strict=True):
        with contextlib.suppress(RayError):
            if answer in answered:
                ray.get(answer)
                up.append(actor)
    return up


def collect_ledgers(actors: Sequence[ActorHandle], checkpoints: Path) -> list[Ledger]:
    """Where the time of every pack went that ever ran for the sweep, oldest first.

    Those that still answer tell how it is now; of the others counts what they last wrote.
    """
    with contextlib.suppress(RayError):
        wait_for([actor.ledger.remote() for actor in actors], ANSWER_TIMEOUT_S)
    return read_ledgers(checkpoints)


def _score(
    settings: TrainingSettings, adapters: Mapping[str, Path], capacity: Capacity | None
) -> dict[str, EvalResult]:
    from trainables.final_test import score  # loads torch, only in the worker

    return score(settings, adapters, capacity=capacity)
