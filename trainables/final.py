"""Score a finished adapter on the test split, with the untuned base beside it."""

from pathlib import Path

from peft import PeftModel

from trainables.base_model import load_base, load_tokenizer
from trainables.config import TrainingSettings
from trainables.evaluate import evaluate, fixed_slice
from trainables.memory import free_memory
from trainables.tasks import TASKS


def score(
    settings: TrainingSettings, adapter: Path, *, test_rows: int | None = None
) -> dict[str, dict[str, float]]:
    """Scores by what was scored: "validation_base", "test_base" and "test".

    The first is the untuned base on the rows of the trials' reports, the others are the base and
    the adapter on the test split.

    Args:
        settings: the sweep's settings.
        adapter: PEFT folder of the adapter.
        test_rows: how many test rows of a fixed order; None is all of them.
    """
    task = TASKS[settings.task]
    splits = task.load(settings.data)
    validation = fixed_slice(splits.validation, settings.eval_rows)
    test = fixed_slice(splits.test, len(splits.test) if test_rows is None else test_rows)
    tokenizer = load_tokenizer(settings.model)
    base = load_base(settings.model, settings.compute_dtype)
    scores = {
        "validation_base": evaluate(base, tokenizer, validation, task.language, settings),
        "test_base": evaluate(base, tokenizer, test, task.language, settings),
    }
    model = PeftModel.from_pretrained(base, str(adapter))
    scores["test"] = evaluate(model, tokenizer, test, task.language, settings)
    del base, model
    free_memory()
    return scores
