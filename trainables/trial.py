"""The Ray Tune trainable: trains one trial and streams its reports. Imports no torch itself."""

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trainables.checkpoint import held
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.errors import TrialFailed

REPORT, FAILED, ABORTED = "trial_report", "trial_failed", "sweep_aborted"
"""Keys of a Tune result: a TrialReport, why the trial failed, or why the sweep cannot go on."""

_FULL_BYTES = 2**20
"""A disk with less than this free is full: a checkpoint's last files did not fit."""


def run_trial(config: dict[str, Any], settings: TrainingSettings, checkpoints: Path) -> None:
    """Trains the trial that config describes.

    Args:
        config: trial_id and the fields of Hyperparameters, as Ray Tune shows them.
        settings: shared by the sweep's trials.
        checkpoints: absolute folder that holds one folder a trial.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL counts its trainers
    from ray import tune  # loads Ray, which a trial outside a sweep does without

    from trainables import solo  # loads torch, only in the process that trains

    def send(report: TrialReport) -> None:
        """Blocks until the sweep has decided; a stopped trial leaves through SystemExit."""
        tune.report({REPORT: report, "step": report.step, **report.metrics})

    trial_id = config["trial_id"]
    params = {name: value for name, value in config.items() if name != "trial_id"}
    trial = TrialConfig(
        trial_id=trial_id,
        params=Hyperparameters(**params),
        settings=settings,
        folder=checkpoints / trial_id,
    )
    try:
        with held(trial.folder):
            solo.train(trial, send)
    except TrialFailed as failed:
        tune.report({FAILED: str(failed)})
    except (OSError, RuntimeError, SafetensorError):  # what a failed write raises, by its writer
        if shutil.disk_usage(trial.folder).free >= _FULL_BYTES:
            raise
        error = f"the disk of {checkpoints} is full"
        tune.report({ABORTED: (error, "free space there, then repeat the command with --resume")})
