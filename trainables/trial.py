"""The Ray Tune trainable: trains one trial and streams its reports. Imports no torch itself."""

import os
from typing import Any

from trainables.checkpoint import abort_if_disk_fails
from trainables.config import TrialConfig, TrialReport
from trainables.errors import SweepAborted, TrialFailed
from trainables.folder_locks import lock_folder

TRIAL = "trial"
"""Key of the TrialConfig in the config that Tune hands to a trial."""
REPORT, FAILED, ABORTED = "trial_report", "trial_failed", "sweep_aborted"
"""Keys of a Tune result: a TrialReport, why the trial failed, or why the sweep cannot go on."""


def run_trial(config: dict[str, Any], *, is_packed: bool, max_failures: int) -> None:
    """Trains one trial, in a pack or alone.

    Args:
        config: of Ray Tune: the TrialConfig under TRIAL.
        is_packed: whether it trains in the sweep's packs, or alone in this process.
        max_failures: times that a pack may be lost between two reports.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL counts its trainers
    from ray import tune  # loads Ray, which a trial outside a sweep does without

    def send(report: TrialReport) -> None:
        """Blocks until the sweep has decided; a stopped trial leaves through SystemExit."""
        tune.report({REPORT: report, "step": report.step, **report.metrics})

    trial: TrialConfig = config[TRIAL]
    try:
        with abort_if_disk_fails(trial.folder), lock_folder(trial.folder):
            if is_packed:
                from trainables.packing.service import client  # loads Ray

                client.train(trial, client.find_packs, send, max_failures)
            else:
                from trainables.solo import trainer  # loads torch, only in the process that trains

                trainer.train(trial, send)
    except TrialFailed as failed:
        tune.report({FAILED: str(failed)})
    except SweepAborted as aborted:
        tune.report({ABORTED: (aborted.error, aborted.fix)})
