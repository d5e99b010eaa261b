"""Models that are not there, are damaged, or are of a kind that no sweep trains."""

import functools
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.mistakes.damage import Damage, chain, cut, remove, replace_by_folder, write
from tests.benchmarks.mistakes.mistake import Mistake
from tests.sweeps.commands import TINY


def _copy_and_change(change: Damage, here: Path) -> None:
    shutil.copytree(TINY / "model", here / "m")
    change(here / "m")


def _set(**values: Any) -> Damage:
    """Other values in config.json; None takes one out."""

    def change(model: Path) -> None:
        config = json.loads((model / "config.json").read_text("utf-8")) | values
        kept = {name: value for name, value in config.items() if value is not None}
        (model / "config.json").write_text(json.dumps(kept), "utf-8")

    return change


def _change_tensors(change_header: Callable[[dict[str, Any]], object]) -> Damage:
    """Another header of model.safetensors, over the same bytes."""

    def change(model: Path) -> None:
        path = model / "model.safetensors"
        data = path.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        change_header(header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])

    return change


def _drop_layer(header: dict[str, Any]) -> None:
    for name in [name for name in header if ".layers.3." in name]:
        del header[name]


def _rename_tensors(header: dict[str, Any]) -> None:
    for name in [name for name in header if name != "__metadata__"]:
        header[f"transformer.{name}"] = header.pop(name)


def _retype_queries(header: dict[str, Any]) -> None:
    for name in [name for name in header if name.endswith("q_proj.weight")]:
        header[name]["dtype"] = "I16"


CONFIG, WEIGHTS = "config.json", "model.safetensors"
ADAPTER = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen3-0.6B"})
GPTQ = {"quant_method": "gptq", "bits": 4}
EIGHT_BITS = {"quant_method": "bitsandbytes", "load_in_8bit": True}
INDEX = "model.safetensors.index.json"
SHARDS = json.dumps(
    {"weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors"}}
)
SHARDED = chain(write(INDEX, SHARDS), remove(WEIGHTS))
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

DAMAGED: list[tuple[str, Damage, str]] = [
    ("has no config", remove(CONFIG), CONFIG),
    ("has an empty config", write(CONFIG, ""), CONFIG),
    ("has a config cut short", cut(CONFIG), CONFIG),
    ("has a config that is a list", write(CONFIG, "[]"), CONFIG),
    ("has a config that is no UTF-8", write(CONFIG, b'{"a": "\xff"}'), CONFIG),
    ("has a folder for a config", replace_by_folder(CONFIG), CONFIG),
    ("names no kind", _set(model_type=None), "m"),
    ("names no architecture", _set(architectures=None), "m"),
    ("has a list for its kind", _set(model_type=["qwen3"]), "m"),
    ("is a Llama", _set(model_type="llama", architectures=["LlamaForCausalLM"]), "llama"),
    ("is a BERT", _set(model_type="bert", architectures=["BertForMaskedLM"]), "bert"),
    ("sees images", _set(model_type="qwen3_vl", architectures=["Qwen3VLModel"]), "qwen3_vl"),
    ("hears", _set(model_type="qwen2_audio", architectures=["Qwen2AudioModel"]), "qwen2_audio"),
    ("ranks", _set(architectures=["Qwen3ForSequenceClassification"]), "SequenceClassification"),
    ("is Qwen3-Next", _set(model_type="qwen3_next"), "qwen3_next"),
    (
        "has experts, for a pack",
        _set(model_type="qwen3_moe", num_experts=4, architectures=["Qwen3MoeForCausalLM"]),
        "m",
    ),
    ("is quantised by GPTQ", _set(quantization_config=GPTQ), "gptq"),
    ("is quantised to 8 bits", _set(quantization_config=EIGHT_BITS), "8-bit"),
    ("has no number of layers", _set(num_hidden_layers=None), "num_hidden_layers"),
    ("has a text for a number of layers", _set(num_hidden_layers="four"), CONFIG),
    ("has no layers", _set(num_hidden_layers=0), "0 layers"),
    ("has a negative width", _set(hidden_size=-256), "hidden_size"),
    ("has more layers than its weights", _set(num_hidden_layers=5), "layers"),
    ("is wider than its weights", _set(hidden_size=512), "weights"),
    ("has a larger vocabulary than its weights", _set(vocab_size=4096), "embed_tokens"),
    ("has no weights", remove(WEIGHTS), WEIGHTS),
    ("has empty weights", write(WEIGHTS, ""), WEIGHTS),
    ("has weights cut in the header", cut(WEIGHTS, 1e-4), WEIGHTS),
    ("has weights cut in a tensor", cut(WEIGHTS), WEIGHTS),
    ("has weights that are none", write(WEIGHTS, b"\xff" * 4000), WEIGHTS),
    (
        "has a pointer of Git LFS for weights",
        write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"),
        WEIGHTS,
    ),
    ("lacks a layer's weights", _change_tensors(_drop_layer), WEIGHTS),
    ("has weights of other names", _change_tensors(_rename_tensors), "weights"),
    ("has weights of integers", _change_tensors(_retype_queries), "I16"),
    ("lacks a shard", SHARDED, "model-00001-of-00002.safetensors"),
    ("has a damaged index of shards", chain(write(INDEX, "{"), remove(WEIGHTS)), INDEX),
    ("has an index that names nothing", chain(write(INDEX, "{}"), remove(WEIGHTS)), INDEX),
    (
        "has pickled weights only",
        chain(remove(WEIGHTS), write("pytorch_model.bin", b"PK\x03\x04")),
        WEIGHTS,
    ),
    ("has GGUF weights only", chain(remove(WEIGHTS), write("model.gguf", b"GGUF")), WEIGHTS),
    ("has no tokenizer", remove(*TOKENIZER), "tokenizer"),
    ("has no tokenizer.json", remove("tokenizer.json"), "tokenizer"),
    ("has a tokenizer cut short", cut("tokenizer.json"), "tokenizer"),
    ("has an empty tokenizer", write("tokenizer.json", "{}"), "tokenizer"),
    ("has a tokenizer_config that is a list", write("tokenizer_config.json", "[]"), "tokenizer"),
    ("has no chat template", remove("chat_template.jinja"), "chat template"),
    ("has a chat template with an error", write("chat_template.jinja", "{% for %}"), "template"),
    (
        "has a chat template that raises",
        write("chat_template.jinja", "{{ raise_exception('no system') }}"),
        "template",
    ),
    ("has a chat template that says nothing", write("chat_template.jinja", ""), "template"),
    (
        "is an adapter",
        chain(remove(CONFIG, WEIGHTS), write("adapter_config.json", ADAPTER)),
        "adapter",
    ),
]
"""What is wrong with a copy m of the bundled model, and what the error has to name."""

COMMAND = "sweeps.run samsum --tiny --model {}"
PLACES: list[tuple[str, str, dict[str, str | bytes], str]] = [
    ("an empty folder", COMMAND.format("m"), {"m/.keep": ""}, CONFIG),
    ("a file", COMMAND.format("m.safetensors"), {"m.safetensors": "x"}, "m.safetensors"),
    ("a folder that is not there", COMMAND.format("./gone"), {}, "gone"),
    ("a Hub id without a network", COMMAND.format("Qwen/Qwen3-0.6B"), {}, "Qwen/Qwen3-0.6B"),
    ("a name that is no Hub id", COMMAND.format("'Qwen 3'"), {}, "Qwen 3"),
    ("no name", COMMAND.format("''"), {}, "model"),
    ("a URL", COMMAND.format("https://huggingface.co/Qwen/Qwen3-0.6B"), {}, "https://"),
    ("the hybrid without --tiny", "sweeps.run samsum --model tiny-hybrid", {}, "no GPU"),
    (
        "a layer that the model lacks",
        "sweeps.run samsum --tiny --target-modules c_attn",
        {},
        "c_attn",
    ),
]

MISTAKES = [
    *(
        Mistake(
            kind="model",
            title=title,
            command=COMMAND.format("m"),
            prepare=functools.partial(_copy_and_change, change),
            named=named,
        )
        for title, change, named in DAMAGED
    ),
    *(
        Mistake(kind="model", title=title, command=command, files=files, named=named)
        for title, command, files, named in PLACES
    ),
]
