"""A table of realistic shape, made without training: curves that cross, noise between seeds."""

import math
import random

from tests.benchmarks.search_quality.grid import Configuration, Grid, list_log_levels
from tests.benchmarks.search_quality.measurements import Measurement, Origin, Run, Table, Trained

RUNGS = (33, 56, 100, 225, 300, 450, 900)
STEP_GPU_S = 0.001
NOISE_POINTS = 0.4
"""Standard deviation of one run's final score."""


def make_table(
    *, levels: int = 8, num_seeds: int = 2, noise_points: float = NOISE_POINTS, seed: int = 0
) -> Table:
    """Scores that peak inside the space; small learning rates learn late, large ones early."""
    grid = Grid(
        learning_rates=list_log_levels((3e-5, 1e-3), levels),
        lora_ranks=(8, 16, 32, 64),
        alphas_over_rank=(0.5, 1.0, 2.0),
        lora_dropouts=(0.0, 0.1),
    )
    draw = random.Random(seed)
    trained = [
        Trained(
            configuration=one,
            runs=tuple(_make_run(one, number, draw, noise_points) for number in range(num_seeds)),
        )
        for one in grid.list_configurations()
    ]
    settings = {"rungs": list(RUNGS), "max_steps": RUNGS[-1]}
    return Table(
        origin=Origin(settings=settings, gpu="none", torch="none"),
        commands=("synthetic",),
        commits=(None,),
        trained=tuple(trained),
    )


def expect_final_score(one: Configuration) -> float:
    """The expected score of a configuration at the full budget."""
    effective = math.log10(one.learning_rate * one.alpha_over_rank**0.5)
    fit = -9.0 * (effective + 3.55) ** 2
    return 38 + fit + 0.4 * math.log2(one.lora_rank / 8) - 4 * one.lora_dropout


def _make_run(one: Configuration, number: int, draw: random.Random, noise_points: float) -> Run:
    noise = draw.gauss(0, noise_points)
    speed = 1.5 + math.log10(one.learning_rate / 3e-5)
    measurements = []
    for step in RUNGS:
        share = 1 - math.exp(-speed * 2.2 * step / RUNGS[-1])
        score = 12 + (expect_final_score(one) - 12) * share + noise + draw.gauss(0, noise_points)
        measurements.append(
            Measurement(
                step=step,
                metrics={"rougeLsum": score, "eval_loss": 6 - score / 10},
                eval_rows=818 if step == RUNGS[-1] else 200,
                tokens=3000 * step,
                train_gpu_s=STEP_GPU_S * step,
                eval_gpu_s=0.1 if step == RUNGS[-1] else 0.025,
                wall_s=64 * STEP_GPU_S * step,
            )
        )
    return Run(seed=number, measurements=tuple(measurements))
