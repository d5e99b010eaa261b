"""The script of a model card that loads the adapter and answers one prompt."""

import re
from pathlib import Path
from string import Formatter

from trainables.config import ComputeDtype

ADAPTER_LINE = 'adapter = "."  # the folder of this card'
"""The usage code's line that an upload points at the adapter's name on the Hub."""


USAGE = """\
import torch
from peft import {imports}
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

{adapter_line}
base = {base}
device = "cuda" if torch.cuda.is_available() else "cpu"
tokenizer = AutoTokenizer.from_pretrained(adapter)
quantization = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.{dtype},
)
model = AutoModelForCausalLM.from_pretrained(
    base, quantization_config=quantization, dtype=torch.{dtype}, device_map={{"": device}}
)
model = PeftModel.from_pretrained(model, adapter).eval()

prompt = {prompt}
inputs = tokenizer.apply_chat_template(
    [{{"role": "user", "content": prompt}}],
    add_generation_prompt=True,
    enable_thinking=False,
    return_dict=True,
    return_tensors="pt",
).to(device)
with torch.inference_mode():
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens={max_new_tokens})
answer = tokens[0, inputs["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
"""


def usage_code(
    *, base_model: str, prompt_template: str, compute_dtype: ComputeDtype, max_new_tokens: int
) -> str:
    """A script that answers one prompt, with the base, chat template and types of training.

    A base in a folder is read from adapter_config.json, so that its path stays off the card.
    """
    if is_hub_id(base_model):
        base = repr(base_model)
    else:
        base = "PeftConfig.from_pretrained(adapter).base_model_name_or_path"
    return USAGE.format(
        imports="PeftModel" if is_hub_id(base_model) else "PeftConfig, PeftModel",
        adapter_line=ADAPTER_LINE,
        base=base,
        prompt=_prompt(prompt_template),
        dtype=compute_dtype,
        max_new_tokens=max_new_tokens,
    )


def is_hub_id(name: str) -> bool:
    """Whether name is OWNER/NAME on the Hub rather than something on this machine's disk."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII)) and not Path(name).exists()


def _prompt(template: str) -> str:
    """Python for the user's turn, made as in training; what str.format refuses stays as it is."""
    try:
        fields = [field for _, *field in Formatter().parse(template) if field[0] is not None]
    except ValueError:
        return repr(template)
    if any(spec or conversion or not _is_column(name) for name, spec, conversion in fields):
        return repr(template)
    texts = {str(name): "Put your text here." for name, _, _ in fields}
    return f"{template!r}.format_map({texts!r})"


def _is_column(name: str | None) -> bool:
    """Whether str.format looks name up as it is, rather than as a place, attribute or item."""
    return bool(name) and not re.search(r"^\d+$|[.\[\]]", name or "")
