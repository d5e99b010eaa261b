"""A small invented sweep, its reports and histories, for the tests of the search's parts."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_spaces.lora import LoraSpace, Point
from sweeps.config import SweepConfig
from sweeps.records.trial_record import TrialRecord
from trainables.config import Hyperparameters, Metric, TrialReport

METRIC = Metric(name="rougeLsum")
LOSS = Metric(name="eval_loss", mode="min")
SPACE = LoraSpace(learning_rates=(1e-4, 1e-2), lora_ranks=(4, 8, 16), rsloras=(False, True))
PARAMS = Hyperparameters(lora_rank=8, lora_alpha=16.0, learning_rate=2e-4)


def point(rate: float, rank: int = 8) -> Point:
    """A point of SPACE."""
    return {
        "learning_rate": rate,
        "lora_rank": rank,
        "alpha_over_rank": 2.0,
        "lora_dropout": 0.05,
        "use_rslora": True,
    }


def make_config(**changes: Any) -> SweepConfig:
    """Nine steps with rungs 1, 3, 9, two start points, and no finals."""
    fields: dict[str, Any] = {
        "recipe": "samsum",
        "task": "samsum",
        "model": "Qwen/Qwen3-0.6B",
        "max_steps": 9,
        "space": SPACE,
        "start_points": (point(2e-4), point(1e-3, rank=16)),
        "num_trials": 4,
        "finals": False,
        "name": "invented",
    }
    return SweepConfig(**fields | changes)


def make_report(trial_id: str, step: int, value: float, **metrics: float) -> TrialReport:
    """A report with this rougeLsum."""
    return TrialReport(
        trial_id=trial_id,
        step=step,
        metrics={METRIC.name: value, **metrics},
        train_loss=2.0,
        learning_rate=1e-4,
        epoch=0.5,
        tokens=100 * step,
        tokens_per_s=50.0,
        seconds=2.0 * step,
        peak_gib=1.5,
        checkpoint=Path(f"/run/{trial_id}/checkpoint-{step}"),
    )


def make_cohort(step: int, values: Mapping[str, float]) -> list[TrialReport]:
    """The reports of trials that were scored together, by trial."""
    alone = [make_report(trial_id, step, value) for trial_id, value in values.items()]
    return [
        replace(report, cohort=tuple(other for other in alone if other is not report))
        for report in alone
    ]


def make_history(number: int, status: Any, *scores: tuple[int, float], **more: Any) -> TrialRecord:
    """A trial that reported these (step, value) pairs."""
    trial_id = f"t{number:04d}"
    reports = [make_report(trial_id, step, value) for step, value in scores]
    fields = {"number": number, "params": PARAMS, "status": status} | more
    return TrialRecord(trial_id=trial_id, reports=reports, **fields)


def make_final_run(trial_id: str, seed: int, value: float, **metrics: float) -> TrialRecord:
    """A completed run of the finals, such as f0001s1, with this rougeLsum."""
    number = int(trial_id[1:5])
    return TrialRecord(
        trial_id=trial_id,
        number=number,
        params=PARAMS,
        reports=[make_report(trial_id, 9, value, **metrics)],
        status="completed",
        final_of=f"t{number:04d}",
        seed=seed,
    )
