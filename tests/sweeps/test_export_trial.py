"""Any trial's adapter can leave the run, and merged weights need no PEFT and answer as scored."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sweeps.finals import verdict as verdicts
from sweeps.finals.verdict import Finalist, Verdict
from sweeps.records.events import EventLog, make_params_fields, make_report_fields
from sweeps.records.paths import RunPaths
from tests.sweeps import scored_runs
from tests.sweeps.card_programs import run_cards
from tests.sweeps.invented_sweep import METRIC, make_final_run, make_history
from tests.sweeps.servers.hub_server import HubServer
from tests.sweeps.test_export import REPO, export, hub, refusal
from trainables.models import merge
from trainables.tiny import MODEL_DIR

pytestmark = pytest.mark.slow

assert hub  # a fixture
NUM_ROWS, NUM_STEPS = 40, 12


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its best/ and the checkpoint of a trial that was stopped."""
    folder = tmp_path_factory.mktemp("merged")
    torch.set_num_threads(1)
    base = scored_runs.copy_base(folder / "base", scored_runs.end_of_text)
    adapter = scored_runs.train_adapter("samsum", base, folder / "training", NUM_STEPS)
    run = scored_runs.score("samsum", base, adapter, folder, NUM_ROWS)
    log = EventLog(run / "events.jsonl")
    for number, status, steps in ((2, "stopped", 30), (3, "failed", 0), (4, "stopped", 30)):
        trial = make_history(
            number, status, *([(steps, 38.25)] if steps else []), params=scored_runs.PARAMS
        )
        params = make_params_fields(trial.params)
        log.append("trial_started", trial_id=trial.trial_id, number=number, params=params)
        for report in trial.reports:
            log.append("report", **make_report_fields(report))
        log.append("trial_ended", trial_id=trial.trial_id, status=status, reason="")
    shutil.copytree(adapter, run / "checkpoints" / "t0002" / "checkpoint-30")
    return run


@pytest.fixture
def run(scored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored, tmp_path / "samsum"))


def test_another_trial_is_exported_with_a_card_of_its_own(run: Path, tmp_path: Path) -> None:
    ended = export(run, "--trial", "t0002", "--to", tmp_path / "copy")
    assert ended.code == 0, ended.stderr
    name = "adapter_model.safetensors"
    checkpoint = run / "checkpoints" / "t0002" / "checkpoint-30"
    assert (tmp_path / "copy" / name).read_bytes() == (checkpoint / name).read_bytes()
    names = {path.name for path in (run / "best").iterdir()} - {"test_predictions.jsonl"}
    assert {path.name for path in (tmp_path / "copy").iterdir()} == names
    card = ModelCard.load(tmp_path / "copy" / "README.md")
    assert "trial t0002 of a hyperparameter sweep" in card.text
    assert "not the sweep's own choice: rougeLsum 38.25 on" in card.text
    assert "after 30 of 90 steps (stopped)" in card.text
    assert "| validation | rougeLsum | 38.25 |" in card.text
    assert "the best of" not in card.text and "Rule:" not in card.text
    assert (
        "asked for by its name, whatever the sweep has chosen; it was not scored on test"
        in card.text
    )
    assert [r.metric_value for r in card.data.eval_results if r.metric_name == "rougeLsum"] == [
        38.25
    ]


def test_trial_that_was_tested_has_its_scores_and_the_winner_is_best(
    run: Path, tmp_path: Path
) -> None:
    log = EventLog(run / "events.jsonl")
    base = {"rougeLsum": 11.5}
    scores = {"test": {"rougeLsum": 40.0}, "test_base": base, "validation_base": {"rougeLsum": 9}}
    tested = {"t0002": {"rougeLsum": 35.75}, "t0004": {"rougeLsum": 40.0}}
    log.append("final_scores", trial_id="t0004", scores=scores, runs=tested)
    assert export(run, "--trial", "t0002", "--to", tmp_path / "copy").code == 0
    card = (tmp_path / "copy" / "README.md").read_text()
    assert "| test | rougeLsum | 35.75 | 11.50 |" in card
    assert "The sweep chose t0004, rougeLsum 38.25 on validation." in card
    assert "| validation | rougeLsum | 38.25 |  |" in card  # the base was scored on other rows
    shutil.copytree(
        run / "checkpoints" / "t0002" / "checkpoint-30",
        run / "checkpoints" / "t0004" / "checkpoint-30",
    )
    assert export(run, "--trial", "t0004", "--to", tmp_path / "winner").code == 0
    best = (run / "best" / "README.md").read_bytes()
    assert (tmp_path / "winner" / "README.md").read_bytes() == best
    for words, trial_id in (((), "t0004"), (("--trial", "t0002"), "t0002")):
        told = export(run, *words, "--to", tmp_path / f"{trial_id}-json", "--json").stdout
        assert json.loads(told)["trial_id"] == trial_id


def test_card_of_a_trial_tells_its_place_in_the_finals_and_who_won(
    run: Path, tmp_path: Path
) -> None:
    log, paths = EventLog(run / "events.jsonl"), RunPaths(run)
    values = {"f0002s1": 30.0, "f0002s2": 32.0, "f0004s1": 36.0, "f0004s2": 35.0}
    ids = [(name, f"t{name[1:5]}", int(name[-1])) for name in values]
    started = [{"trial_id": name, "of": of, "seed": seed} for name, of, seed in ids]
    log.append("finals_started", finalists=["t0002", "t0004"], baseline=None, runs=started)
    runs = [make_final_run(name, seed, values[name]) for name, _, seed in ids]
    for one in runs:
        log.append("report", **make_report_fields(one.reports[0]))
        log.append("trial_ended", trial_id=one.trial_id, status="completed", reason="")
    finalists = [
        Finalist(trial_id=of, params=scored_runs.PARAMS, metric=METRIC, runs=tuple(found))
        for of in ("t0004", "t0002")
        if (found := [one for one in runs if one.final_of == of])
    ]
    verdicts.write(Verdict(metric=METRIC, finalists=tuple(finalists), lead=4.5), paths)
    of_search, of_finals = (run / "checkpoints" / name for name in ("t0002", "f0002s2"))
    shutil.copytree(of_search / "checkpoint-30", of_finals / "checkpoint-9")
    for trial_id, own in (("t0002", "Its"), ("f0002s2", "Its configuration, t0002,")):
        assert export(run, "--trial", trial_id, "--to", tmp_path / trial_id).code == 0
        card = (tmp_path / trial_id / "README.md").read_text()
        first, _, rest = card.partition("## Use")
        assert own in first and "place 2 of 2 in the finals with rougeLsum 31.00 +- 1.41" in first
        assert "The winner is t0004 with rougeLsum 35.50 +- 0.71 over 2 fresh seeds" in first
        assert "trained each configuration once" not in rest and "| t0002 | 2 | 31.00 |" in rest


def test_winner_before_more_trials_is_exported_as_itself(run: Path, tmp_path: Path) -> None:
    log = EventLog(run / "events.jsonl")
    test = {"rougeLsum": 40.0}
    for winner in ("t0002", "t0004"):  # best/ has the adapter of the last one
        log.append("final_scores", trial_id=winner, scores={"test": test}, runs={winner: test})
    assert export(run, "--trial", "t0002", "--to", tmp_path / "copy").code == 0
    card = (tmp_path / "copy" / "README.md").read_text()
    assert "trial t0002 of a hyperparameter sweep" in card and "| test | rougeLsum | 40.00" in card


@pytest.mark.parametrize("text", ["{", "[]", "null", "[" * 100_000, '{"r": 8}'])
def test_damaged_adapter_of_a_trial_is_told(text: str, run: Path, tmp_path: Path) -> None:
    folder = run / "checkpoints" / "t0002" / "checkpoint-30"
    (folder / "adapter_config.json").write_text(text)
    error, _ = refusal(export(run, "--trial", "t0002", "--to", tmp_path / "copy"))
    assert f"the adapter in {folder} is damaged" in error


@pytest.mark.parametrize(
    "wrong", [{"r": "x"}, {"r": 0}, {"lora_alpha": None}, {"target_modules": [1]}]
)
def test_adapter_with_a_wrong_value_is_told(
    wrong: dict[str, object], run: Path, tmp_path: Path
) -> None:
    path = run / "checkpoints" / "t0002" / "checkpoint-30" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    error, _ = refusal(export(run, "--trial", "t0002", "--to", tmp_path / "copy"))
    assert f"the adapter in {path.parent} is damaged" in error


@pytest.mark.parametrize(
    ("words", "error", "fix"),
    [
        (["--trial", "t0009"], "there is no trial 't0009'", "t0002"),
        (["--trial", "t0003"], "t0003 has reported nothing", "one that has reported"),
        (["--trial", "t0004"], "adapter of t0004 is not there any more", "name one of: t0002"),
        (["--merge", "--private"], "--private is for the Hub", "leave it out"),
    ],
)
def test_trial_that_cannot_be_exported_is_one_clear_error(
    run: Path, tmp_path: Path, words: list[str], error: str, fix: str
) -> None:
    said = refusal(export(run, *words, "--to", tmp_path / "copy"))
    assert error in said[0] and fix in said[1]
    assert not (tmp_path / "copy").exists()


def test_merge_is_refused_where_it_cannot_be_done(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def lack_memory(*of: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(merge, "load_base", lack_memory)  # and nothing is loaded
    config = run / "best" / "adapter_config.json"
    content = json.loads(config.read_text())
    to = ("--merge", "--to", tmp_path / "copy")
    config.write_text(json.dumps(content | {"base_model_name_or_path": "/gone/base"}))
    error, fix = refusal(export(run, *to))
    assert "/gone/base is not here" in error and "leave out --merge" in fix
    config.write_text(json.dumps(content | {"base_model_name_or_path": str(MODEL_DIR)}))
    assert "is not what it was when this sweep began" in refusal(export(run, *to))[0]
    config.write_text(json.dumps(content))
    usage = shutil.disk_usage(run)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    error, fix = refusal(export(run, *to))
    assert "has 0.0 GiB left" in error and "more space" in fix
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 40))
    error, fix = refusal(export(run, *to))
    assert "free memory does not hold" in error and "CUDA_VISIBLE_DEVICES=" in fix
    card = run / "best" / "README.md"
    card.write_text(card.read_text().replace("from peft", "from  peft"))
    error, _ = refusal(export(run, *to))
    assert "card's script loads no adapter" in error
    assert not (tmp_path / "copy").exists()


def test_merged_weights_need_no_peft_and_answer_as_scored(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: HubServer
) -> None:
    monkeypatch.setattr(merge, "SHARD_SIZE", "1MB")
    runs = [tmp_path / name for name in ("nf4", "original")]
    for copy in runs:
        shutil.copytree(run / "rows", copy / "rows")
        ended = export(run, "--merge", "--to", copy / "best")
        assert ended.code == 0, ended.stderr
        shutil.copy(run / "best" / "test_predictions.jsonl", copy / "best")
    merged = runs[0] / "best"
    shards = {path.name: load_file(path) for path in merged.glob("model-*-of-*.safetensors")}
    assert len(shards) > 1
    index = json.loads((merged / "model.safetensors.index.json").read_text())["weight_map"]
    assert index == {key: name for name, tensors in shards.items() for key in tensors}
    assert {t.dtype for tensors in shards.values() for t in tensors.values()} == {torch.bfloat16}
    assert not list(merged.glob("adapter*"))
    assert len({path.stat().st_mode for path in merged.iterdir()}) == 1  # as the umask has it
    best = run / "best"
    for name in ("generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (merged / name).read_bytes() == (best / name).read_bytes()
    assert str(tmp_path) not in (merged / "config.json").read_text()
    card = ModelCard.load(merged / "README.md")
    assert card.data.library_name == "transformers" and "peft" not in card.data.tags
    assert "merged into its base as NF4 holds it" in card.text
    write_merged_into_original(best, runs[1] / "best")
    nf4, original = run_cards(runs, tmp_path, without=("peft", "bitsandbytes"))
    print(nf4.num_equal, original.num_equal)
    assert nf4.num_equal >= 0.8 * NUM_ROWS > original.num_equal
    upload = ("--trial", "t0002", "--merge", "--to", f"hub:{REPO}")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in merged.glob("model-*")]
    lost = sorted(digests)[-1]
    hub.refuse[lost] = (507, "Insufficient storage")
    assert refusal(export(run, *upload, endpoint=hub.url))[1].startswith("fix: free some")
    arrived = set(hub.repos[REPO].blobs)
    assert arrived and lost not in arrived and hub.repos[REPO].commits == []
    hub.refuse.clear()
    hub.calls.clear()
    sent = export(run, *upload, endpoint=hub.url)
    assert sent.code == 0, sent.stderr
    sent_again = {call.rpartition("/")[2] for call in hub.calls if call.startswith("PUT")}
    assert lost in sent_again and not sent_again & arrived
    files = hub.repos[REPO].commits[0].files
    assert files.keys() == {p.name for p in merged.iterdir()} - {"test_predictions.jsonl"}
    assert f'model_path = "{REPO}"\n' in files["README.md"].decode()


def test_cards_over_an_unquantised_base_need_no_bitsandbytes_and_answer_as_scored(
    tmp_path: Path,
) -> None:
    adapter = scored_runs.train_adapter(
        "samsum", MODEL_DIR, tmp_path / "training", NUM_STEPS, base="bf16"
    )
    base = scored_runs.copy_base(tmp_path / "base", scored_runs.end_of_text)
    run = scored_runs.score("samsum", base, adapter, tmp_path, NUM_ROWS // 2, base="bf16")
    merged = tmp_path / "merged"
    shutil.copytree(run / "rows", merged / "rows")
    assert export(run, "--merge", "--to", merged / "best").code == 0
    shutil.copy(run / "best" / "test_predictions.jsonl", merged / "best")
    card = (merged / "best" / "README.md").read_text()
    assert "The weights, with a LoRA adapter merged in, of" in card and "NF4" not in card
    assert "merged into its base's own weights" in card
    beside, within = run_cards([run, merged], tmp_path, without=("bitsandbytes",))
    assert beside.num_equal >= NUM_ROWS // 2 - 1
    assert within.num_equal >= 0.4 * NUM_ROWS


def write_merged_into_original(adapter: Path, folder: Path) -> None:
    """What a user might expect of --merge: the base's own weights with the adapter in them."""
    from peft import PeftModel

    content = json.loads((adapter / "adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(
        content["base_model_name_or_path"], dtype=torch.bfloat16
    )
    for path in folder.glob("model*"):
        path.unlink()
    PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder)
    shutil.copy(adapter / "generation_config.json", folder)
