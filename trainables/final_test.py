"""Score finished adapters on the test split, with the untuned base beside them."""

from collections.abc import Mapping
from pathlib import Path

from peft import PeftModel

from trainables.checkpoint_storage import fetch_checkpoint
from trainables.config import TrainingSettings
from trainables.data.prepared_rows import fetch_rows, read_rows
from trainables.data.rows import select_fixed_slice
from trainables.metrics.eval_result import EvalResult
from trainables.models.base_model import load_base, load_tokenizer
from trainables.models.memory import free_memory
from trainables.packing.service.host import PackHost
from trainables.packing.sizing.capacity import Capacity
from trainables.solo.evaluate import evaluate


def score_final_test(
    settings: TrainingSettings, adapters: Mapping[str, Path], *, capacity: Capacity | None
) -> dict[str, EvalResult]:
    """Scores by what was scored: "validation_base", "test_base" and each adapter's name.

    The first is the untuned base on the rows of the trials' reports, the others are the base and
    the adapters on the test split.

    Args:
        adapters: PEFT folders by name.
        capacity: of the packs that trained them; None scores as the solo engine does.
    """
    try:
        if capacity is not None:
            host = PackHost(settings, capacity)  # a pack that no trial joins
            with host.run_in_thread():
                return host.run_final_test(adapters)
        fetch_rows(settings)
        splits = read_rows(settings.rows_dir)
        validation = select_fixed_slice(splits.validation, settings.eval_rows)
        test = select_fixed_slice(splits.test, len(splits.test))
        tokenizer = load_tokenizer(settings.model)
        base = load_base(settings.model, settings.compute_dtype, settings.base)
        scores = {
            "validation_base": evaluate(base, tokenizer, validation, splits.scoring, settings),
            "test_base": evaluate(base, tokenizer, test, splits.scoring, settings),
        }
        for name, folder in adapters.items():
            folder = fetch_checkpoint(settings.storage, folder, is_compared=True)
            model = PeftModel.from_pretrained(base, str(folder))
            scores[name] = evaluate(model, tokenizer, test, splits.scoring, settings)
            base = model.unload()
        return scores
    finally:
        free_memory()
