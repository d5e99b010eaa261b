"""Trials and packs that train nothing, many in one process, behind the Tuner's own loop.

Real are the Tuner with its loop, placement groups, futures, results and saves, and all that the
driver has around it. Two cores cannot start the processes of hundreds of trials, so Tune's class of
such a process is replaced: what it starts is a trial in one of two processes, and each call there
is a task of Ray, as before. The packs are in these processes too, and train nothing: one of them
reports every 25 ms. No process is lost, and no trial fails.
"""

import asyncio
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import ray
from ray import tune
from ray.actor import ActorClass, ActorHandle
from ray.tune.execution.class_cache import _ActorClassCache

from tests.sweeps.control.pack_stubs import make_status
from tests.sweeps.invented_sweep import make_cohort
from trainables import trial as trainable
from trainables.config import TrialConfig, TrialReport
from trainables.packing.service.events import PackStatus
from trainables.packing.sizing.choose import MOST_SLOTS

NUM_HOSTS = 2
REPORT_INTERVAL_S = 0.05
"""Between two packs of a process that report: as fast as a driver can take them."""


class StandInTrial(tune.Trainable):  # type: ignore[misc]
    """A trial as Tune has it in a process; its reports are made for it."""

    def setup(self, config: dict[str, Any]) -> None:
        self.trial: TrialConfig = config[trainable.TRIAL]
        self.rung = 0
        self.reported: asyncio.Future[TrialReport] | None = None
        """None while the sweep has not asked for the next report."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        assert self.reported is not None, "its report has come"
        report, self.reported = self.reported.result(), None
        self.rung += 1
        return {trainable.REPORT: report, "step": report.step, **report.metrics}


@ray.remote(num_cpus=0, max_concurrency=10_000)
class Host:
    """One process with some of the packs, and the trials in them.

    Args:
        rungs: steps at which trials report.
        packs: their numbers.
    """

    def __init__(self, rungs: Sequence[int], packs: Sequence[int]) -> None:
        self._rungs = rungs
        self._rng = random.Random(0)
        self._trials: dict[int, StandInTrial] = {}
        """By the number of Tune's process."""
        self._packs: dict[int, dict[str, StandInTrial]] = {number: {} for number in packs}
        self._report_task: asyncio.Task[None] | None = None

    async def call_pack(self, number: int, method: str, *args: Any) -> PackStatus | None:
        if method == "get_status":
            return make_status(
                pack_id=str(number), num_slots=MOST_SLOTS, num_trials=len(self._packs[number])
            )
        _, should_continue = args
        for trial_id, continues in should_continue.items():
            if not continues:
                self._packs[number].pop(trial_id, None)
        return None

    async def call_trial(self, key: int, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "__init__":
            self._trials[key] = StandInTrial(*args, **kwargs)
        elif method == "__ray_terminate__":
            del self._trials[key]
        elif method == "train":
            trial = self._trials[key]
            if trial.rung == 0:
                min(self._packs.values(), key=len)[trial.trial.trial_id] = trial
            self._report_task = self._report_task or asyncio.create_task(self._report_on())
            trial.reported = asyncio.get_running_loop().create_future()
            await trial.reported
            return trial.train()
        elif method != "__ray_ready__":
            return getattr(self._trials[key], method)(*args, **kwargs)

    async def _report_on(self) -> None:
        """Has one pack after another report, as soon as the sweep has heard all of its trials."""
        while True:
            await asyncio.sleep(REPORT_INTERVAL_S)
            ready = [
                number
                for number, trials in self._packs.items()
                if trials and all(t.reported and not t.reported.done() for t in trials.values())
            ]
            if ready:
                self._report(self._rng.choice(ready))

    def _report(self, number: int) -> None:
        """The trials that have come least far are scored together."""
        rung = min(trial.rung for trial in self._packs[number].values())
        at_rung = {n: t for n, t in self._packs[number].items() if t.rung == rung}
        values = {
            name: 3.0 * rung
            + self._rng.random()
            - abs(math.log(trial.trial.params.learning_rate / 3e-4))
            for name, trial in at_rung.items()
        }
        for report in make_cohort(self._rungs[rung], values):
            waiting = at_rung[report.trial_id].reported
            assert waiting is not None, "all wait"
            waiting.set_result(replace(report, pack=str(number)))


class _Handle:
    """What Tune takes for the handle of a trial's process, and the driver for that of a pack."""

    def __init__(self, call: Any, number: int) -> None:
        self._call, self._number = call, number

    def __getattr__(self, method: str) -> SimpleNamespace:
        call, number = self._call, self._number
        named = SimpleNamespace(remote=lambda *args, **kw: call.remote(number, method, *args, **kw))
        named.options = lambda **_: named
        return named


class _Class:
    """What Tune takes for the class of a trial's process; Ray's own cannot be derived from."""

    __class__ = property(lambda self: ActorClass)  # type: ignore[assignment]

    def __init__(self, hosts: Sequence[ActorHandle]) -> None:
        self._hosts = itertools.cycle(hosts)
        self._numbers = itertools.count()

    def options(self, **_: Any) -> "_Class":
        """The placement group is real, and nothing is placed in it."""
        return self

    def remote(self, **kwargs: Any) -> _Handle:
        handle = _Handle(next(self._hosts).call_trial, next(self._numbers))
        handle.__getattr__("__init__").remote(**kwargs)
        return handle


@contextmanager
def start_packs(rungs: Sequence[int], num_packs: int) -> Iterator[list[Any]]:
    """The handles of packs; trials of Tune run in their processes meanwhile."""
    hosts = [Host.remote(rungs, range(n, num_packs, NUM_HOSTS)) for n in range(NUM_HOSTS)]
    packs = [_Handle(hosts[number % NUM_HOSTS].call_pack, number) for number in range(num_packs)]
    trial_class = _Class(hosts)
    with mock.patch.object(_ActorClassCache, "get", lambda *_: trial_class):
        yield packs
