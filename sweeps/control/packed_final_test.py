"""The final test by the packs that are loaded, which hold the GPUs and have the base already."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from sweeps.command_line.durations import format_duration
from sweeps.control.gpu_places import FIRST_WAIT_S
from sweeps.control.pack_pool import POLL_INTERVAL_S, PackPool, explain_loss
from sweeps.cost.allocation import Allocation
from trainables.config import TrainingSettings
from trainables.errors import REPEAT, SweepAborted
from trainables.metrics.eval_result import EvalResult
from trainables.packing.sizing.capacity import Capacity

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 600.0
"""How long a test in a process of its own waits for a GPU: its sweep's own have just come free."""

MAX_TESTERS = 3
"""Such processes at most that have begun: each is lost with its node."""

PAUSE_S = 1.0
"""After one that was lost before it began: Ray learns later that its node has gone."""


def run_final_test(
    pool: PackPool,
    allocation: Allocation,
    settings: TrainingSettings,
    adapters: Mapping[str, Path],
) -> dict[str, EvalResult]:
    """Scores as of trainables.final_test.score_final_test, by the packs that are loaded.

    Where those together cannot, one of them does it, else a process of its own.

    Raises:
        SweepAborted: there is no GPU for that process, or its node is lost again and again.
    """
    up = pool.loaded
    together = [up] if len(up) > 1 else []
    for testers in [*together, *([actor] for actor in up)]:
        pending = _begin_tests(testers, adapters)
        try:
            while ray.wait(pending, num_returns=len(pending), timeout=POLL_INTERVAL_S)[1]:
                pool.poll()
            parts = ray.get(pending)
        except RayError as refused:
            logger.warning("a pack could not do the final test: %s", explain_loss(refused))
        else:
            return {name: result for part in parts for name, result in part.items()}
    pool.stop()  # they hold the GPUs
    smallest = next(iter(allocation.capacities), None)  # fits on any GPU
    for _ in range(MAX_TESTERS):
        tester = _start_tester(has_gpu=allocation.num_gpus > 0)
        try:
            results: dict[str, EvalResult] = ray.get(
                tester.score.remote(settings, adapters, smallest)
            )
            return results
        except RayActorError as lost:
            reason = explain_loss(lost)
            logger.warning("the final test was lost: %s", reason)
        finally:
            ray.kill(tester)  # one that only was not heard of would keep its GPU from the next
    raise SweepAborted(
        f"the final test was lost {MAX_TESTERS} times, at last: {reason}",
        f"see Ray's logs, {REPEAT}",
    )


def _start_tester(*, has_gpu: bool) -> ActorHandle:
    """A tester that has its GPU. Those that are lost before, with their nodes, are started again.

    Raises:
        SweepAborted: none gets one.
    """
    what = "GPU" if has_gpu else "CPU core"
    limit = format_duration(START_TIMEOUT_S)
    ends_s = time.monotonic() + START_TIMEOUT_S
    while (left_s := ends_s - time.monotonic()) > 0:
        tester = ray.remote(num_cpus=1, num_gpus=int(has_gpu))(_Tester).remote()
        is_there = [tester.__ray_ready__.remote()]
        if not ray.wait(is_there, timeout=min(FIRST_WAIT_S, left_s))[0]:
            logger.warning("the final test waits for a %s, for %s at most", what, limit)
            ray.wait(is_there, timeout=max(0.0, ends_s - time.monotonic()))
        try:
            ray.get(is_there, timeout=0)
            return tester
        except RayActorError as lost:
            logger.warning("the final test was lost before it began: %s", explain_loss(lost))
            time.sleep(PAUSE_S)
        except GetTimeoutError:
            ray.kill(tester)
    raise SweepAborted(f"no {what} was free for the final test in {limit}", f"free one, {REPEAT}")


def _begin_tests(
    testers: Sequence[ActorHandle], adapters: Mapping[str, Path]
) -> list[ray.ObjectRef[dict[str, EvalResult]]]:
    """The final test's parts: of several packs one scores the base, and the others share the
    adapters."""
    first, *others = testers
    if not others:
        return [first.run_final_test.remote(adapters, True)]
    shares = [dict(list(adapters.items())[n :: len(others)]) for n in range(len(others))]
    pending = [
        actor.run_final_test.remote(share, False)
        for actor, share in zip(others, shares, strict=True)
        if share
    ]
    return [first.run_final_test.remote({}, True), *pending]


class _Tester:
    """A process of its own."""

    def score(
        self, settings: TrainingSettings, adapters: Mapping[str, Path], capacity: Capacity | None
    ) -> dict[str, EvalResult]:
        """Scores as of trainables.final_test.score_final_test."""
        from trainables.final_test import score_final_test  # loads torch, only in the worker

        return score_final_test(settings, adapters, capacity=capacity)
