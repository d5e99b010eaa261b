"""An adapter merged into its base's weights: a folder that transformers loads without PEFT."""

import math
import re
import shutil
from pathlib import Path

from huggingface_hub import ModelCard

from sweeps.checks import sweep_json
from sweeps.checks.resume import check_model
from sweeps.publish.best_folder import ADAPTER_FILES, list_exported
from sweeps.publish.license import CARD_FILE
from sweeps.publish.usage_code import is_hub_id, load_merged_weights
from sweeps.records.paths import RunPaths
from trainables.config import BaseType
from trainables.errors import SweepAborted
from trainables.files import parse_json
from trainables.models.model_facts import read_model_facts

ADAPTER_OF = re.compile(r"^A (Q?LoRA) adapter for", re.M)
WEIGHTS_OF = r"The weights, with a \1 adapter merged in, of"
NOTES: dict[BaseType, str] = {
    "nf4": "These are whole weights in bfloat16. The adapter was merged into its base as NF4 holds "
    "it, dequantised: over that base it was trained and scored. The scores are those of the "
    "adapter over NF4; rounding the sum to bfloat16 changes few answers, and merging it into the "
    "base's original weights would change many more.",
    "bf16": "These are whole weights in bfloat16. The adapter was merged into its base's own "
    "weights: over these, not quantised, it was trained and scored. The scores are those of the "
    "adapter beside them; rounding the sum to bfloat16 changes few answers.",
}


def check_mergeable(paths: RunPaths, adapter: Path, card: str, target: Path) -> str:
    """The base of the adapter, Hub id or folder, which must be what it was, with room for its
    weights at the target, and a card that is the sweep's.
    """
    content = parse_json((adapter / ADAPTER_FILES[0]).read_text(encoding="utf-8"))
    base = str(content.get("base_model_name_or_path"))
    if not (is_hub_id(base) or Path(base).is_dir()):
        raise SweepAborted(
            f"the base {base} is not here, and --merge needs its weights",
            f"put its place into {adapter / ADAPTER_FILES[0]}, or leave out --merge",
        )
    _ = _make_card(card, "")
    facts = read_model_facts(base)
    check_model(paths, base)
    num_bytes = 2 * sum(map(math.prod, facts.weight_shapes.values()))
    folder = next(path for path in (target, *target.absolute().parents) if path.is_dir())
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < num_bytes:
        raise SweepAborted(
            f"the merged weights take {num_bytes / 2**30:.1f} GiB, and {folder} has "
            f"{free_bytes / 2**30:.1f} GiB left",
            "choose a folder on a disk with more space; for hub: name one with TMPDIR",
        )
    return base


def write_merged(paths: RunPaths, adapter: Path, card: str, base: str, folder: Path) -> None:
    """Fills the folder: weights, tokenizer, generation config and a card that loads them."""
    from trainables.models.merge import save_merged  # loads torch, which early errors do without

    config = sweep_json.read_config(paths)
    save_merged(base, adapter, folder, config.compute_dtype, config.base)
    for path in list_exported(adapter):
        if path.name not in (*ADAPTER_FILES, CARD_FILE):
            shutil.copyfile(path, folder / path.name)
    merged_card = _make_card(card, NOTES[config.base])
    (folder / CARD_FILE).write_text(merged_card, encoding="utf-8", newline="")


def _make_card(card: str, note: str) -> str:
    """An adapter's card, of the weights that it is in now, with a note on these."""
    read = ModelCard(card)
    read.data["library_name"] = "transformers"
    read.data["tags"] = [tag for tag in read.data.get("tags") or [] if tag != "peft"]
    if "base_model_relation" in read.data:
        read.data["base_model_relation"] = "finetune"
    body = ADAPTER_OF.sub(WEIGHTS_OF, read.text, count=1)
    body = body.replace("## Use\n", f"## Use\n\n{note}\n", 1)
    return f"---\n{read.data.to_yaml()}\n---\n{load_merged_weights(body)}"
