"""Score a finished adapter on the test split, with the untuned base beside it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from peft import PeftModel

from trainables.base_model import load_base, load_tokenizer
from trainables.config import TrainingSettings
from trainables.evaluate import evaluate, fixed_slice
from trainables.memory import free_memory
from trainables.packing.capacity import Capacity
from trainables.packing.host import PackHost
from trainables.tasks import TASKS

Scores = dict[str, dict[str, float]]


def score(settings: TrainingSettings, adapter: Path, *, capacity: Capacity | None) -> Scores:
    """Scores by what was scored: "validation_base", "test_base" and "test".

    The first is the untuned base on the rows of the trials' reports, the others are the base and
    the adapter on the test split.

    Args:
        settings: the sweep's settings.
        adapter: PEFT folder of the adapter.
        capacity: of the packs that trained it; None scores as the solo engine does.
    """
    try:
        if capacity is None:
            return _by_transformers(settings, adapter)
        return _by_pack(settings, adapter, capacity)
    finally:
        free_memory()


def _by_transformers(settings: TrainingSettings, adapter: Path) -> Scores:
    task = TASKS[settings.task](settings.task_options)
    splits = task.load(settings.data)
    validation = fixed_slice(splits.validation, settings.eval_rows)
    test = fixed_slice(splits.test, len(splits.test))
    tokenizer = load_tokenizer(settings.model)
    base = load_base(settings.model, settings.compute_dtype)
    scores = {
        "validation_base": evaluate(base, tokenizer, validation, splits.scoring, settings),
        "test_base": evaluate(base, tokenizer, test, splits.scoring, settings),
    }
    model = PeftModel.from_pretrained(base, str(adapter))
    scores["test"] = evaluate(model, tokenizer, test, splits.scoring, settings)
    return scores


def _by_pack(settings: TrainingSettings, adapter: Path, capacity: Capacity) -> Scores:
    """A pack that no trial joins."""
    host = PackHost(settings, capacity)
    with ThreadPoolExecutor(1, thread_name_prefix="pack") as pool:
        loop = pool.submit(host.run)
        try:
            return host.final_scores(adapter).result()
        finally:
            host.close()
            loop.result()
