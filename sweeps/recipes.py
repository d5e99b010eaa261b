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
        sizes = {"eval_rows": 48, "max_length_tokens": 384, "max_new_tokens": 48}
        return _make_tiny("samsum", bundled.SAMSUM_DIR, presets.SAMSUM_TINY, num_trials=12, **sizes)
    return _make_full(
        "samsum",
        "Qwen/Qwen3-0.6B",
        presets.SAMSUM,
        num_rungs=4,  # replayed over measured trainings: tests.benchmarks.search_quality
        eval_rows=818,
        low_rung_eval_rows=200,
    )


def turkish_youtube(is_tiny: bool = False) -> SweepConfig:
    """Summarise Turkish videos of up to 25 minutes: Qwen3-4B, ranked by ROUGE-Lsum."""
    if is_tiny:
        sizes = {"eval_rows": 16, "max_length_tokens": 512, "max_new_tokens": 64}
        sizes |= {"batch_size": 4, "micro_batch_size": 4, "num_trials": 6}
        preset = presets.TURKISH_YOUTUBE_TINY
        return _make_tiny("turkish_youtube", bundled.TURKISH_YOUTUBE_DIR, preset, **sizes)
    return _make_full(
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
        sizes = {"eval_rows": 16, "max_length_tokens": 384, "max_new_tokens": 64, "num_trials": 6}
        encoder: dict[str, Any] = {"bertscore_encoder": str(bundled.MODEL_DIR)}
        preset, data = presets.WIKIPEDIA_PT_TINY, bundled.WIKIPEDIA_PT_DIR
        encoder |= {"bertscore": "on", "bertscore_layer": 2}
        return _make_tiny("wikipedia_pt", data, preset, **encoder, **sizes)
    sizes = {"batch_size": 8, "micro_batch_size": 2, "eval_rows": 100, "eval_batch_size": 32}
    sizes |= {"max_length_tokens": 4096 + 320, "max_new_tokens": 320}
    model = "Qwen/Qwen2.5-0.5B-Instruct"
    return _make_full("wikipedia_pt", model, presets.WIKIPEDIA_PT, bertscore="auto", **sizes)


def turkish_tweets(is_tiny: bool = False) -> SweepConfig:
    """Tell whether a Turkish tweet is neutral, negative or positive, ranked by accuracy."""
    if is_tiny:
        # the tiny model reads Turkish letter by letter, so its question is a short one
        options = TaskOptions(prompt="Duygu: {input}")
        sizes = {"max_steps": 180, "max_length_tokens": 128, "max_new_tokens": 16}
        return _make_tiny_labels("turkish_tweets", bundled.TURKISH_TWEETS_DIR, options, **sizes)
    sizes = {"eval_rows": 400, "max_length_tokens": 256, "max_new_tokens": 16}
    model = "Qwen/Qwen3-0.6B"
    return _make_full("turkish_tweets", model, presets.LABELS, max_steps=540, **sizes)


def table(is_tiny: bool = False) -> SweepConfig:
    """Your own rows: --data FILE --input COLUMN --target COLUMN --kind summarize or classify."""
    if is_tiny:
        options = TaskOptions(input="message", target="intent", kind="classify")
        sizes = {"max_steps": 60, "max_length_tokens": 192, "max_new_tokens": 48}
        return _make_tiny_labels("table", bundled.MESSAGES_DIR, options, **sizes)
    return _make_full("table", "Qwen/Qwen3-0.6B", presets.LABELS)


RECIPES: dict[str, Recipe] = {
    recipe.__name__: recipe
    for recipe in (samsum, turkish_youtube, wikipedia_pt, turkish_tweets, table)
}


def _make_full(task: str, model: str, preset: Preset, **options: Any) -> SweepConfig:
    """The task's sweep on a real model."""
    common = {"max_steps": 900, "batch_size": 16, "micro_batch_size": 16, "eval_batch_size": 64}
    return _make_sweep(task, model, preset, **common | options)


def _make_tiny(
    task: str, data: Path, preset: Preset, *, eval_rows: int, **options: Any
) -> SweepConfig:
    """The task's sweep on the bundled model and rows."""
    common = {"max_steps": 90, "num_finalists": 2, "num_final_seeds": 2}
    common |= {"eval_rows": eval_rows, "eval_batch_size": eval_rows}
    model, data_dir = str(bundled.MODEL_DIR), str(data)
    return _make_sweep(task, model, preset, tiny=True, data=data_dir, **common | options)


def _make_tiny_labels(
    task: str, data: Path, task_options: TaskOptions, **options: Any
) -> SweepConfig:
    """A tiny sweep with few rungs, because accuracy rises late."""
    common = {"num_trials": 8, "num_rungs": 2, "reduction_factor": 2, "eval_rows": 60}
    options |= common | {"task_options": task_options}
    return _make_tiny(task, data, presets.LABELS_TINY, **options)


def _make_sweep(
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
