"""The YAML of a model card, by which the Hub files and finds an adapter."""

import math
import re

from huggingface_hub import EvalResult, ModelCardData

from sweeps.publish.card_facts import CardFacts
from sweeps.publish.usage_code import is_hub_id
from sweeps.records.redact import join_lines
from trainables.config import Kind, Language
from trainables.metrics.registry import PER_LABEL

PIPELINE_TAG = "text-generation"
LANGUAGE_CODES: dict[Language, str] = {"english": "en", "turkish": "tr", "portuguese": "pt"}
"""ISO 639-1."""
TASK_TYPES: dict[Kind, str] = {
    "summarize": "summarization",
    "classify": "text-classification",
    "generate": PIPELINE_TAG,
    "chat": PIPELINE_TAG,
}
METRIC_TYPES = {
    **{"rouge": "rouge", "bertscore": "bertscore", "macro_f1": "f1", "token_f1": "f1"},
    **{"mcc": "matthews_correlation", "eval_loss": "loss", "f1_": "f1"},
    **{"precision_": "precision", "recall_": "recall"},
}
"""What the Hub calls our metrics, by how their names begin; others are called as they are here."""


def make_metadata(facts: CardFacts) -> str:
    """The front matter; a local base or dataset is left out, for the Hub takes only its own ids."""
    base = facts.base_model if is_hub_id(facts.base_model) else None
    dataset = facts.dataset_name
    is_nf4 = facts.settings.base == "nf4"
    data = ModelCardData(
        library_name="peft",
        pipeline_tag=PIPELINE_TAG,
        base_model=base,
        datasets=[dataset] if is_hub_id(dataset) else None,
        language=[LANGUAGE_CODES[facts.language]] if facts.language else None,
        tags=["lora", *(["qlora"] if is_nf4 else []), "hyperparameter-search", "peft"],
        model_name=join_lines(facts.sweep_name),
        eval_results=_list_results(facts),
    )
    for name, value in facts.license.items():
        data[name] = value
    if base:
        data["base_model_relation"] = "adapter"
    return data.to_yaml()


def _list_results(facts: CardFacts) -> list[EvalResult]:
    """The adapter's own finite scores; those of the untuned base and of baselines are not its, and
    those of single labels stand in the text, unless one ranks."""
    dataset = facts.dataset_name
    slug = re.sub(r"[^A-Za-z0-9.-]+", "-", dataset).strip("-.") or "local"
    return [
        EvalResult(
            task_type=TASK_TYPES[facts.scoring.kind],
            task_name=join_lines(facts.task),
            dataset_name=dataset,
            dataset_type=dataset if is_hub_id(dataset) else slug,
            dataset_revision=facts.dataset_revision,
            dataset_split=split,
            metric_type=next(
                (name for start, name in METRIC_TYPES.items() if metric.startswith(start)), metric
            ),
            metric_name=metric,
            metric_value=float(value),
        )
        for split, metrics in facts.outcome.scores.items()
        if split in ("validation", "test")
        for metric, value in metrics.items()
        if math.isfinite(value)
        if metric == facts.metric.name or not metric.startswith(PER_LABEL)
    ]
