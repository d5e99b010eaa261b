"""What each recipe's sweep may vary, and the settings that it tries first."""

from dataclasses import dataclass

from search_spaces.lora import LoraSpace, Point


@dataclass(frozen=True)
class Preset:
    """A search space with its known-good points."""

    space: LoraSpace
    start_points: tuple[Point, ...]


def _point(
    rank: int, alpha_over_rank: float, rate: float, dropout: float = 0.05, use_rslora: bool = False
) -> Point:
    return {
        "lora_rank": rank,
        "alpha_over_rank": alpha_over_rank,
        "use_rslora": use_rslora,
        "lora_dropout": dropout,
        "learning_rate": rate,
    }


def _tiny(preset: Preset, space: LoraSpace, rates: tuple[float, float]) -> Preset:
    """The points with other learning rates: a model of a few million parameters wants ten times
    more."""
    points = zip(preset.start_points, rates, strict=True)
    return Preset(space, tuple(point | {"learning_rate": rate} for point, rate in points))


PLAIN = _point(16, 2.0, 2e-4)
"""The common plain setting: rank 16, alpha 32, 2e-4."""

SAMSUM = Preset(
    LoraSpace(rsloras=(False, True)),
    (
        # rank-stabilised: alpha / sqrt(rank) keeps a high rank's updates large
        _point(64, 0.5, 2e-4, use_rslora=True),
        PLAIN | {"lora_dropout": 0.0},
    ),
)
SAMSUM_TINY = _tiny(
    SAMSUM,
    LoraSpace(learning_rates=(3e-4, 2e-2), lora_ranks=(4, 8, 16, 64), rsloras=(False, True)),
    (5e-3, 5e-3),
)

TURKISH_YOUTUBE = Preset(
    LoraSpace(learning_rates=(5e-6, 5e-4)),  # the best rate falls with the batch, two rows here
    (
        _point(32, 1.0, 2e-5),  # long texts, two rows a step: a low rate, and a scaling of 1
        _point(32, 1.0, 1e-4),  # what LoRA sweeps of 4B models at batches of one to four found best
    ),
)
TURKISH_YOUTUBE_TINY = _tiny(
    TURKISH_YOUTUBE, LoraSpace(learning_rates=(1e-3, 8e-3), lora_ranks=(8, 16, 32)), (3e-3, 5e-3)
)

WIKIPEDIA_PT = Preset(
    LoraSpace(learning_rates=(3e-5, 2e-3)),  # 0.5B parameters: the best rate rises
    (PLAIN, _point(32, 1.0, 6e-4)),  # a small model's higher rate
)
WIKIPEDIA_PT_TINY = _tiny(WIKIPEDIA_PT, TURKISH_YOUTUBE_TINY.space, (3e-3, 5e-3))

LABELS = Preset(
    LoraSpace(learning_rates=(3e-5, 2e-3)),  # labels of one word bear more than summaries do
    (PLAIN, _point(16, 1.0, 6e-4, dropout=0.0)),  # few steps on short answers want a higher rate
)
"""For turkish_tweets, and for tables, of whose rows nothing is known."""
LABELS_TINY = _tiny(
    LABELS, LoraSpace(learning_rates=(3e-4, 2e-2), lora_ranks=(4, 8, 16)), (5e-3, 5e-3)
)
