"""turkish_youtube's search space and the settings that are tried first."""

from search_spaces.lora import LoraSpace, Point

SPACE = LoraSpace(learning_rates=(5e-6, 5e-4))
"""Batches of two rows bear lower rates than large ones: the best one moves with the batch."""

START_POINTS: tuple[Point, ...] = (
    # long texts, two rows a step: a low rate, and a scaling of 1
    {
        "lora_rank": 32,
        "alpha_over_rank": 1.0,
        "use_rslora": False,
        "lora_dropout": 0.05,
        "learning_rate": 2e-5,
    },
    # what LoRA sweeps of 4B models at batches of one to four found best
    {
        "lora_rank": 32,
        "alpha_over_rank": 1.0,
        "use_rslora": False,
        "lora_dropout": 0.05,
        "learning_rate": 1e-4,
    },
)

TINY_SPACE = LoraSpace(
    learning_rates=(1e-3, 8e-3),  # a model of a few million parameters wants ten times more
    lora_ranks=(8, 16, 32),
)

TINY_START_POINTS: tuple[Point, ...] = tuple(
    point | {"learning_rate": rate} for point, rate in zip(START_POINTS, (3e-3, 5e-3), strict=True)
)
