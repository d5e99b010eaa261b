"""Answer rows with an adapter, or with the untuned base, as the final test does."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from trainables.config import TrainingSettings
from trainables.data.rows import Row, Scoring
from trainables.errors import SweepAborted
from trainables.metrics.eval_result import EvalResult
from trainables.models.base_model import get_device, load_base, load_tokenizer
from trainables.models.delta_kernels import INSTALL, find_fault
from trainables.models.memory import is_out_of_memory, retry_with_less_memory
from trainables.models.model_facts import ModelFacts
from trainables.packing.compute.peft_format import read_adapter
from trainables.packing.evaluation.evaluator import PackEvaluator
from trainables.packing.service.loading import make_pack
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.choose import USABLE_FRAC
from trainables.packing.sizing.memory_model import count_eval_positions, predict_pack
from trainables.solo.evaluate import evaluate

_AMPERE = (8, 0)
"""Compute capability of the first GPUs with the flash attention of packs."""


def answer_rows(
    windows: Iterable[Sequence[Row]],
    settings: TrainingSettings,
    scoring: Scoring,
    facts: ModelFacts,
    adapters: Sequence[Path | None],
    *,
    is_packed: bool,
) -> Iterator[list[EvalResult]]:
    """What each adapter says to the rows of each window, with labels' probabilities; they are not
    scored.

    Args:
        windows: rows without targets; those of a window are answered in batches of like length.
        settings: of the sweep; eval_batch_size rows of the longest kind are answered together.
        adapters: PEFT folders, one at most, and None for the untuned base.
        is_packed: whether a pack answers, as in sweeps of the packed engine. GPUs that packs do not
            run on, or whose kernels for hybrids are not installed, answer as solo trials do.

    Raises:
        SweepAborted: the GPU's memory does not hold one row.
    """
    can_pack = True
    if torch.cuda.is_available():
        capability = torch.cuda.get_device_capability()
        needs_fla = facts.is_hybrid and settings.compute_dtype == "bfloat16"
        fault = find_fault(capability[0]) if needs_fla else None
        # No gradients are needed, which some Triton gets wrong.
        can_pack = capability >= _AMPERE and (fault is None or fault.remedy != INSTALL)
    answer_window = _answer_packed if is_packed and can_pack else _answer_solo
    try:
        yield from answer_window(windows, settings, scoring, facts, adapters)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        _raise_no_room()


def _answer_packed(
    windows: Iterable[Sequence[Row]],
    settings: TrainingSettings,
    scoring: Scoring,
    facts: ModelFacts,
    adapters: Sequence[Path | None],
) -> Iterator[list[EvalResult]]:
    tokenizer = load_tokenizer(settings.model)
    capacity = _choose_capacity(settings, facts, adapters)
    pack, max_tokens = make_pack(settings, capacity), capacity.eval_tokens
    with pack.hold_adapters(adapters) as slots:
        for rows in windows:
            evaluator = PackEvaluator(
                tokenizer,
                rows,
                scoring,
                settings,
                max_tokens,
                is_graphed=get_device().type == "cuda",
                state_positions=pack.model.state_positions,
            )
            yield retry_with_less_memory(
                partial(evaluator.evaluate, pack.model, slots),
                evaluator.use_less_memory,
                _raise_no_room,
                "a batch",
            )
            max_tokens = evaluator.max_tokens


def _answer_solo(
    windows: Iterable[Sequence[Row]],
    settings: TrainingSettings,
    scoring: Scoring,
    facts: ModelFacts,
    adapters: Sequence[Path | None],
) -> Iterator[list[EvalResult]]:
    tokenizer = load_tokenizer(settings.model)
    model: Any = load_base(settings.model, settings.compute_dtype, settings.base)
    for folder in filter(None, adapters):
        model = PeftModel.from_pretrained(model, str(folder))
    for rows in windows:
        results = []
        for adapter in adapters:
            is_off = adapter is None and isinstance(model, PeftModel)
            with model.disable_adapter() if is_off else nullcontext():
                results.append(evaluate(model, tokenizer, rows, scoring, settings))
        yield results


def _choose_capacity(
    settings: TrainingSettings, facts: ModelFacts, adapters: Sequence[Path | None]
) -> Capacity:
    """A pack that never trains; its base is in the compute type where that fits."""
    num_rows = len(adapters) * settings.eval_batch_size
    capacity = Capacity(
        num_slots=len(adapters),
        max_rank=max((read_adapter(one)[1].lora_rank for one in filter(None, adapters)), default=8),
        max_tokens=settings.max_length_tokens,
        eval_tokens=num_rows * count_eval_positions(facts, settings),
        is_dequantised=True,
        predicted_gib=0.0,
    )
    if torch.cuda.is_available():
        peak = predict_pack(facts, settings, capacity)
        usable = USABLE_FRAC * torch.cuda.mem_get_info()[0]
        fits = peak.shared + peak.evaluation <= usable
        capacity = replace(capacity, is_dequantised=fits or settings.base == "bf16")
    return capacity


def _raise_no_room() -> None:
    raise SweepAborted(
        "the GPU's memory is too small for a batch", "lower --batch-size, then repeat the command"
    )
