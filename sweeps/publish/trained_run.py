"""A finished sweep whose adapters answer rows as its test rows were answered."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.checks import sweep_json
from sweeps.checks.resume import check_model
from sweeps.config import SweepConfig, resolve_model
from sweeps.publish.best_folder import check_adapter, find_adapter, find_best_folder
from sweeps.records.paths import RunPaths, find_run
from trainables.config import TrainingSettings
from trainables.data.prepared_rows import read_facts
from trainables.data.rows import Row, Splits
from trainables.data.tokens import compute_prompt_limit, encode_rows
from trainables.errors import SweepAborted
from trainables.models.model_facts import ModelFacts, read_model_facts
from trainables.models.tokenizer_file import TokenizerFile
from trainables.process import COMPILES_NOTHING, make_cpu_environment, train_in_this_process

if TYPE_CHECKING:  # loads torch
    from trainables.metrics.eval_result import EvalResult


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What it takes to ask; nothing is loaded yet."""

    paths: RunPaths
    config: SweepConfig
    settings: TrainingSettings
    """The sweep's, with the place of its model and the batch size of now."""
    splits: Splits
    """What the prompts are made of; without rows."""
    facts: ModelFacts
    """The base's."""
    adapter: Path | None
    """PEFT folder; None is the untuned base."""

    def answer(
        self, windows: Iterable[Sequence[Row]], adapters: Sequence[Path | None]
    ) -> Iterator[list["EvalResult"]]:
        """What each adapter says to the rows of each window; loads torch and the base.

        Args:
            windows: rows without targets, which are answered in batches of like length.
            adapters: PEFT folders, one at most, and None for the untuned base.

        Raises:
            SweepAborted: the GPU's memory does not hold one row.
        """
        os.environ |= COMPILES_NOTHING
        train_in_this_process(make_cpu_environment())
        from trainables.predict import answer_rows  # loads torch

        return answer_rows(
            windows,
            self.settings,
            self.splits.scoring,
            self.facts,
            adapters,
            is_packed=self.config.engine == "packed",
        )

    def count_cut(self, rows: Sequence[Row]) -> tuple[int, int]:
        """The most tokens of a prompt, and how many of the rows' lose something for it."""
        settings = self.settings
        limit = compute_prompt_limit(settings.max_length_tokens, settings.max_new_tokens)
        tokenizer = TokenizerFile(settings.model)
        examples = encode_rows(tokenizer, rows, limit, thinking=settings.thinking)
        return limit, sum(example.is_cut for example in examples)


def open_trained_run(
    folder: Path,
    *,
    trial: str | None,
    model: str | None,
    batch_size: int | None = None,
    is_base: bool = False,
) -> TrainedRun:
    """The run with all checked that can be before torch is loaded.

    Args:
        trial: id of another trial than the winner.
        model: where the sweep's model is now; None is where it was.
        batch_size: None is the sweep's.
        is_base: no adapter is asked for.

    Raises:
        SweepAborted: there is no such run, trial or model, or one is damaged or another.
    """
    paths = find_run(folder)
    config = sweep_json.read_config(paths)
    adapter = None
    if not is_base:
        adapter = (
            find_best_folder(paths)
            if trial is None
            else find_adapter(paths, trial, config.storage)[1]
        )
        check_adapter(adapter)
    splits = read_facts(paths.rows)
    if splits.columns is None:
        raise SweepAborted(
            f"{paths.folder} is of an earlier version, which did not note what its prompts are "
            "made of",
            f"answer with the script in {paths.best / 'README.md'}, or sweep again",
        )
    place = resolve_model(model or config.model)
    facts = read_model_facts(place)
    check_model(paths, place)
    settings = replace(
        config.settings, model=place, eval_batch_size=batch_size or config.eval_batch_size
    )
    return TrainedRun(
        paths=paths, config=config, settings=settings, splits=splits, facts=facts, adapter=adapter
    )
