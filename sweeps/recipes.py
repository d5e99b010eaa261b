"""Named sweeps: one function a sweep, which returns its config."""

import time
from collections.abc import Callable

from search_spaces import samsum as samsum_space
from search_spaces import table as table_space
from search_spaces import turkish_tweets as turkish_tweets_space
from search_spaces import turkish_youtube as turkish_youtube_space
from search_spaces import wikipedia_pt as wikipedia_pt_space
from sweeps.config import SweepConfig
from trainables import tiny as bundled
from trainables.config import TaskOptions

Recipe = Callable[[bool], SweepConfig]
"""Takes is_tiny: whether to use the bundled model, data and budget."""


def samsum(is_tiny: bool = False) -> SweepConfig:
    """Summarise chats: Qwen3-0.6B on SAMSum, ranked by ROUGE-Lsum on validation."""
    if is_tiny:
        return SweepConfig(
            recipe="samsum",
            task="samsum",
            tiny=True,
            num_finalists=2,
            num_final_seeds=2,
            model=str(bundled.MODEL_DIR),
            data=str(bundled.SAMSUM_DIR),
            space=samsum_space.TINY_SPACE,
            start_points=samsum_space.TINY_START_POINTS,
            num_trials=12,
            max_steps=90,
            eval_rows=48,
            eval_batch_size=48,
            max_new_tokens=48,
            max_length_tokens=384,
            name=_dated("samsum-tiny"),
        )
    return SweepConfig(
        recipe="samsum",
        task="samsum",
        model="Qwen/Qwen3-0.6B",
        space=samsum_space.SPACE,
        start_points=samsum_space.START_POINTS,
        num_trials=32,
        max_steps=900,
        num_rungs=4,  # replayed over measured trainings: tests.benchmarks.search_quality
        batch_size=16,
        micro_batch_size=16,
        eval_rows=818,
        low_rung_eval_rows=200,
        eval_batch_size=64,
        name=_dated("samsum"),
    )


def turkish_youtube(is_tiny: bool = False) -> SweepConfig:
    """Summarise Turkish videos of up to 25 minutes: Qwen3-4B, ranked by ROUGE-Lsum."""
    if is_tiny:
        return SweepConfig(
            recipe="turkish_youtube",
            task="turkish_youtube",
            tiny=True,
            num_finalists=2,
            num_final_seeds=2,
            model=str(bundled.MODEL_DIR),
            data=str(bundled.TURKISH_YOUTUBE_DIR),
            space=turkish_youtube_space.TINY_SPACE,
            start_points=turkish_youtube_space.TINY_START_POINTS,
            num_trials=6,
            max_steps=90,
            batch_size=4,
            micro_batch_size=4,
            eval_rows=16,
            eval_batch_size=16,
            max_length_tokens=512,
            max_new_tokens=64,
            name=_dated("turkish-youtube-tiny"),
        )
    return SweepConfig(
        recipe="turkish_youtube",
        task="turkish_youtube",
        model="Qwen/Qwen3-4B",
        space=turkish_youtube_space.SPACE,
        start_points=turkish_youtube_space.START_POINTS,
        num_trials=24,
        max_steps=520,  # two epochs of 520 rows
        batch_size=2,
        micro_batch_size=1,
        eval_rows=65,
        eval_batch_size=8,
        max_length_tokens=8192 + 1536,
        max_new_tokens=1536,  # the longest of 130 summaries has 1,503 tokens
        name=_dated("turkish-youtube"),
    )


def wikipedia_pt(is_tiny: bool = False) -> SweepConfig:
    """Summarise Portuguese articles: Qwen2.5-0.5B-Instruct on --data DIR, by ROUGE-Lsum."""
    if is_tiny:
        return SweepConfig(
            recipe="wikipedia_pt",
            task="wikipedia_pt",
            tiny=True,
            num_finalists=2,
            num_final_seeds=2,
            model=str(bundled.MODEL_DIR),
            data=str(bundled.WIKIPEDIA_PT_DIR),
            space=wikipedia_pt_space.TINY_SPACE,
            start_points=wikipedia_pt_space.TINY_START_POINTS,
            num_trials=6,
            max_steps=90,
            eval_rows=16,
            eval_batch_size=16,
            max_length_tokens=384,
            max_new_tokens=64,
            bertscore="on",
            bertscore_encoder=str(bundled.MODEL_DIR),
            bertscore_layer=2,
            name=_dated("wikipedia-pt-tiny"),
        )
    return SweepConfig(
        recipe="wikipedia_pt",
        task="wikipedia_pt",
        model="Qwen/Qwen2.5-0.5B-Instruct",
        space=wikipedia_pt_space.SPACE,
        start_points=wikipedia_pt_space.START_POINTS,
        num_trials=32,
        max_steps=900,
        batch_size=8,
        micro_batch_size=2,
        eval_rows=100,
        eval_batch_size=32,
        max_length_tokens=4096 + 320,
        max_new_tokens=320,
        bertscore="auto",
        name=_dated("wikipedia-pt"),
    )


def turkish_tweets(is_tiny: bool = False) -> SweepConfig:
    """Tell whether a Turkish tweet is neutral, negative or positive, ranked by accuracy."""
    if is_tiny:
        return SweepConfig(
            recipe="turkish_tweets",
            task="turkish_tweets",
            tiny=True,
            num_finalists=2,
            num_final_seeds=2,
            model=str(bundled.MODEL_DIR),
            # the tiny model reads Turkish letter by letter, so its question is a short one
            task_options=TaskOptions(prompt="Duygu: {Tweets}"),
            data=str(bundled.TURKISH_TWEETS_DIR),
            space=turkish_tweets_space.TINY_SPACE,
            start_points=turkish_tweets_space.TINY_START_POINTS,
            num_trials=8,
            max_steps=180,
            num_rungs=2,  # accuracy rises late
            reduction_factor=2,
            eval_rows=60,
            eval_batch_size=60,
            max_length_tokens=128,
            max_new_tokens=16,
            name=_dated("turkish-tweets-tiny"),
        )
    return SweepConfig(
        recipe="turkish_tweets",
        task="turkish_tweets",
        model="Qwen/Qwen3-0.6B",
        space=turkish_tweets_space.SPACE,
        start_points=turkish_tweets_space.START_POINTS,
        num_trials=32,
        max_steps=540,
        batch_size=16,
        micro_batch_size=16,
        eval_rows=400,
        eval_batch_size=64,
        max_length_tokens=256,
        max_new_tokens=16,
        name=_dated("turkish-tweets"),
    )


def table(is_tiny: bool = False) -> SweepConfig:
    """Your own rows: --data FILE --input COLUMN --target COLUMN --kind summarize or classify."""
    if is_tiny:
        return SweepConfig(
            recipe="table",
            task="table",
            tiny=True,
            num_finalists=2,
            num_final_seeds=2,
            model=str(bundled.MODEL_DIR),
            task_options=TaskOptions(input="message", target="intent", kind="classify"),
            data=str(bundled.MESSAGES_DIR),
            space=table_space.TINY_SPACE,
            start_points=table_space.TINY_START_POINTS,
            num_trials=8,
            max_steps=60,
            num_rungs=2,  # accuracy rises late
            reduction_factor=2,
            eval_rows=60,
            eval_batch_size=60,
            max_length_tokens=192,
            max_new_tokens=48,
            name=_dated("table-tiny"),
        )
    return SweepConfig(
        recipe="table",
        task="table",
        model="Qwen/Qwen3-0.6B",
        space=table_space.SPACE,
        start_points=table_space.START_POINTS,
        num_trials=32,
        max_steps=900,
        batch_size=16,
        micro_batch_size=16,
        eval_batch_size=64,
        name=_dated("table"),
    )


RECIPES: dict[str, Recipe] = {
    "samsum": samsum,
    "turkish_youtube": turkish_youtube,
    "wikipedia_pt": wikipedia_pt,
    "turkish_tweets": turkish_tweets,
    "table": table,
}


def _dated(name: str) -> str:
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
