"""A trial trained again by either engine, and how far its adapter lies from the first one."""

from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.numpy import load_file

from trainables.config import TrialConfig, TrialReport

WEIGHTS_NAME = "adapter_model.safetensors"


class _Enough(SystemExit):
    """Ends a training that has come far enough, as a stopped trial of a sweep ends."""


def train_until(
    engine: Literal["packed", "solo"],
    trial: TrialConfig,
    last_step: int,
    *,
    dropout_seed: int | None = None,
) -> list[TrialReport]:
    """The reports of a new training up to last_step, whose checkpoint stays in trial.folder.

    The learning-rate schedule still spans the full budget, as it did for a trial that was stopped.

    Args:
        dropout_seed: of the solo engine's dropout alone; None for the trial's own.

    Raises:
        TrialFailed: the trial cannot go on.
    """
    reports: list[TrialReport] = []

    def take(report: TrialReport) -> None:
        reports.append(report)
        if report.step >= last_step:
            raise _Enough

    with suppress(_Enough):
        if engine == "solo":
            from trainables.solo import trainer  # loads torch, as the other import does

            trainer.train(trial, take, dropout_seed=dropout_seed)
        else:
            from trainables.packing.service import in_process

            in_process.train(trial, take)
    return reports


def measure_adapter_distances(one: Path, other: Path) -> dict[str, float]:
    """By PEFT's name, the norm of a matrix's difference in two PEFT folders, over its norm in one.

    Raises:
        ValueError: they do not hold the same matrices.
    """
    first, second = (load_file(folder / WEIGHTS_NAME) for folder in (one, other))
    shapes, others = ({name: w.shape for name, w in a.items()} for a in (first, second))
    if not shapes or shapes != others:
        raise ValueError(f"the adapters in {one} and {other} differ in their matrices")
    distances = {}
    for name, matrix in first.items():
        reference = matrix.astype(np.float64)
        gap = np.linalg.norm(second[name] - reference)
        # Zero for equal matrices, also where one is zero, as lora_B is at the start.
        distances[name] = float(gap and np.divide(gap, np.linalg.norm(reference)))
    return distances
