"""Keeps Ray Tune from showing by itself what the sweep shows."""

import logging
import os
from typing import Any

from ray.tune import ProgressReporter
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback


def silence_tune() -> None:
    """Tune's own tables, loggers and warnings would repeat what the sweep shows.

    A trial that fails before its first report has no metric, which Tune would refuse.
    """
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "inf")  # nothing is restored from its saves
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)


class NoReporter(ProgressReporter):  # type: ignore[misc]
    """In a notebook Tune clears the cell for tables of its own, however quiet it is to be."""

    def should_report(self, trials: list[Trial], done: bool = False) -> bool:
        return False


class SilentProgress(TrialProgressCallback):  # type: ignore[misc]
    """Takes the place of Tune's callback of this kind, which prints the result of a trial that ends
    before its first one, and every result in a notebook."""

    def on_trial_result(self, *_: Any, **__: Any) -> None:
        pass

    on_trial_error = on_trial_complete = on_trial_result
