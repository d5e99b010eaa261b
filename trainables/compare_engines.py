"""A trial trained again by either engine, and how far its adapter lies from the first one."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from trainables.config import TrialConfig, TrialReport

Train = Callable[[TrialConfig, Callable[[TrialReport], None]], None]
"""What both engines offer: trains a trial and hands on its reports."""

WEIGHTS_NAME = "adapter_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class AdapterDistance:
    """How far two adapters of the same shape lie apart."""

    relative: float
    """Largest norm of a matrix's difference, over the norm of the first adapter's matrix."""
    matrix: str
    """PEFT's name of that matrix."""
    absolute: float
    """Largest difference of two numbers."""


class _Enough(SystemExit):
    """Ends a training that has come far enough, as a stopped trial of a sweep ends."""


def reports_until(train: Train, trial: TrialConfig, last_step: int) -> list[TrialReport]:
    """The reports of a new training up to last_step, whose checkpoint stays in trial.folder.

    The learning-rate schedule still spans the full budget, as it did for a trial that was stopped.

    Raises:
        TrialFailed: the trial cannot go on.
    """
    reports: list[TrialReport] = []

    def take(report: TrialReport) -> None:
        reports.append(report)
        if report.step >= last_step:
            raise _Enough

    with suppress(_Enough):
        train(trial, take)
    return reports


def train_packed(trial: TrialConfig, report: Callable[[TrialReport], None]) -> None:
    """Trains in a pack of one; the contract is solo.train's."""
    from trainables.packing.service import alone  # loads torch

    alone.train(trial, report)


def train_solo(
    trial: TrialConfig,
    report: Callable[[TrialReport], None],
    *,
    dropout_seed: int | None = None,
) -> None:
    """Trains by TRL."""
    from trainables.solo import trainer  # loads torch

    trainer.train(trial, report, dropout_seed=dropout_seed)


def adapter_distance(one: Path, other: Path) -> AdapterDistance:
    """How far the adapter in the PEFT folder other lies from that in one.

    Raises:
        ValueError: they do not hold the same matrices.
    """
    first, second = (load_file(folder / WEIGHTS_NAME) for folder in (one, other))
    shapes, others = ({name: w.shape for name, w in a.items()} for a in (first, second))
    if not shapes or shapes != others:
        raise ValueError(f"the adapters in {one} and {other} differ in their matrices")
    gaps = {name: second[name].astype(np.float64) - first[name] for name in first}
    relative = {name: _relative_norm(gaps[name], first[name]) for name in gaps}
    matrix = max(relative, key=lambda name: relative[name])
    absolute = max(float(np.abs(gap).max()) for gap in gaps.values())
    return AdapterDistance(relative=relative[matrix], matrix=matrix, absolute=absolute)


def _relative_norm(gap: np.ndarray, reference: np.ndarray) -> float:
    """Zero for equal matrices, also where the reference is zero, as lora_B is at the start."""
    size = float(np.linalg.norm(gap))
    return size and float(np.divide(size, np.linalg.norm(reference.astype(np.float64))))
