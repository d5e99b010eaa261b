"""turkish_tweets' search space and the settings that are tried first."""

from search_spaces.lora import LoraSpace, Point

SPACE = LoraSpace(learning_rates=(3e-5, 2e-3))  # labels of one word bear more than summaries do

START_POINTS: tuple[Point, ...] = (
    # the common plain setting: rank 16, alpha 32, 2e-4
    {
        "lora_rank": 16,
        "alpha_over_rank": 2.0,
        "use_rslora": False,
        "lora_dropout": 0.05,
        "learning_rate": 2e-4,
    },
    # few steps on short answers want a higher rate
    {
        "lora_rank": 16,
        "alpha_over_rank": 1.0,
        "use_rslora": False,
        "lora_dropout": 0.0,
        "learning_rate": 6e-4,
    },
)

TINY_SPACE = LoraSpace(
    learning_rates=(3e-4, 2e-2),  # a model of a few million parameters wants ten times more
    lora_ranks=(4, 8, 16),
)

TINY_START_POINTS: tuple[Point, ...] = tuple(
    point | {"learning_rate": 5e-3} for point in START_POINTS
)
