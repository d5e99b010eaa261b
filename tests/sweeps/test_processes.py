"""Processes that Tune keeps between two rounds of trials, in a Tuner of its own."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune import RunConfig, TuneConfig
from ray.tune.search import Searcher

from cluster.connect import connect
from sweeps import processes

ROUND = 3


class _Rounds(Searcher):  # type: ignore[misc]
    """Two rounds of trials: the second begins once the first has ended, as finals do."""

    def __init__(self) -> None:
        super().__init__(metric="score", mode="max")
        self.num_begun = self.num_ended = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.num_begun == 2 * ROUND:
            return str(Searcher.FINISHED)
        if self.num_begun == ROUND and self.num_ended < ROUND:
            return None
        self.num_begun += 1
        return {"number": self.num_begun}

    def on_trial_complete(self, trial_id: str, **told: Any) -> None:
        self.num_ended += 1

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


@pytest.mark.parametrize(("most", "num_kept"), [(ROUND, ROUND), (2, 2)])
def test_processes_of_ended_trials_serve_those_that_come_when_none_was_waiting(
    tmp_path: Path, most: int, num_kept: int
) -> None:
    def train(config: dict[str, Any]) -> None:
        number = config["number"]
        (tmp_path / str(number)).touch()
        of_round = range(1, 4) if number <= 3 else range(4, 7)
        while not all((tmp_path / str(other)).exists() for other in of_round):
            time.sleep(0.05)  # the others of its round have processes of their own
        tune.report({"score": 0.0, "pid": os.getpid(), "number": number})

    with connect(num_local_cpus=ROUND):
        tuner = tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            tune_config=TuneConfig(
                search_alg=_Rounds(), num_samples=-1, max_concurrent_trials=ROUND, reuse_actors=True
            ),
            run_config=RunConfig(name="tune", storage_path=str(tmp_path), verbose=0),
        )
        with processes.kept(most):
            found = tuner.fit()
    pids = {result.metrics["number"]: result.metrics["pid"] for result in found}
    first, second = ({pids[n] for n in numbers} for numbers in ((1, 2, 3), (4, 5, 6)))
    assert len(first) == ROUND
    assert len(first & second) == num_kept
