"""Named sweeps: one function a sweep, which returns its config."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from search_spaces import presets
from search_spaces.presets import Preset
from sweeps.config import SweepConfig
from trainables import tiny as bundled
from trainables.config import TaskOptions

Recipe = Callable[[bool], SweepConfig]
"""Takes is_tiny: whether to use the bundled model, data and budget."""


def samsum(is_tiny: bool = False) -> SweepConfig:
    """Summarise chats: Qwen3-0.6B on SAMSum, ranked by ROUGE-Lsum on validation."""
    if is_tiny:
        return _tiny(
            "samsum",
            bundled.SAMSUM_DIR,
            presets.SAMSUM_TINY,
            num_trials=12,
            max_steps=90,
            eval_rows=48,
            eval_batch_size=48,
            max_new_tokens=48,
            max_length_tokens=384,
        )
    return _sweep(
        "samsum",
        "Qwen/Qwen3-0.6B",
        presets.SAMSUM,
        num_trials=32,
        max_steps=900,
        num_rungs=4,  # replayed over measured trainings: tests.benchmarks.search_quality
        batch_size=16,
        micro_batch_size=16,
        eval_rows=818,
        low_rung_eval_rows=200,
        eval_batch_size=64,
    )


def turkish_youtube(is_tiny: bool = False) -> SweepConfig:
    """Summarise Turkish videos of up to 25 minutes: Qwen3-4B, ranked by ROUGE-Lsum."""
    if is_tiny:
        return _tiny(
            "turkish_youtube",
            bundled.TURKISH_YOUTUBE_DIR,
            presets.TURKISH_YOUTUBE_TINY,
            num_trials=6,
            max_steps=90,
            batch_size=4,
            micro_batch_size=4,
            eval_rows=16,
            eval_batch_size=16,
            max_length_tokens=512,
            max_new_tokens=64,
        )
    return _sweep(
        "turkish_youtube",
        "Qwen/Qwen3-4B",
        presets.TURKISH_YOUTUBE,
        num_trials=24,
        max_steps=520,  # two epochs of 520 rows
        batch_size=2,
        micro_batch_size=1,
        eval_rows=65,
        eval_batch_size=8,
        max_length_tokens=8192 + 1536,
        max_new_tokens=1536,  # the longest of 130 summaries has 1,503 tokens
    )


def wikipedia_pt(is_tiny: bool = False) -> SweepConfig:
    """Summarise Portuguese articles: Qwen2.5-0.5B-Instruct on --data DIR, by ROUGE-Lsum."""
    if is_tiny:
        return _tiny(
            "wikipedia_pt",
            bundled.WIKIPEDIA_PT_DIR,
            presets.WIKIPEDIA_PT_TINY,
            num_trials=6,
            max_steps=90,
            eval_rows=16,
            eval_batch_size=16,
            max_length_tokens=384,
            max_new_tokens=64,
            bertscore="on",
            bertscore_encoder=str(bundled.MODEL_DIR),
            bertscore_layer=2,
        )
    return _sweep(
        "wikipedia_pt",
        "Qwen/Qwen2.5-0.5B-Instruct",
        presets.WIKIPEDIA_PT,
        num_trials=32,
        max_steps=900,
        batch_size=8,
        micro_batch_size=2,
        eval_rows=100,
        eval_batch_size=32,
        max_length_tokens=4096 + 320,
        max_new_tokens=320,
        bertscore="auto",
    )


def turkish_tweets(is_tiny: bool = False) -> SweepConfig:
    """Tell whether a Turkish tweet is neutral, negative or positive, ranked by accuracy."""
    if is_tiny:
        return _tiny(
            "turkish_tweets",
            bundled.TURKISH_TWEETS_DIR,
            presets.LABELS_TINY,
            # the tiny model reads Turkish letter by letter, so its question is a short one
            task_options=TaskOptions(prompt="Duygu: {Tweets}"),
            num_trials=8,
            max_steps=180,
            num_rungs=2,  # accuracy rises late
            reduction_factor=2,
            eval_rows=60,
            eval_batch_size=60,
            max_length_tokens=128,
            max_new_tokens=16,
        )
    return _sweep(
        "turkish_tweets",
        "Qwen/Qwen3-0.6B",
        presets.LABELS,
        num_trials=32,
        max_steps=540,
        batch_size=16,
        micro_batch_size=16,
        eval_rows=400,
        eval_batch_size=64,
        max_length_tokens=256,
        max_new_tokens=16,
    )


def table(is_tiny: bool = False) -> SweepConfig:
    """Your own rows: --data FILE --input COLUMN --target COLUMN --kind summarize or classify."""
    if is_tiny:
        return _tiny(
            "table",
            bundled.MESSAGES_DIR,
            presets.LABELS_TINY,
            task_options=TaskOptions(input="message", target="intent", kind="classify"),
            num_trials=8,
            max_steps=60,
            num_rungs=2,  # accuracy rises late
            reduction_factor=2,
            eval_rows=60,
            eval_batch_size=60,
            max_length_tokens=192,
            max_new_tokens=48,
        )
    return _sweep(
        "table",
        "Qwen/Qwen3-0.6B",
        presets.LABELS,
        num_trials=32,
        max_steps=900,
        batch_size=16,
        micro_batch_size=16,
        eval_batch_size=64,
    )


RECIPES: dict[str, Recipe] = {
    "samsum": samsum,
    "turkish_youtube": turkish_youtube,
    "wikipedia_pt": wikipedia_pt,
    "turkish_tweets": turkish_tweets,
    "table": table,
}


def _tiny(task: str, data: Path, preset: Preset, **options: Any) -> SweepConfig:
    """The task's sweep on the bundled model and rows."""
    finals = {"num_finalists": 2, "num_final_seeds": 2}
    model = str(bundled.MODEL_DIR)
    return _sweep(task, model, preset, tiny=True, data=str(data), **finals, **options)


def _sweep(
    task: str, model: str, preset: Preset, *, tiny: bool = False, **options: Any
) -> SweepConfig:
    """A sweep that is called after its task and the time."""
    name = f"{task.replace('_', '-')}{'-tiny' if tiny else ''}"
    return SweepConfig(
        recipe=task,
        task=task,
        model=model,
        tiny=tiny,
        space=preset.space,
        start_points=preset.start_points,
        name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}",
        **options,
    )
