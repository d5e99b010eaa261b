"""A driver that is killed before any of its writes loses and repeats nothing."""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from sweeps.config import SweepConfig
from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from tests.examples import max_examples
from tests.sweeps.control.controllers import (
    check_whole,
    open_controller,
    records_of,
    train_all,
)
from tests.sweeps.invented_sweep import make_config

TORN = b'{"time": "2026-01-01T00:00:00+00:00", "kind": "rep'


WITH_FINALS = make_config(num_trials=4, finals=True, num_finalists=2, num_final_seeds=2)


class KillNow(BaseException):
    """The driver dies here."""


@dataclass
class Fuse:
    """Knows of each write to the log, and kills the driver before one of them."""

    burns_at: float = math.inf
    num_writes: int = 0
    look: Callable[[int], None] | None = None
    """Called before each write with its number, from 1."""

    def is_due(self) -> bool:
        """Whether the driver dies before this write."""
        self.num_writes += 1
        if self.look is not None:
            self.look(self.num_writes)
        return self.num_writes == self.burns_at


@pytest.fixture(scope="module", autouse=True)
def fuse() -> Iterator[Fuse]:
    """Burns in the real log; a killed write leaves half a line."""
    fuse = Fuse()
    patch = pytest.MonkeyPatch()
    append_all = EventLog.append_all

    def append_or_die(log: EventLog, kind: Any, events: Iterable[Mapping[str, object]]) -> None:
        """A kill may leave a part of what is written together."""
        for event in events:
            if fuse.is_due():
                with log._path.open("ab") as file:
                    file.write(TORN)
                raise KillNow
            append_all(log, kind, [event])

    patch.setattr(EventLog, "append_all", append_or_die)
    yield fuse
    patch.undo()


def run_lives(folder: Path, config: SweepConfig, fuse: Fuse, kills: list[int]) -> None:
    """Runs a sweep whose drivers are killed before the given writes, until one reaches the end."""
    disk: dict[str, int] = {}
    for life, burns_at in enumerate([*kills, math.inf]):
        fuse.burns_at, fuse.num_writes = burns_at, 0
        try:
            train_all(open_controller(folder, config, is_resumed=life > 0), config, disk)
            return
        except KillNow:
            continue
        finally:
            fuse.burns_at = math.inf


@pytest.mark.slow
def test_kill_before_any_write_loses_and_repeats_nothing(tmp_path: Path, fuse: Fuse) -> None:
    left: list[tuple[Path, dict[str, int]]] = []
    disk: dict[str, int] = {}
    whole = tmp_path / "whole"

    def keep_what_a_kill_would_leave(number: int) -> None:
        left.append((tmp_path / f"before-{number}", dict(disk)))
        shutil.copytree(whole, left[-1][0])
        with RunPaths(left[-1][0]).events.open("ab") as log:
            log.write(TORN)

    fuse.num_writes, fuse.look = 0, keep_what_a_kill_would_leave
    train_all(open_controller(whole, WITH_FINALS), WITH_FINALS, disk)
    fuse.look = None
    check_whole(whole, WITH_FINALS)
    statuses = [h.status for h in records_of(whole)]
    assert statuses == ["stopped", "failed", "failed", "completed"]
    assert len(left) > 20
    for folder, disk in left:
        train_all(open_controller(folder, WITH_FINALS, is_resumed=True), WITH_FINALS, disk)
        check_whole(folder, WITH_FINALS)


@max_examples(5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kills=st.lists(st.integers(2, 25), min_size=2, max_size=4))
@pytest.mark.slow
def test_kills_of_one_driver_after_another_lose_and_repeat_nothing(
    tmp_path_factory: pytest.TempPathFactory, fuse: Fuse, kills: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("kills")
    run_lives(folder, WITH_FINALS, fuse, kills)
    check_whole(folder, WITH_FINALS)
