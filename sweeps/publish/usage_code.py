"""The script of a model card that loads the adapter and answers as the scored answers were made."""

import re
from pathlib import Path
from string import Formatter

from trainables.config import TrainingOptions
from trainables.data.rows import Scoring
from trainables.data.tokens import prompt_limit
from trainables.errors import SweepAborted

ADAPTER_LINE = 'adapter = "."  # the folder of this card'
MERGED_LINE = 'model_path = "."  # the folder of this card'
"""The usage code's lines that an upload points at a name on the Hub."""

LOAD = """\
{copy}import torch
from peft import {imports}
from transformers import {classes}

{adapter_line}
base = {base}
device = "cuda" if torch.cuda.is_available() else "cpu"
tokenizer = AutoTokenizer.from_pretrained(adapter)
{quantization}model = AutoModelForCausalLM.from_pretrained(
    base, {quantized}dtype=torch.{dtype}, device_map={{"": device}}
)
# greedy, with the ends of the scored answers, the end of turn first; the base's may be others
model.generation_config = GenerationConfig.from_pretrained(adapter)
model = PeftModel.from_pretrained(model, adapter).eval()
"""

CLASSES = "AutoModelForCausalLM, AutoTokenizer, GenerationConfig"
NF4_CLASSES = """(
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
)"""
NF4 = """\
quantization = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.{dtype},
)
"""

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

PROMPT = """

def encode(text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def clean(text):
    return text.replace("\\r\\n", "\\n").strip()


def encode_prompt(columns, history):
    \"\"\"The prompt as in training; above {limit} tokens it loses its oldest turns, then the end of
    its text.\"\"\"
    columns = {{name: clean(text) for name, text in columns.items()}}
    before = {before}
    text = {text}
    after = {after}
    turns = [{{**turn, "content": clean(turn["content"])}} for turn in history]
    system = {system}
    if turns and turns[0]["role"] == "system":
        system = [turns.pop(0)]
    while True:
        chat = tokenizer.apply_chat_template(
            [*system, *turns, {{"role": "user", "content": "MESSAGE"}}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking={thinking},
        )
        head, _, tail = chat.rpartition("MESSAGE")
        ids = encode(head + before + text + after + tail)
        if len(ids) <= {limit} or not turns:
            break
        turns.pop(0)
        while turns and turns[0]["role"] != "user":
            turns.pop(0)
    if len(ids) > {limit}:
        first, last = encode(head + before), encode(after + tail)
        ids = first + encode(text)[: max({limit} - len(first) - len(last), 0)] + last
    return ids

"""

GENERATE = """
def answer(columns, history=()):
    prompt = torch.tensor([encode_prompt(columns, history)], device=device)
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled={is_bfloat16}):
        output = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt))
    stops = model.generation_config.eos_token_id
    ids = [token for token in output[0, prompt.shape[1] :].tolist() if token not in stops]
{drop_thought}    return tokenizer.decode(ids, skip_special_tokens=True).strip()


print(answer({columns}))
"""

DROP_THOUGHT = """\
    end = tokenizer.convert_tokens_to_ids("</think>")
    ids = ids[ids.index(end) + 1 :] if end in ids else []
"""

CLASSIFY = """
labels = {labels}


def answer(columns, history=()):
    \"\"\"The probability of each label, by the likelihood of its tokens and end.\"\"\"
    prompt = torch.tensor([encode_prompt(columns, history)], device=device)
    end = model.generation_config.eos_token_id[0]
    targets = [encode(label) + [end] for label in labels]
    log_probs = []
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled={is_bfloat16}):
        read = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
        for first in range(0, len(targets), 32):  # labels that are read together
            some = targets[first : first + 32]
            longest = max(map(len, some))
            padded = [target + [end] * (longest - len(target)) for target in some]
            ids = torch.tensor(padded, device=device)
            cache = copy.deepcopy(read.past_key_values)
            cache.reorder_cache(torch.zeros(len(some), dtype=torch.long, device=device))
            logits = model(input_ids=ids[:, :-1], past_key_values=cache).logits
            logits = torch.cat((read.logits.expand(len(some), -1, -1), logits), dim=1).float()
            of_tokens = logits.log_softmax(dim=-1).gather(2, ids[..., None])[..., 0].double()
            log_probs += [row[: len(target)].sum() for row, target in zip(of_tokens, some)]
    return dict(zip(labels, torch.stack(log_probs).softmax(dim=0).tolist()))


probabilities = answer({columns})
print(max(probabilities, key=probabilities.get), probabilities)
"""


def usage_code(
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
    is_hub, is_classifier = is_hub_id(base_model), scoring.kind == "classify"
    is_nf4, dtype = options.base == "nf4", options.compute_dtype
    before, after, names = _split_template(prompt_template, source)
    values = {
        "imports": "PeftModel" if is_hub else "PeftConfig, PeftModel",
        "adapter_line": ADAPTER_LINE,
        "base": repr(base_model)
        if is_hub
        else "PeftConfig.from_pretrained(adapter).base_model_name_or_path",
        "classes": NF4_CLASSES if is_nf4 else CLASSES,
        "quantization": NF4.format(dtype=dtype) if is_nf4 else "",
        "quantized": "quantization_config=quantization, " if is_nf4 else "",
        "dtype": dtype,
        "is_bfloat16": dtype == "bfloat16",
        "limit": prompt_limit(options.max_length_tokens, options.max_new_tokens),
        "thinking": options.thinking,
        "drop_thought": DROP_THOUGHT if options.thinking else "",
        "before": f"{before!r}.format_map(columns)",
        "text": f"columns[{source!r}]" if source in names else repr(""),
        "after": f"{after!r}.format_map(columns)",
        "columns": repr(dict.fromkeys(names, "Put your text here.")),
        "system": repr([{"role": "system", "content": system_prompt}] if system_prompt else []),
        "labels": repr(list(scoring.labels)),
        "copy": "import copy\n\n" if is_classifier else "",
    }
    ending = CLASSIFY if is_classifier else GENERATE
    return (LOAD + PROMPT + ending).format_map(values)


def use_merged(card: str) -> str:
    """The card of an adapter with a script that loads merged weights.

    Raises:
        SweepAborted: the card has no such script.
    """
    load = re.compile(
        r"^import torch\nfrom peft import .*?dtype=torch\.(\w+),.*?"
        r"^model = PeftModel\.from_pretrained\(model, adapter\)\.eval\(\)\n",
        re.M | re.S,
    )
    found = load.search(card)
    if found is None:
        raise SweepAborted(
            "the model card's script loads no adapter, so none can be made for merged weights",
            "put the script under Use in README.md back as the sweep wrote it",
        )
    return card.replace(found[0], MERGED_LOAD.replace("DTYPE", found[1]))


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
        return _escape(template), "", []
    fields = [field for _, *field in parts if field[0] is not None]
    if any(spec or conversion or not _is_column(name) for name, spec, conversion in fields):
        return _escape(template), "", []
    before, after = "", ""
    has_source = False
    for literal, name, _, _ in parts:
        text = _escape(literal)
        is_source = name == source and not has_source
        if name is not None and not is_source:
            text += f"{{{name}}}"
        if has_source:
            after += text
        else:
            before += text
        has_source = has_source or is_source
    return before, after, list(dict.fromkeys(str(name) for name, *_ in fields))


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _is_column(name: str | None) -> bool:
    """Whether str.format looks name up as it is, rather than as a place, attribute or item."""
    return bool(name) and not re.search(r"^\d+$|[.\[\]]", name or "")
