"""What preflight finds in models, in folders and on the Hub, before a start."""

import contextlib
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.sweeps.commands import TINY, call, refused, start
from tests.trainables.expert_model import EXPERT_KINDS, join_experts, save_experts
from trainables.models import hub_files

pytestmark = pytest.mark.usefixtures("few_rows", "own_world")

Damage = Callable[[Path], object]


def edit(name: str, **values: object) -> Damage:
    """Changes values of a model's JSON file; None takes one away."""

    def damage(model: Path) -> None:
        content = json.loads((model / name).read_text()) | values
        kept = {key: value for key, value in content.items() if value is not None}
        (model / name).write_text(json.dumps(kept))

    return damage


def layers(num: int) -> Damage:
    return edit("config.json", num_hidden_layers=num, layer_types=["full_attention"] * num)


def write(name: str, content: bytes) -> Damage:
    return lambda model: (model / name).write_bytes(content)


def remove(name: str) -> Damage:
    return lambda model: (model / name).unlink()


def pickle_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def shard(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def cut_weights(model: Path) -> None:
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def relabel(change: Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]]) -> Damage:
    """Changes names, types and shapes in the header of the weights; their bytes stay."""

    def damage(model: Path) -> None:
        content = (model / "model.safetensors").read_bytes()
        begin = 8 + int.from_bytes(content[:8], "little")
        header: dict[str, Any] = json.loads(content[8:begin])
        metadata = header.pop("__metadata__", {})
        changed = dict(change(name, tensor) for name, tensor in header.items())
        text = json.dumps({"__metadata__": metadata, **changed}).encode()
        size = len(text).to_bytes(8, "little")
        (model / "model.safetensors").write_bytes(size + text + content[begin:])

    return damage


def save_as_lm_head(name: str, tensor: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return name.replace("model.embed_tokens", "lm_head"), tensor


def save_without_head(name: str, tensor: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return name.removeprefix("model."), tensor


def save_compiled(name: str, tensor: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return f"_orig_mod.{name}", tensor


def save_as_integers(name: str, tensor: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return name, tensor | {"dtype": "I16"}


def add_token(model: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    token = dict(tokenizer["added_tokens"][0]) | {"id": 2048, "content": "<new>"}
    tokenizer["added_tokens"].append(token)
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))


def template(text: str, before: str = "", after: str = "") -> Damage:
    """A template that writes this of every message m."""
    loop = "{% for m in messages %}" + text + "{% endfor %}<|im_start|>assistant" + after
    return write("chat_template.jinja", (before + loop).encode())


def end_no_turn(model: Path) -> None:
    edit("tokenizer_config.json", eos_token=None)(model)
    text = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text(text.replace("<|im_end|>", "<|turned|>"))


def name_templates(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    templates = [{"name": "tool_use", "template": "x"}]
    edit("tokenizer_config.json", chat_template=templates)(model)


def quantised(**values: object) -> Damage:
    return edit("config.json", quantization_config={"quant_method": "bitsandbytes", **values})


NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
UNLIKE = "not what its config.json describes: "
NEEDS_SYSTEM = "{% if messages[0].role != 'system' %}{{ raise_exception('I want one') }}{% endif %}"
UNFIT = "does not write every message once"
ADAPTER = b'{"base_model_name_or_path": "Qwen/Qwen3-0.6B", "peft_type": "LORA"}'

DAMAGED_MODELS: list[tuple[Damage, str]] = [
    (edit("config.json", model_type="llama", architectures=["LlamaForCausalLM"]), "llama model"),
    (edit("config.json", architectures=["Qwen3ForSequenceClassification"]), "no Qwen causal"),
    (edit("config.json", architectures=["Qwen3Model"]), "no Qwen causal"),
    (edit("config.json", architectures=None), "no architecture"),
    (edit("config.json", model_type="qwen3_next"), "qwen3_next model"),
    (edit("config.json", model_type="qwen\n3"), "qwen 3 model"),
    (edit("config.json", hidden_size=None), "has no 'hidden_size'"),
    (edit("config.json", hidden_size="wide"), "is damaged"),
    (edit("config.json", hidden_size=[64]), "is damaged"),
    (edit("config.json", num_attention_heads=0, head_dim=0), "is damaged"),
    (edit("config.json", quantization_config={"quant_method": "fp8"}), "quantised already (fp8)"),
    (edit("config.json", quantization_config="fp8"), "is damaged"),
    (edit("config.json", architectures=7), "is damaged"),
    (edit("config.json", hidden_size=-5), "is damaged: hidden_size is -5"),
    (layers(0), UNLIKE + "there are more than 0 layers"),
    (edit("config.json", num_key_value_heads=3), "is damaged: 4 heads cannot share 3"),
    (edit("config.json", hidden_size=512), UNLIKE + "model.embed_tokens.weight is BF16 2048 x 256"),
    (edit("config.json", vocab_size=4096), UNLIKE + "model.embed_tokens.weight is BF16 2048 x 256"),
    (edit("config.json", vocab_size=1024), UNLIKE + "model.embed_tokens.weight is BF16 2048 x 256"),
    (edit("config.json", intermediate_size=511), "mlp.gate_proj.weight is BF16 512 x 256, not 511"),
    (edit("config.json", head_dim=32), "self_attn.q_proj.weight is BF16 256 x 256, not 128 x 256"),
    (edit("config.json", num_hidden_layers=3), "is damaged: layer_types is ['full_attention', "),
    (layers(3), UNLIKE + "there are more than 3 layers"),
    (layers(5), UNLIKE + "there is no model.layers.4."),
    (edit("config.json", tie_word_embeddings=False), UNLIKE + "there is no lm_head.weight"),
    (edit("config.json", model_type="qwen2"), "there is no model.layers.0.self_attn.q_proj.bias"),
    (relabel(save_compiled), UNLIKE + "there is no model.embed_tokens.weight"),
    (relabel(save_as_integers), UNLIKE + "model.embed_tokens.weight is I16 2048 x 256"),
    (quantised(load_in_8bit=True), "quantised already (8-bit)"),
    (quantised(load_in_4bit=True), "quantised already (fp4)"),
    (quantised(load_in_4bit=True, bnb_4bit_quant_type="fp4"), "quantised already (fp4)"),
    (quantised(**NF4), UNLIKE + "model.layers.0.self_attn.q_proj.weight is BF16 256 x 256, not in"),
    (quantised(**NF4, llm_int8_skip_modules=["mlp"]), "with 12 of its 28 linear layers left out"),
    (write("adapter_config.json", ADAPTER), "is an adapter of Qwen/Qwen3-0.6B, not a model"),
    (write("adapter_config.json", b"{}"), "is an adapter of a model that it does not name"),
    (add_token, "has 2,049 tokens, and the model's embedding 2,048"),
    (edit("tokenizer_config.json", pad_token="<pad>"), "has 2,049 tokens"),
    (edit("tokenizer_config.json", additional_special_tokens=["<a>", "<b>"]), "has 2,050 tokens"),
    (end_no_turn, "/model has no token that ends an answer"),
    (name_templates, "has no chat template"),
    (template("{{ m.content }} {{ m.content }}"), UNFIT),
    (template("{{ m.content | upper }}"), UNFIT),
    (template("{{ m.content | trim('.') }}"), UNFIT),
    (template("Say something."), UNFIT),
    (template("{{ m.content }}{% if %}"), "/model cannot write turns of user: Expected an expr"),
    (template("{{ 1 / 0 }}"), "/model cannot write turns of user: division by zero"),
    (template("{{ m.content }}", NEEDS_SYSTEM), "/model cannot write turns of user: I want"),
    (template("{{ m.content }}", after="\n<think>\n"), "/model thinks before every answer"),
    (write("config.json", b'{"model_type": "qwen3", '), "is not JSON"),
    (write("config.json", b"\xff\xfe"), "is not JSON"),
    (write("config.json", b"[1]"), "is not a JSON object"),
    (write("config.json", b""), "is not JSON"),
    (write("config.json", b"[" * 100_000), "is not JSON: it is nested too deeply"),
    (remove("config.json"), "has no config.json"),
    (remove("model.safetensors"), "has no model.safetensors"),
    (pickle_weights, "has no model.safetensors"),
    (shard, "has no model-00002-of-00002.safetensors"),
    (write("model.safetensors.index.json", b"{}"), "names no weights"),
    (cut_weights, "no whole safetensors file"),
    (write("model.safetensors", b""), "no whole safetensors file"),
    (write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"), "git-lfs|whole"),
    (remove("tokenizer.json"), "has no tokenizer.json"),
    (write("tokenizer.json", b"{"), "the tokenizer of "),
    (remove("tokenizer_config.json"), "has no tokenizer_config.json"),
    (remove("chat_template.jinja"), "has no chat template"),
]


@pytest.mark.parametrize(
    ("damage", "error"), DAMAGED_MODELS, ids=[error for _, error in DAMAGED_MODELS]
)
def test_model_that_cannot_be_trained_is_told_before_any_trial(
    damage: Damage, error: str, tmp_path: Path
) -> None:
    shutil.copytree(TINY / "model", tmp_path / "model")  # which test_home_in_a_path_is_found takes
    damage(tmp_path / "model")
    message, fix = refused(tmp_path, "--model", "model")
    assert any(part in message for part in error.split("|"))
    assert any(word in fix for word in ("model", "folder", "download", "safetensors"))


def test_model_that_never_thinks_is_not_asked_to(tmp_path: Path) -> None:
    shutil.copytree(TINY / "model", tmp_path / "model")
    template("{{ m.content }}<|im_end|>\n")(tmp_path / "model")
    assert call("sweeps.run", "samsum", "--tiny", "--model", "model", "--dry-run").code == 0
    message, fix = refused(tmp_path, "--model", "model", "--thinking")
    assert message.startswith(f"{tmp_path}/model does not think before it answers")
    assert fix.startswith("leave out --thinking")


def test_adapter_given_as_a_model_is_answered_with_its_base(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "adapter_config.json").write_bytes(
        ADAPTER.replace(b"Qwen/", b"my models/")
    )
    _, fix = refused(tmp_path, "--model", "best")
    assert fix == "give its base: --model 'my models/Qwen3-0.6B'"


@pytest.mark.parametrize("save", [save_as_lm_head, save_without_head])
def test_weights_under_other_names_that_transformers_knows_are_taken(
    save: Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    shutil.copytree(TINY / "model", tmp_path / "model")
    relabel(save)(tmp_path / "model")
    assert call("sweeps.run", "samsum", "--tiny", "--model", "model", "--dry-run").code == 0


def test_hub_model_in_the_cache_is_checked_as_a_folder_is(tmp_path: Path) -> None:
    cache = tmp_path / "hf" / "hub" / "models--me--mine"
    shutil.copytree(TINY / "model", cache / "snapshots" / "abc")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    flags = ("samsum", "--tiny", "--model", "me/mine", "--dry-run")
    assert start("sweeps.run", *flags, folder=tmp_path, HF_HUB_OFFLINE="1").code == 0
    relabel(save_compiled)(cache / "snapshots" / "abc")
    error, _ = start("sweeps.run", *flags, folder=tmp_path, HF_HUB_OFFLINE="1").refusal()
    assert f"the weights of me/mine are {UNLIKE}" in error


def test_model_with_another_activation_is_offered_the_other_engine(tmp_path: Path) -> None:
    shutil.copytree(TINY / "model", tmp_path / "model")
    edit("config.json", hidden_act="gelu")(tmp_path / "model")
    message, fix = refused(tmp_path, "--model", "model")
    assert message == f"{tmp_path}/model has gelu between its layers, which packs cannot train"
    assert fix == "add --engine solo"


def test_model_saved_in_nf4_is_no_unquantised_base(tmp_path: Path) -> None:
    shutil.copytree(TINY / "model", tmp_path / "model")
    quantised(**NF4)(tmp_path / "model")
    message, fix = refused(tmp_path, "--model", "model", "--base", "bf16")
    expected = f"--base bf16 needs unquantised weights, and {tmp_path}/model is saved in NF4"
    assert message == expected
    assert fix.startswith("leave out --base bf16, or give the model that it was made from: --model")
    for command in ("sweeps.run", "sweeps.trial"):
        words = ("samsum", "--tiny", "--base", "fp8")
        assert "--base" in call(command, *words).refusal()[0]


@pytest.mark.parametrize(
    "values",
    [
        {
            "layer_types": None,
            "use_sliding_window": True,
            "sliding_window": 64,
            "max_window_layers": 2,
        },
        {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]},
    ],
)
def test_model_that_packs_cannot_train_offers_the_other_engine(
    values: dict[str, object], tmp_path: Path
) -> None:
    shutil.copytree(TINY / "model", tmp_path / "model")
    edit("config.json", **values)(tmp_path / "model")
    message, fix = refused(tmp_path, "--model", "model")
    assert (
        message == f"{tmp_path}/model has layers with sliding attention, which packs cannot train"
    )
    assert fix == "add --engine solo"
    flags = ("samsum", "--tiny", "--model", "model", "--dry-run")
    assert call("sweeps.run", *flags, "--engine", "solo").code == 0


@pytest.mark.parametrize("kind", EXPERT_KINDS)
def test_model_with_experts_is_for_the_other_engine(kind: str, tmp_path: Path) -> None:
    folder = save_experts(tmp_path / "model", AutoTokenizer.from_pretrained(TINY / "model"), kind)
    message, fix = refused(tmp_path, "--model", "model")
    assert message == f"{folder} has experts, which packs cannot train"
    assert fix == "add --engine solo"
    flags = ("samsum", "--tiny", "--model", "model", "--dry-run", "--engine", "solo")
    told = call("sweeps.run", *flags)
    assert told.code == 0 and kind in told.stdout and "\nexperts " in told.stdout
    join_experts(tmp_path / "model")
    assert call("sweeps.run", *flags).code == 0


def test_frozen_experts_are_no_mlp_to_adapt(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY / "model")
    save_experts(tmp_path / "model", tokenizer, "qwen3_moe")
    flags = ("--model", "model", "--engine", "solo", "--target-modules", "mlp")
    message, fix = refused(tmp_path, *flags)
    assert "no layers of mlp that can be adapted: experts stay frozen" in message
    assert "some of all, attention, q_proj, k_proj, v_proj, o_proj;" in fix


@pytest.mark.parametrize(
    ("last", "values", "error"),
    [
        ("5.up_proj", {}, "there is no model.layers.1.mlp.experts.5.up_proj.weight"),
        (None, {"num_local_experts": 5}, "mlp.gate.weight is F32 6 x 64, not 5 x 64"),
        (None, {"moe_intermediate_size": 16}, "gate_proj.weight is F32 32 x 64, not 16 x 64"),
    ],
)
def test_experts_unlike_the_config_are_told(
    last: str | None, values: dict[str, Any], error: str, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY / "model")
    save_experts(tmp_path / "model", tokenizer, "qwen3_moe")
    edit("config.json", **values)(tmp_path / "model")
    if last is not None:
        weights = load_file(tmp_path / "model" / "model.safetensors")
        del weights[f"model.layers.1.mlp.experts.{last}.weight"]
        save_file(weights, tmp_path / "model" / "model.safetensors")
    message, _ = refused(tmp_path, "--model", "model", "--engine", "solo")
    assert error in message


def test_experts_in_nf4_are_told(tmp_path: Path) -> None:
    folder = save_experts(
        tmp_path / "model", AutoTokenizer.from_pretrained(TINY / "model"), "qwen3_moe"
    )
    weights = load_file(tmp_path / "model" / "model.safetensors")
    name = "model.layers.0.mlp.experts.0.up_proj.weight"
    weights[f"{name}.quant_state.bitsandbytes__nf4"] = weights[name].clone()
    save_file(weights, tmp_path / "model" / "model.safetensors")
    message, fix = refused(tmp_path, "--model", "model", "--engine", "solo")
    assert message == f"{folder} holds its experts in NF4, which transformers 5 does not load"
    assert fix.startswith("choose the model that it was made from")


@pytest.mark.parametrize("model", ["nowhere/at/all", "/nowhere", "./nowhere", "~/nowhere", "a b"])
def test_model_that_is_not_there_is_named(model: str, tmp_path: Path) -> None:
    message, fix = refused(tmp_path, "--model", model)
    assert model in message
    assert "--model DIR" in fix


@pytest.mark.slow
def test_hub_that_says_nothing_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        flags = ("samsum", "--tiny", "--model", "Qwen/Qwen3-0.6B")
        ended = start("sweeps.run", *flags, folder=tmp_path, HF_ENDPOINT=endpoint)
        assert 1 <= num_connections(silent) <= 2  # one may be huggingface_hub's own
    assert f"the Hub at {endpoint} is unreachable" in ended.refusal()[0]
    assert hub_files.REACH_TIMEOUT_S <= 3


def num_connections(server: socket.socket) -> int:
    """How often a server that never accepted was connected to."""
    server.setblocking(False)
    connections = []
    with contextlib.suppress(BlockingIOError):
        while True:
            connections.append(server.accept()[0])
    return len(connections)


def test_own_data_without_a_hub_is_asked_for(tmp_path: Path) -> None:
    """A recipe without data, of a model folder: the dataset's turn to be unreachable."""
    source = (
        "from dataclasses import replace\nfrom sweeps.recipes import samsum\n"
        "def recipe(t):\n    return replace(samsum(True), data=None)\n"
    )
    (tmp_path / "mine.py").write_text(source)
    error, fix = start("sweeps.run", "mine.py", "--tiny", folder=tmp_path).refusal()
    assert "cannot download" in error and "is unreachable" in error
    assert "--data DIR" in fix


def test_offline_switch_is_told_at_once(tmp_path: Path) -> None:
    flags = ("samsum", "--tiny", "--model", "Qwen/Qwen3-0.6B")
    ended = start("sweeps.run", *flags, folder=tmp_path, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in ended.refusal()[0]
