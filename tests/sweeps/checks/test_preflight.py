"""What preflight finds: folders, models, data, GPU, login, cluster and database, before a start."""

import contextlib
import importlib
import json
import os
import shlex
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from sweeps.checks import preflight
from sweeps.cli import join_lines
from sweeps.config import SweepConfig
from sweeps.recipes import samsum
from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from sweeps.search.storage import open_storage
from tests.cluster.heads import run_http2_server
from tests.sweeps.commands import PROJECT, TINY, call, read_by_shell, start, tree
from tests.trainables.expert_model import EXPERT_KINDS, join_experts, save_experts
from tests.trainables.hybrid_model import save_hybrid
from trainables.config import Metric
from trainables.errors import SweepAborted
from trainables.models import delta_kernels, hub_files

pytestmark = pytest.mark.usefixtures("few_rows", "own_world")

Damage = Callable[[Path], object]


def refused(folder: Path, *flags: str) -> tuple[str, str]:
    """The refusal of a tiny sweep, which left folder as it was."""
    before = tree(folder)
    refusal = call("sweeps.run", "samsum", "--tiny", *flags).refusal()
    assert tree(folder) == before
    return refusal


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
    (tmp_path / "best" / "adapter_config.json").write_bytes(ADAPTER)
    _, fix = refused(tmp_path, "--model", "best")
    assert fix == "give its base: --model Qwen/Qwen3-0.6B"


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


GOOD_ROW = b'{"id": "1", "dialogue": "Ann: Hi", "summary": "Hi."}\n'

DAMAGED_DATA: list[tuple[str, bytes | None, str]] = [
    ("test.jsonl", None, "no test split in"),
    ("train.jsonl", b'{"id": "1", "chat": "Ann: Hi", "summary": "x"}\n', "found id, chat, summary"),
    ("train.jsonl", b'{"id": "1", "two\\nlines": "Ann"}\n', "found id, two lines"),
    ("train.jsonl", b"", "each a row"),
    ("train.jsonl", b'{"id": "1", "dialogue": " ", "summary": "x"}\n', "has no usable row"),
    ("validation.jsonl", b'{"id": "1", "dialogue": "A", "summary": null}\n', "has no usable row"),
    ("train.jsonl", GOOD_ROW + b'{"id": "2", "dial', "cannot read"),
    ("train.jsonl", b"3\n", "each a row"),
    ("train.jsonl", GOOD_ROW.replace(b"Hi", b"H\xe9"), "cannot read"),
    ("train.csv", b"id,dialogue,summary\n1,\x81\x8d,x\n", "cannot read"),
    ("train.csv", b"", "cannot read"),
    ("train.csv", b"id,dialogue,summary\n1,a,b\n1,2,3,4,5\n", "cannot read"),
    ("train.parquet", b"PAR1 no", "cannot read"),
]


@pytest.mark.parametrize(("name", "content", "error"), DAMAGED_DATA)
def test_data_that_cannot_be_used_is_told_before_any_trial(
    name: str, content: bytes | None, error: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(TINY / "samsum", data)
    (data / name).with_suffix(".jsonl").unlink()
    if content is not None:
        (data / name).write_bytes(content)
    message, _ = refused(tmp_path, "--data", "data")
    assert error in message


def test_train_split_that_is_missing_is_made_of_the_others_and_told(tmp_path: Path) -> None:
    shutil.copytree(TINY / "samsum", tmp_path / "data")
    (tmp_path / "data" / "train.jsonl").unlink()
    output = call("sweeps.run", "samsum", "--tiny", "--data", "data", "--dry-run").stdout
    assert "no train split: the 384 rows of validation and test were split by" in output


@pytest.mark.parametrize("data", ["nowhere", "no\nwhere", "s3://bucket/data"])
def test_data_folder_that_is_not_there_is_named(data: str, tmp_path: Path) -> None:
    message, fix = refused(tmp_path, "--data", data)
    assert "does not exist" in message
    assert "--data" in fix


def run_folder(tmp_path: Path, name: str, *, has_record: bool = True) -> Path:
    """A run's folder, as a sweep leaves it."""
    folder = tmp_path / name
    folder.mkdir(parents=True)
    if has_record:
        (folder / "sweep.json").write_text("{}")
    return folder


HOSTILE = """it's  "my" $HOME `x` !1 \\ \x1b[2J
*?%20"""


@pytest.mark.parametrize("runs_dir", ["runs", "my runs", HOSTILE, "-dash"])
def test_taken_name_offers_a_command_that_resumes(runs_dir: str, tmp_path: Path) -> None:
    run_folder(tmp_path, f"{runs_dir}/mine")
    message, fix = refused(tmp_path, "--name", "mine", f"--runs-dir={runs_dir}")
    assert message == f"the run 'mine' exists already in {join_lines(runs_dir)}"
    words = read_by_shell(fix.partition("go on with it: ")[2])
    where = [] if runs_dir == "runs" else ["--runs-dir", runs_dir]
    where = ["--runs-dir=-dash"] if runs_dir == "-dash" else where
    resume = [
        "python",
        "-m",
        "sweeps.run",
        "samsum",
        "--tiny",
        "--name",
        "mine",
        *where,
        "--resume",
    ]
    assert words == resume
    assert "mine/sweep.json cannot be read" in call(*words[2:]).refusal()[0]


def test_home_in_a_path_is_found(tmp_path: Path) -> None:
    """As a shell leaves it in --flag=~/folder."""
    for name in ("model", "samsum"):
        shutil.copytree(TINY / name, tmp_path / name)
    flags = ("--model=~/model", "--data=~/samsum", "--runs-dir=~/runs", "--dry-run")
    shown = call("sweeps.run", "samsum", "--tiny", *flags).stdout
    assert f"{tmp_path}/model: qwen3" in shown
    assert f"{tmp_path}/runs/" in shown


@pytest.mark.parametrize("runs_dir", ["a?b%20c", "a #b", "a&b=c"])
def test_study_lies_inside_its_run_whatever_the_folder_is_called(
    runs_dir: str, tmp_path: Path
) -> None:
    paths = RunPaths.of(runs_dir, "mine")
    paths.folder.mkdir(parents=True)
    metric = Metric(name="loss", mode="min")
    open_storage(paths.study_url, "mine", metric, is_resumed=False)
    assert [path.name for path in paths.folder.iterdir()] == ["optuna.db"]
    assert [path.name for path in tmp_path.iterdir()] == [runs_dir]


def test_taken_name_without_a_record_offers_no_resume(tmp_path: Path) -> None:
    run_folder(tmp_path, "runs/mine", has_record=False)
    assert refused(tmp_path, "--name", "mine")[1] == "choose another --name"


def test_dangling_link_is_a_taken_name(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(tmp_path / "gone")
    assert "exists already" in refused(tmp_path, "--name", "mine")[0]


@pytest.mark.parametrize("runs_dir", ["file", "file/below/it"])
def test_runs_folder_below_a_file_is_refused(runs_dir: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    message, fix = refused(tmp_path, "--runs-dir", runs_dir)
    assert "cannot be written" in message
    assert "--runs-dir DIR" in fix


def refused_to_another_user(check: Callable[[], object], words: str) -> bool:
    """Whether a check is refused with these words.

    The command itself may not be readable for that user, so a fork asks; nor may what the check
    imports late, which is imported before.
    """
    for late in ("huggingface_hub.hf_api", "encodings.idna"):
        importlib.import_module(late)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            check()
            os._exit(1)
        except SweepAborted as caught:
            os._exit(0 if words in f"{caught.error} {caught.fix}" else 2)
        except BaseException:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user takes root")
def test_runs_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    config = _tiny(runs_dir="theirs")
    assert refused_to_another_user(
        lambda: preflight.check_run_folder(config, is_resumed=False), "cannot be written"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user takes root")
def test_log_that_another_user_may_only_read_is_not_written() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is hidden from other users
        os.chmod(folder, 0o777)
        path = Path(folder, "events.jsonl")
        path.touch(mode=0o644)
        assert refused_to_another_user(lambda: EventLog(path), "a file that this user may write")


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user takes root")
@pytest.mark.parametrize("name", ["model", "data"])
def test_model_or_data_in_a_folder_of_another_user_is_refused(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is hidden from other users
        os.chmod(folder, 0o777)
        theirs = Path(folder, "theirs")
        (theirs / name).mkdir(parents=True)
        theirs.chmod(0o700)
        os.chdir(folder)
        config = _tiny()
        assert refused_to_another_user(
            lambda: preflight.check(
                replace(config, wandb="disabled", **{name: f"theirs/{name}"}), is_resumed=False
            ),
            "check its permissions",
        )


def test_resumed_run_needs_no_free_name(tmp_path: Path) -> None:
    run_folder(tmp_path, "runs/mine")
    preflight.check_run_folder(_tiny(name="mine"), is_resumed=True)


def test_real_run_without_a_gpu_offers_the_tiny_one() -> None:
    message, fix = call("sweeps.run", "samsum").refusal()
    assert "no GPU found" in message
    words = shlex.split(fix.partition(": ")[2].partition(";")[0])
    assert call(*words[2:], "--dry-run").code == 0


def have_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Puts an nvidia-smi into PATH that tells of these GPUs."""
    script = folder / "bin" / "nvidia-smi"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\ncat <<END\n" + "\n".join(lines) + "\nEND\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")


T4 = "GPU-a1, Tesla T4, 15360, 7.5"
L4 = "GPU-a2, NVIDIA L4, 23034, 8.9"
H200 = "GPU-a3, NVIDIA H200, 143771, 9.0"


@pytest.mark.parametrize(
    ("gpus", "flags", "fix"),
    [
        ((T4,), (), "add --engine solo --compute-dtype float32"),
        ((L4, T4), (), "add --engine solo --compute-dtype float32"),
        ((T4,), ("--compute-dtype", "float32"), "add --engine solo"),
        ((T4,), ("--engine", "solo"), "add --compute-dtype float32"),
        ((T4,), ("--engine", "solo", "--compute-dtype", "float32"), None),
        ((L4,), (), None),
    ],
)
def test_gpu_too_old_for_packs_or_bfloat16_is_told(
    gpus: tuple[str, ...],
    flags: tuple[str, ...],
    fix: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have_gpu(tmp_path, monkeypatch, *gpus)
    if fix is None:
        assert call("sweeps.run", "samsum", "--tiny", *flags, "--dry-run").code == 0
        return
    message, told = refused(tmp_path, *flags)
    assert message.startswith("the Tesla T4 has compute capability 7.5; ")
    assert told == f"{fix}, or leave that GPU out with CUDA_VISIBLE_DEVICES"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a2")
    assert call("sweeps.run", "samsum", "--tiny", *flags, "--dry-run").code == 0


def test_more_gpus_than_this_machine_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_gpu(tmp_path, monkeypatch, L4, H200)
    message, fix = refused(tmp_path, "--gpus", "5")
    assert message == "--gpus 5 is more than the 2 that this machine has"
    assert fix.startswith("give --gpus 2 at most")
    assert call("sweeps.run", "samsum", "--tiny", "--gpus", "2", "--dry-run").code == 0


@pytest.mark.parametrize(
    ("gpu", "installed", "reason", "fix"),
    [
        (L4, {}, "fla's kernels are not installed", "pip install '.[hybrid]'"),
        (
            L4,
            {"fla-core": "0.5.1", "triton": "3.6.0"},
            "fla-core 0.5.1 is older than 0.6",
            "pip install '.[hybrid]'",
        ),
        (L4, {"fla-core": "0.6.0", "triton": "3.6.0"}, None, None),
        (
            H200,
            {"fla-core": "0.6.0", "triton": "3.6.0"},
            "Triton 3.6.0 gives wrong gradients of Gated DeltaNet on Hopper",
            "pip install 'triton>=3.7.1'; torch works with it",
        ),
        (H200, {"fla-core": "0.6.0", "triton": "3.7.1"}, None, None),
        (H200, {"fla-core": "0.6.0", "triton": "3.3.1+git5e2f"}, None, None),
    ],
)
def test_packs_of_hybrids_on_a_gpu_need_kernels(
    gpu: str,
    installed: dict[str, str],
    reason: str | None,
    fix: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delta_kernels, "_installed", lambda name: installed.get(name, ""))
    have_gpu(tmp_path, monkeypatch, gpu)
    folder = save_hybrid(tmp_path / "model", AutoTokenizer.from_pretrained(TINY / "model"))
    flags = ("--model", folder, "--dry-run")
    if reason is None:
        assert call("sweeps.run", "samsum", "--tiny", *flags).code == 0
        return
    message, told = refused(tmp_path, *flags)
    assert message == f"{folder} trains by fla's kernels, and {reason}"
    exact = call("sweeps.run", "samsum", "--tiny", *flags, "--compute-dtype", "float32")
    assert exact.code == 0 and "kernels" not in exact.stdout  # no pack uses them in float32
    solo = call("sweeps.run", "samsum", "--tiny", *flags, "--engine", "solo")
    exact_solo = call(
        *("sweeps.run", "samsum", "--tiny", *flags),
        *("--engine", "solo", "--compute-dtype", "float32"),
    )
    if fix != delta_kernels.INSTALL:  # fla refuses in the midst of training
        assert told == fix and solo.refusal() == exact_solo.refusal() == (message, told)
        return
    assert exact_solo.code == 0
    assert told == f"{fix}; or add --engine solo, which is slower"
    assert solo.code == 0 and f"trials go on without, more slowly; {fix}" in solo.stdout
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    on_cpu = call("sweeps.run", "samsum", "--tiny", *flags)
    assert on_cpu.code == 0 and "kernels" not in on_cpu.stdout


def test_gpu_of_amd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kfd").touch()
    monkeypatch.setattr(preflight, "DEVICES", tmp_path / "dev")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    message, fix = call("sweeps.run", "samsum").refusal()
    assert "no GPU found that runs CUDA" in message and "AMD's, with ROCm" in message
    assert "samsum --tiny" in fix
    assert call("sweeps.run", "samsum", "--tiny", "--dry-run").code == 0


def test_trial_runs_here_so_a_cluster_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_http2_server() as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert "no GPU found" in call("sweeps.trial", "samsum").refusal()[0]
        assert "no GPU found" not in call("sweeps.run", "samsum").refusal()[0]


def test_a_ray_of_its_own_has_no_other_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert "no GPU found" in call("sweeps.run", "samsum").refusal()[0]


def test_ray_client_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://10.0.0.1:10001")
    message, fix = refused(tmp_path)
    assert message == (
        "RAY_ADDRESS=ray://10.0.0.1:10001 is one of Ray Client, which cannot run a sweep"
    )
    assert "on a node of the cluster" in fix and "ray job submit" in fix


def test_cluster_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    message, fix = refused(tmp_path)
    assert message == "the Ray cluster at RAY_ADDRESS=127.0.0.1:9 does not answer"
    assert "RAY_ADDRESS" in fix


@pytest.mark.parametrize("address", ["http://10.0.0.1:8265", "10.0.0.1"])
def test_what_is_no_address_of_ray_is_named(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    message, fix = refused(tmp_path)
    assert message == f"RAY_ADDRESS={address} is no address of a Ray cluster"
    assert "HOST:PORT" in fix


def test_folder_that_ray_deletes_is_no_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `ray job submit` runs a command."""
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0a"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    message, fix = call("sweeps.run", "samsum", "--tiny").refusal()
    assert f"the runs folder {folder}/runs lies in Ray's copy" in message
    assert "--runs-dir DIR" in fix
    assert call("sweeps.run", "samsum", "--tiny", "--dry-run", "--runs-dir", "/tmp/r").code == 0


def test_temporary_folder_too_long_for_rays_sockets_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 40)
    message, fix = refused(tmp_path)
    assert "too long a name for Ray's sockets" in message
    assert "RAY_TMPDIR=/tmp" in fix
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 20)
    assert call("sweeps.run", "samsum", "--tiny", "--dry-run").code == 0


def test_bad_wandb_environment_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    message, fix = refused(tmp_path)
    assert "WANDB_MODE is 'nonsense'" in message
    assert "--wandb" in fix


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("WANDB_BASE_URL", "me:s3cret@api.wandb.ai", "WANDB_BASE_URL: "),
        ("WANDB_SILENT", "maybe", "WANDB_SILENT: Input should be a valid boolean"),
        ("WANDB_INIT_TIMEOUT", "soon", "WANDB_INIT_TIMEOUT: "),
        ("WANDB_HTTP_TIMEOUT", "soon", "WANDB_HTTP_TIMEOUT: Input should be a valid number"),
        (
            "WANDB_IDENTITY_TOKEN_FILE",
            "/s3cret",
            "WANDB_IDENTITY_TOKEN_FILE: there is no such file",
        ),
        ("WANDB__PROXIES", "s3cret", "WANDB__PROXIES: Input should be a valid dictionary"),
        ("WANDB_HTTP_TIMEOUT", "1.5", "WANDB_HTTP_TIMEOUT: Input should be whole seconds"),
        ("WANDB_PROJECT", "a/b", "Invalid project name 'a/b'"),
        ("WANDB_API_KEY", "s3cret" * 8 + "\n", "API key cannot start or end with whitespace"),
    ],
)
def test_wandb_variable_that_wandb_refuses_is_told_without_secrets(
    name: str, value: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    message, fix = refused(tmp_path, "--dry-run")
    assert error in message and "s3cret" not in message
    assert "--wandb disabled" in fix
    assert call("sweeps.run", "samsum", "--tiny", "--dry-run", "--wandb", "disabled").code == 0


def test_project_that_wandb_refuses_is_told(tmp_path: Path) -> None:
    message, fix = refused(tmp_path, "--dry-run", "--wandb-project", "a/b")
    assert "Invalid project name 'a/b'" in message
    assert "--wandb-project" in fix


STORAGES = [
    ("nonsense", "Could not parse"),
    ("http://x/y", "Can't load plugin"),
    ("mysql://u:s3cret@x/y", "MySQLdb"),
    ("postgresql+psycopg://u:s3cret@127.0.0.1:9/x", "refused"),
    ("postgresql+psycopg://u:s3cret@127.0.0.1:port/x", "port"),
    ("postgresql+psycopg://u@127.0.0.1:9/x?sslpassword=s3cret", "refused"),
    ("mysql://x/y?passwd=s3cret", "MySQLdb"),
    ("sqlite:///nowhere/x.db", "cannot be written"),
    ("sqlite:///folder", "cannot be written"),
    ("sqlite:///text", "file is not a database"),
]


@pytest.mark.parametrize(("url", "error"), STORAGES)
def test_study_storage_that_cannot_be_used_is_told_without_its_password(
    url: str, error: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no database " * 100)
    message, fix = refused(tmp_path, "--study-storage", url)
    assert "the study storage" in message and error in message
    assert "s3cret" not in message + fix


def test_study_of_the_same_name_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    optuna.create_study(storage=url, study_name="mine")
    assert "a study named 'mine'" in refused(tmp_path, "--study-storage", url, "--name", "mine")[0]
    flags = ("samsum", "--tiny", "--study-storage", url, "--dry-run")
    assert call("sweeps.run", *flags, "--name", "other").code == 0


def test_new_sqlite_storage_is_not_made_by_looking(tmp_path: Path) -> None:
    flags = ("samsum", "--tiny", "--study-storage", "sqlite:///new.db", "--dry-run")
    assert call("sweeps.run", *flags).code == 0
    assert not (tmp_path / "new.db").exists()
    sqlite3.connect(tmp_path / "new.db").close()
    assert call("sweeps.run", *flags).code == 0


def test_everything_is_found_without_torch_and_ray(tmp_path: Path) -> None:
    code = (
        "import sys; from sweeps.run import main; main(['samsum', '--tiny', '--dry-run']); "
        "sys.exit(bool({'torch', 'ray', 'wandb'} & set(sys.modules)))"
    )
    (tmp_path / "probe.py").write_text(code)
    assert start("probe", folder=tmp_path, PYTHONPATH=f"{PROJECT}:{tmp_path}").code == 0


def _tiny(**values: object) -> SweepConfig:
    return replace(samsum(True), **values)  # type: ignore[arg-type]


def test_rows_longer_than_the_model_has_positions_are_refused(tmp_path: Path) -> None:
    error, fix = refused(tmp_path, "--max-length-tokens", "2049")
    assert "2,049 is above the 2,048 positions" in error
    assert "--max-length-tokens 2048" in fix


def test_what_is_cut_for_its_length_is_told_in_the_dry_run(tmp_path: Path) -> None:
    flags = ("--dry-run", "--max-length-tokens", "120", "--max-new-tokens", "8")
    output = call("sweeps.run", "samsum", "--tiny", *flags).stdout
    assert "prompts cut to 112 tokens: train " in output and ": --max-length-tokens" in output
    assert "targets longer than the 8 tokens that an answer may have: validation " in output


def test_object_storage_that_holds_other_files_is_refused(tmp_path: Path) -> None:
    thesis = tmp_path / "data" / "night" / "thesis.txt"  # which a sweep that ends early would take
    thesis.parent.mkdir(parents=True)
    thesis.touch()
    flags = ("--name", "night", "--checkpoints", f"file://{tmp_path}/data")
    error, fix = refused(tmp_path, *flags)
    assert "night holds files that are no run's: thesis.txt" in error and "--checkpoints" in fix


@pytest.mark.parametrize("runs_dir", ["data", "data/night", "data/night/runs"])
def test_object_storage_and_the_run_do_not_lie_in_each_other(tmp_path: Path, runs_dir: str) -> None:
    place = f"file://{tmp_path}/data/night" if runs_dir == "data" else f"file://{tmp_path}/data"
    error, fix = refused(
        *(tmp_path, "--name", "night", "--runs-dir", str(tmp_path / runs_dir)),
        *("--checkpoints", place),
    )
    assert "lie in each other" in error and "--runs-dir" in fix
