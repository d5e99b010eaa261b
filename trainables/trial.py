"""The Ray Tune trainable: trains one trial and streams its reports. Imports no torch itself."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainables.checkpoint import WRITE_ERRORS, explain_full_disk, lock_folder
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.errors import SweepAborted, TrialFailed

REPORT, FAILED, ABORTED = "trial_report", "trial_failed", "sweep_aborted"
"""Keys of a Tune result: a TrialReport, why the trial failed, or why the sweep cannot go on."""


def run_trial(
    config: dict[str, Any],
    settings: TrainingSettings,
    checkpoints: Path,
    packs: Sequence[Any],
    max_failures: int,
) -> None:
    """Trains the trial that config describes, in a pack or alone.

    Args:
        config: trial_id, seed and the fields of Hyperparameters, as Ray Tune shows them.
        settings: shared by the sweep's trials, apart from the seed.
        checkpoints: absolute folder that holds one folder a trial.
        packs: handles of the sweep's packs; none to train alone in this process.
        max_failures: times that a pack may be lost between two reports.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL counts its trainers
    from ray import tune  # loads Ray, which a trial outside a sweep does without

    def send(report: TrialReport) -> None:
        """Blocks until the sweep has decided; a stopped trial leaves through SystemExit."""
        tune.report({REPORT: report, "step": report.step, **report.metrics})

    trial_id = config["trial_id"]
    params = {name: value for name, value in config.items() if name not in ("trial_id", "seed")}
    trial = TrialConfig(
        trial_id=trial_id,
        params=Hyperparameters(**params),
        settings=replace(settings, seed=config["seed"]),
        folder=checkpoints / trial_id,
    )
    try:
        with lock_folder(trial.folder):
            if packs:
                from trainables.packing.service import client  # loads Ray

                client.train(trial, packs, send, max_failures)
            else:
                from trainables.solo import trainer  # loads torch, only in the process that trains

                trainer.train(trial, send)
    except TrialFailed as failed:
        tune.report({FAILED: str(failed)})
    except SweepAborted as aborted:
        tune.report({ABORTED: (aborted.error, aborted.fix)})
    except WRITE_ERRORS as error:
        full = explain_full_disk(trial.folder, error)
        if full is None:
            raise
        tune.report({ABORTED: (full.error, full.fix)})
