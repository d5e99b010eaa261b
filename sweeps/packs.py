"""The packs of a sweep: Ray actors that live from before its first trial until after its test."""

import contextlib
import fcntl
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from sweeps.finish import Scores
from sweeps.lanes import Lanes
from trainables.config import TrainingSettings
from trainables.packing.actor import LOCK_NAME, start_pack
from trainables.packing.capacity import Capacity
from trainables.packing.ledger import Ledger

logger = logging.getLogger(__name__)

ENDING_S = 60.0
"""How long packs that end are waited for."""
LEDGER_S = 5.0
"""How long packs are waited for when they are asked where their time went."""


@contextlib.contextmanager
def running(
    lanes: Lanes, settings: TrainingSettings, checkpoints: Path, *, has_trials: bool
) -> Iterator[list[ActorHandle]]:
    """Packs on as many GPUs as lanes say, wherever the cluster has them; none for solo trials.

    None either where no trial is left to run.

    Packs of an earlier driver are waited for, and these in the end, so that nobody else writes to
    the checkpoints' folder or holds the GPUs.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    _wait_for_end(checkpoints)
    actors = [
        start_pack(settings, lanes.capacity, checkpoints, has_gpu=lanes.num_gpus > 0)
        for _ in range(lanes.num_packs if has_trials else 0)
        if lanes.capacity is not None
    ]
    try:
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)
        _wait_for_end(checkpoints)


def evict(actors: Sequence[ActorHandle], trial_id: str) -> None:
    """Free the slot of a trial that was stopped; returns at once.

    Its process would do so when it is handed the next trial, and trains on for nothing until then.
    """
    for actor in actors:
        actor.evict.remote(trial_id)


def final_scores(
    actors: Sequence[ActorHandle], lanes: Lanes, settings: TrainingSettings, adapter: Path
) -> Scores:
    """See trainables.final.score: by a pack that is up, else in a process of its own."""
    for actor in actors:
        try:
            found: Scores = ray.get(actor.final_scores.remote(adapter))
        except RayError as refused:
            logger.warning("a pack could not do the final test: %s", refused)
        else:
            return found
    for actor in actors:  # they hold the GPUs
        ray.kill(actor)
    task = ray.remote(num_cpus=1, num_gpus=1 if lanes.num_gpus else 0)(_score)
    made: Scores = ray.get(task.remote(settings, adapter, lanes.capacity))
    return made


def ledgers(actors: Sequence[ActorHandle]) -> list[Ledger]:
    """Where the time of each pack that still answers went."""
    asked = [actor.ledger.remote() for actor in actors]
    answered, _ = ray.wait(asked, num_returns=len(asked), timeout=LEDGER_S) if asked else ([], [])
    found = []
    for one in asked:
        if one in answered:
            with contextlib.suppress(RayError):  # it died, and its ledger with it
                found.append(ray.get(one))
    return found


def _score(settings: TrainingSettings, adapter: Path, capacity: Capacity | None) -> Scores:
    from trainables.final import score  # loads torch, only in the worker

    scores: Scores = score(settings, adapter, capacity=capacity)
    return scores


def _wait_for_end(checkpoints: Path) -> None:
    """Until no pack's process writes there, or ENDING_S have passed."""
    deadline_s = time.monotonic() + ENDING_S
    with (checkpoints / LOCK_NAME).open("w") as file:
        while time.monotonic() < deadline_s:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.1)
