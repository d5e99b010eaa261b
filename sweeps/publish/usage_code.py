"""The script of a model card that loads the adapter and answers as the scored answers were made."""

import re
from pathlib import Path
from string import Formatter

from sweeps.publish.templates import load_template
from trainables.config import TrainingOptions
from trainables.data.rows import Scoring
from trainables.data.tokens import compute_prompt_limit
from trainables.errors import SweepAborted

ADAPTER_LINE = 'adapter = "."  # the folder of this card'
MERGED_LINE = 'model_path = "."  # the folder of this card'
"""The script's lines that an upload points at a name on the Hub."""

MERGED_LOAD = f"""\
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

{MERGED_LINE}
device = "cuda" if torch.cuda.is_available() else "cpu"
tokenizer = AutoTokenizer.from_pretrained(model_path)
model = AutoModelForCausalLM.from_pretrained(
    model_path, dtype=torch.DTYPE, device_map={{"": device}}
).eval()
"""


def write_usage_script(
    *,
    base_model: str,
    prompt_template: str,
    source: str,
    scoring: Scoring,
    options: TrainingOptions,
    system_prompt: str | None = None,
) -> str:
    """A script that answers as scoring did: the prompt is cut alike, ends and labels are the same.

    A base in a folder is read from adapter_config.json, so that its path stays off the card.

    Args:
        source: name in the template of the text that a long prompt loses the end of.
        system_prompt: what stands before every prompt; a conversation's earlier turns are given to
            the script's answer as its history, which may have a system prompt of its own.
    """
    before, after, names = _split_template(prompt_template, source)
    template = load_template("card_script.py.j2", literal=repr)
    return template.render(
        is_hub=is_hub_id(base_model),
        is_nf4=options.base == "nf4",
        base=base_model,
        adapter_line=ADAPTER_LINE,
        dtype=options.compute_dtype,
        limit=compute_prompt_limit(options.max_length_tokens, options.max_new_tokens),
        thinking=options.thinking,
        before=before,
        after=after,
        source=source,
        has_source=source in names,
        columns=dict.fromkeys(names, "Put your text here."),
        system=[{"role": "system", "content": system_prompt}] if system_prompt else [],
        labels=list(scoring.labels) if scoring.kind == "classify" else None,
    )


def load_merged_weights(card: str) -> str:
    """The card of an adapter with a script that loads merged weights.

    Raises:
        SweepAborted: the card has no such script.
    """
    load = re.compile(
        r"^import torch\nfrom peft import .*?dtype=torch\.(\w+),.*?"
        r"^model = PeftModel\.from_pretrained\(model, adapter\)\.eval\(\)\n",
        re.M | re.S,
    )
    match = load.search(card)
    if match is None:
        raise SweepAborted(
            "the model card's script loads no adapter, so none can be made for merged weights",
            "put the script under Use in README.md back as the sweep wrote it",
        )
    return card.replace(match[0], MERGED_LOAD.replace("DTYPE", match[1]))


def is_hub_id(name: str) -> bool:
    """Whether name is OWNER/NAME on the Hub rather than something on this machine's disk."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII)) and not Path(name).exists()


def _split_template(template: str, source: str) -> tuple[str, str, list[str]]:
    """Templates of what stands before and after the source, and the names of all columns.

    What str.format refuses, or would not look up as it stands, is a text without columns.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        return _escape_braces(template), "", []
    fields = [field for _, *field in parts if field[0] is not None]
    if any(spec or conversion or not _is_column(name) for name, spec, conversion in fields):
        return _escape_braces(template), "", []
    before, after = "", ""
    has_source = False
    for literal, name, _, _ in parts:
        text = _escape_braces(literal)
        is_source = name == source and not has_source
        if name is not None and not is_source:
            text += f"{{{name}}}"
        if has_source:
            after += text
        else:
            before += text
        has_source = has_source or is_source
    return before, after, list(dict.fromkeys(str(name) for name, *_ in fields))


def _escape_braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _is_column(name: str | None) -> bool:
    """Whether str.format looks name up as it is, rather than as a place, attribute or item."""
    return bool(name) and not re.search(r"^\d+$|[.\[\]]", name or "")
