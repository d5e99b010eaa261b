"""How many trials a GPU's pack holds, for each size of Qwen3 and Qwen3.5: a Markdown table.

python -m tests.benchmarks.sizes --recipe samsum. The numbers are those that a sweep's plan tells;
no model and no GPU is needed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import tyro

from sweeps.recipes import RECIPES
from tests.benchmarks.packing.shapes import SHAPES
from trainables.config import BaseType, TrainingOptions
from trainables.errors import SweepAborted
from trainables.models.model_facts import ModelFacts, parse_facts, read_model_facts
from trainables.packing.sizing.choose import choose_capacity

CARDS_GIB = {
    "24 GB": 23.6,
    "40 GB": 39.5,
    "48 GB": 44.5,
    "80 GB": 79.2,
    "141 GB": 139.8,
}
"""Memory as torch tells it: of an RTX 4090, A100, L40S, H100 and H200."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Prints how many trials the packs of GPUs hold."""

    recipe: str = "samsum"
    """Whose rows' length, batch, scored rows and ranks are planned for."""
    base: BaseType = "nf4"
    """As of a sweep."""
    model: str | None = None
    """One more model: a folder with its config.json, or its name on the Hub."""


def list_facts() -> dict[str, ModelFacts]:
    return {name: parse_facts(shape) for name, shape in SHAPES.items()}


def format_table(
    facts: Mapping[str, ModelFacts], settings: TrainingOptions, rank: int
) -> Iterator[str]:
    yield f"| | {' | '.join(CARDS_GIB)} |"
    yield f"|---|{'---|' * len(CARDS_GIB)}"
    for name, shape in facts.items():
        cells = (_format_cell(shape, settings, rank, gib) for gib in CARDS_GIB.values())
        yield f"| {name} | {' | '.join(cells)} |"


def _format_cell(facts: ModelFacts, settings: TrainingOptions, rank: int, gib: float) -> str:
    try:
        capacity = choose_capacity(facts, settings, rank, gib)
    except SweepAborted:
        return "no"
    base = "bf16" if capacity.is_dequantised else "NF4"
    return f"{capacity.num_slots} {base}{'*' * capacity.is_checkpointed}"


def main(args: Args) -> None:
    config = replace(RECIPES[args.recipe](False), base=args.base)
    facts = list_facts()
    if args.model is not None:
        facts[args.model] = read_model_facts(args.model)
    for line in format_table(facts, config.settings, max(config.space.lora_ranks)):
        print(line)


if __name__ == "__main__":
    main(tyro.cli(Args, prog="python -m tests.benchmarks.sizes"))
