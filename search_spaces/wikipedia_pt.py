"""wikipedia_pt's search space and the settings that are tried first."""

from search_spaces.lora import LoraSpace, Point

SPACE = LoraSpace(learning_rates=(3e-5, 2e-3))  # 0.5B parameters: the best rate rises

START_POINTS: tuple[Point, ...] = (
    # the common plain setting: rank 16, alpha 32, 2e-4
    {
        "lora_rank": 16,
        "alpha_over_rank": 2.0,
        "use_rslora": False,
        "lora_dropout": 0.05,
        "learning_rate": 2e-4,
    },
    # a small model's higher rate
    {
        "lora_rank": 32,
        "alpha_over_rank": 1.0,
        "use_rslora": False,
        "lora_dropout": 0.05,
        "learning_rate": 6e-4,
    },
)

TINY_SPACE = LoraSpace(
    learning_rates=(1e-3, 8e-3),  # a model of a few million parameters wants ten times more
    lora_ranks=(8, 16, 32),
)

TINY_START_POINTS: tuple[Point, ...] = tuple(
    point | {"learning_rate": rate} for point, rate in zip(START_POINTS, (3e-3, 5e-3), strict=True)
)
