"""Score a finished adapter on the test split, with the untuned base beside it."""

from collections.abc import Sequence
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from trainables.base_model import device, load_base, load_tokenizer
from trainables.config import TrainingSettings
from trainables.evaluate import evaluate, fixed_slice
from trainables.memory import free_memory
from trainables.packing.adapters import Adapters
from trainables.packing.capacity import Capacity
from trainables.packing.model import PackedModel
from trainables.packing.peft_format import read_adapter
from trainables.packing.score import score_slots
from trainables.packing.slot import scaling
from trainables.tasks import TASKS
from trainables.tasks.base import Row, Scoring

Scores = dict[str, dict[str, float]]
BASE, TUNED = 0, 1
"""Slots of the two that are scored together."""


def score(
    settings: TrainingSettings,
    adapter: Path,
    *,
    capacity: Capacity | None,
    test_rows: int | None = None,
) -> Scores:
    """Scores by what was scored: "validation_base", "test_base" and "test".

    The first is the untuned base on the rows of the trials' reports, the others are the base and
    the adapter on the test split.

    Args:
        settings: the sweep's settings.
        adapter: PEFT folder of the adapter.
        capacity: of the packs that trained it; None scores as the solo engine does.
        test_rows: how many test rows of a fixed order; None is all of them.
    """
    task = TASKS[settings.task](settings.task_options)
    splits = task.load(settings.data)
    validation = fixed_slice(splits.validation, settings.eval_rows)
    test = fixed_slice(splits.test, len(splits.test) if test_rows is None else test_rows)
    tokenizer = load_tokenizer(settings.model)
    if capacity is None:
        scores = _by_transformers(settings, adapter, tokenizer, task.scoring, validation, test)
    else:
        scores = _by_pack(settings, adapter, tokenizer, task.scoring, validation, test, capacity)
    free_memory()
    return scores


def _by_transformers(
    settings: TrainingSettings,
    adapter: Path,
    tokenizer: PreTrainedTokenizerBase,
    scoring: Scoring,
    validation: Sequence[Row],
    test: Sequence[Row],
) -> Scores:
    base = load_base(settings.model, settings.compute_dtype)
    scores = {
        "validation_base": evaluate(base, tokenizer, validation, scoring, settings),
        "test_base": evaluate(base, tokenizer, test, scoring, settings),
    }
    model = PeftModel.from_pretrained(base, str(adapter))
    scores["test"] = evaluate(model, tokenizer, test, scoring, settings)
    return scores


def _by_pack(
    settings: TrainingSettings,
    adapter: Path,
    tokenizer: PreTrainedTokenizerBase,
    scoring: Scoring,
    validation: Sequence[Row],
    test: Sequence[Row],
    capacity: Capacity,
) -> Scores:
    """Base and adapter answer in one batch; the base is a slot whose scaling is zero."""
    model = _two_slots(settings, adapter, capacity.is_dequantised)

    def scores(slots: Sequence[int], rows: Sequence[Row]) -> list[dict[str, float]]:
        return score_slots(
            model, slots, tokenizer, rows, scoring, settings,
            max_tokens_per_batch=capacity.eval_tokens, is_graphed=device().type == "cuda",
        )  # fmt: skip

    (validation_base,) = scores((BASE,), validation)
    test_base, tuned = scores((BASE, TUNED), test)
    return {"validation_base": validation_base, "test_base": test_base, "test": tuned}


def _two_slots(settings: TrainingSettings, adapter: Path, is_dequantised: bool) -> PackedModel:
    weights, params = read_adapter(adapter)
    base = load_base(settings.model, settings.compute_dtype)
    adapters = Adapters(base.config, 2, params.lora_rank, base.device)
    views = adapters.views(adapters.params_KP[TUNED], params.lora_rank, params.target_modules)
    for name, value in weights.items():
        views[name].copy_(value)
    adapters.set_scaling(TUNED, scaling(params), params.target_modules)
    return PackedModel(base, adapters, is_dequantised, is_compiled=False)
