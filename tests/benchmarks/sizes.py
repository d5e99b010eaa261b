"""How many trials a GPU's pack holds, for each size of Qwen3 and Qwen3.5: a Markdown table.

python -m tests.benchmarks.sizes --recipe samsum. The numbers are those that a sweep's plan tells;
no model and no GPU is needed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tyro

from sweeps.recipes import RECIPES
from trainables.config import BaseType, TrainingOptions
from trainables.errors import SweepAborted
from trainables.models.model_facts import ModelFacts, facts_of, read_model_facts
from trainables.packing.sizing.choose import choose

CARDS_GIB = {
    "24 GB": 23.6,
    "40 GB": 39.5,
    "48 GB": 44.5,
    "80 GB": 79.2,
    "141 GB": 139.8,
}
"""Memory as torch tells it: of an RTX 4090, A100, L40S, H100 and H200."""
_HYBRID = {"linear_num_key_heads": 16, "head_dim": 256, "vocab_size": 248_320}
_SHAPES: dict[str, tuple[int, int, int, int, int, dict[str, int]]] = {
    "Qwen3-0.6B": (28, 1024, 3072, 16, 8, {}),
    "Qwen3-1.7B": (28, 2048, 6144, 16, 8, {}),
    "Qwen3-4B": (36, 2560, 9728, 32, 8, {}),
    "Qwen3-8B": (36, 4096, 12_288, 32, 8, {}),
    "Qwen3-14B": (40, 5120, 17_408, 40, 8, {}),
    "Qwen3-32B": (64, 5120, 25_600, 64, 8, {}),
    "Qwen3.5-0.8B": (24, 1024, 3584, 8, 2, _HYBRID | {"linear_num_value_heads": 16}),
    "Qwen3.5-4B": (32, 2560, 9216, 16, 4, _HYBRID | {"linear_num_value_heads": 32}),
    "Qwen3.5-9B": (32, 4096, 12_288, 16, 4, _HYBRID | {"linear_num_value_heads": 32}),
    "Qwen3.5-27B": (64, 5120, 17_408, 24, 4, _HYBRID | {"linear_num_value_heads": 48}),
}
"""Layers, width of the hidden state and of the feed-forward, heads of queries and of keys, and what
else config.json says (huggingface.co/Qwen, 2026-11)."""
_UNTIED = ("Qwen3-8B", "Qwen3-14B", "Qwen3-32B", "Qwen3.5-9B", "Qwen3.5-27B")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Prints how many trials the packs of GPUs hold."""

    recipe: str = "samsum"
    """Whose rows' length, batch, scored rows and ranks are planned for."""
    base: BaseType = "nf4"
    """As of a sweep."""
    model: str | None = None
    """One more model: a folder with its config.json, or its name on the Hub."""


def facts_by_name() -> dict[str, ModelFacts]:
    """Every size's shape."""
    return {name: facts_of(_config(name)) for name in _SHAPES}


def _config(name: str) -> Mapping[str, Any]:
    num_layers, hidden, wide, num_heads, num_kv_heads, others = _SHAPES[name]
    return {
        "model_type": "qwen3_5_text" if others else "qwen3",
        "num_hidden_layers": num_layers,
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": 128,
        "vocab_size": 151_936,
        "tie_word_embeddings": name not in _UNTIED,
        **others,
    }


def table(facts: Mapping[str, ModelFacts], settings: TrainingOptions, rank: int) -> Iterator[str]:
    """The lines of the table."""
    yield f"| | {' | '.join(CARDS_GIB)} |"
    yield f"|---|{'---|' * len(CARDS_GIB)}"
    for name, shape in facts.items():
        cells = (_cell(shape, settings, rank, gib) for gib in CARDS_GIB.values())
        yield f"| {name} | {' | '.join(cells)} |"


def _cell(facts: ModelFacts, settings: TrainingOptions, rank: int, gib: float) -> str:
    try:
        capacity = choose(facts, settings, rank, gib)
    except SweepAborted:
        return "no"
    base = "bf16" if capacity.is_dequantised else "NF4"
    return f"{capacity.num_slots} {base}{'*' * capacity.is_checkpointed}"


def main(args: Args) -> None:
    """Prints the table."""
    config = replace(RECIPES[args.recipe](False), base=args.base)
    facts = facts_by_name()
    if args.model is not None:
        facts[args.model] = read_model_facts(args.model)
    for line in table(facts, config.settings, max(config.space.lora_ranks)):
        print(line)


if __name__ == "__main__":
    main(tyro.cli(Args, prog="python -m tests.benchmarks.sizes"))
