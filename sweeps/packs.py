"""The packs of a sweep: Ray actors that start before its trials and end before its last task."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

import ray
from ray.actor import ActorHandle

from sweeps.lanes import Lanes
from trainables.config import TrainingSettings
from trainables.packing.actor import LOCK_NAME, start_pack

ENDING_S = 60.0
"""How long packs that end are waited for."""


@contextlib.contextmanager
def running(
    lanes: Lanes, settings: TrainingSettings, checkpoints: Path
) -> Iterator[list[ActorHandle]]:
    """Packs on as many GPUs as lanes say, wherever the cluster has them; none for solo trials.

    Packs of an earlier driver are waited for, and these in the end, so that nobody else writes to
    the checkpoints' folder or holds the GPUs.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    _wait_for_end(checkpoints)
    actors = [
        start_pack(settings, lanes.capacity, checkpoints, has_gpu=lanes.num_gpus > 0)
        for _ in range(lanes.num_packs)
        if lanes.capacity is not None
    ]
    try:
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)
        _wait_for_end(checkpoints)


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
