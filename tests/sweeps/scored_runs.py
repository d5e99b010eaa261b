"""Runs of a small model with an adapter whose test rows a pack has scored."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from sweeps.checks.first_record import make_first_record
from sweeps.checks.preflight import Preflight
from sweeps.config import SweepConfig
from sweeps.finals import predictions
from sweeps.finals.outcome import Outcome, Winner
from sweeps.publish.best_folder import write_best
from sweeps.recipes import RECIPES
from sweeps.records.paths import RunPaths
from tests.sweeps.invented_sweep import make_history
from tests.trainables.packing.small_hosts import capacity_of
from trainables import final_test
from trainables.checkpoint import get_checkpoint_folder
from trainables.config import Hyperparameters, TaskOptions, TrialConfig
from trainables.data.lengths import fit_splits
from trainables.data.prepared_rows import write_rows
from trainables.data.tasks import TASKS
from trainables.files import write_json
from trainables.models.model_facts import read_model_facts
from trainables.models.tokenizer_file import TokenizerFile
from trainables.solo import trainer
from trainables.tiny import MODEL_DIR, SAMSUM_DIR

TRIAL_ID = "t0001"
PARAMS = Hyperparameters(lora_rank=4, lora_alpha=4, learning_rate=5e-3)
SMALL: dict[str, dict[str, Any]] = {
    "samsum": {"max_length_tokens": 120, "max_new_tokens": 32},
    "turkish_tweets": {
        "max_length_tokens": 40,
        "max_new_tokens": 8,
        "task_options": TaskOptions(prompt="Duygu: {Tweets}", label_names=("0=a", "1=b", "2=c")),
    },
    "table": {
        "max_length_tokens": 110,
        "max_new_tokens": 16,
        "task_options": TaskOptions(input="messages", kind="chat", system_prompt="Be brief."),
    },
}
"""Lengths that some prompts are cut to, and labels among which an untaught model chooses each."""


def end_of_text(model: Path) -> None:
    """Ends at <|endoftext|> alone, as Qwen's base models do."""
    _edit(model / "tokenizer_config.json", eos_token="<|endoftext|>")
    end = TokenizerFile(str(model)).convert_tokens_to_ids("<|endoftext|>")
    _edit(model / "generation_config.json", eos_token_id=end)


def no_end(model: Path) -> None:
    """Names no end of its own."""
    _edit(model / "tokenizer_config.json", eos_token=None, pad_token=None)
    _edit(model / "generation_config.json", eos_token_id=None, pad_token_id=None)


def another_end(model: Path) -> None:
    """Ends a turn by a token of another name, which only its tokenizer's eos_token tells."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        text = (model / name).read_text(encoding="utf-8")
        (model / name).write_text(text.replace("<|im_end|>", "<|end|>"), encoding="utf-8")


def penalty(model: Path) -> None:
    """Samples, and punishes repeated words, as Qwen2.5-0.5B-Instruct's settings do."""
    values = {"repetition_penalty": 1.1, "temperature": 0.7, "top_k": 20, "do_sample": True}
    _edit(model / "generation_config.json", **values)


ALPHAS = {"samsum": 4, "turkish_tweets": 64, "table": 4}
NUM_ROWS = 8

Change = Callable[[Path], None]
CHANGES: tuple[Change, ...] = (end_of_text, no_end, penalty)


def copy_base(folder: Path, change: Change | None, model: Path = MODEL_DIR) -> Path:
    """A model with another tokenizer_config.json or generation_config.json."""
    folder.mkdir(parents=True)
    for path in model.iterdir():
        shutil.copyfile(path, folder / path.name)  # its permissions are not copied
    if change is not None:
        change(folder)
    return folder


def make_adapter(folder: Path, lora_alpha: int) -> Path:
    """A PEFT folder with random weights, which bend the base's answers and leave them readable."""
    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        lora_alpha=lora_alpha,
        target_modules=["q_proj", "v_proj"],
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    base = AutoModelForCausalLM.from_pretrained(MODEL_DIR)
    get_peft_model(base, config).save_pretrained(folder)
    return folder


def train_adapter(recipe: str, model: Path, folder: Path, num_steps: int, **changes: Any) -> Path:
    """The PEFT folder of a trial of num_steps, trained alone in float32."""
    config = _configure(recipe, model, folder, max_steps=num_steps, eval_rows=4, **changes)
    _prepare(config)
    trial = TrialConfig(
        trial_id=TRIAL_ID, params=PARAMS, settings=config.settings, folder=folder / TRIAL_ID
    )
    trainer.train(trial, lambda report: None)
    return get_checkpoint_folder(trial.folder, num_steps)


def write_chats(path: Path, num_chats: int = 60) -> Path:
    """Conversations of two answers, some behind a system message of their own."""
    lines = (SAMSUM_DIR / "train.jsonl").read_text(encoding="utf-8").splitlines()
    chats = []
    for number, row in enumerate(map(json.loads, lines[:num_chats])):
        said = [f"What is row {number}?", "A chat.", row["dialogue"], row["summary"]]
        roles = ("user", "assistant", "user", "assistant")
        turns = [{"role": r, "content": text} for r, text in zip(roles, said, strict=True)]
        chats.append([{"role": "system", "content": "Be kind."}][: number % 2] + turns)
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    return path


def make_each_kind(folder: Path) -> dict[str, Path]:
    """A run of each kind whose NUM_ROWS test rows were scored in float32; one has an unquantised
    base, and the last is of the solo engine."""
    chats = write_chats(folder / "chats.jsonl")
    data: dict[str, dict[str, Any]] = {"table": {"data": (str(chats),), "base": "bf16"}}
    made = {}
    for recipe, alpha in ALPHAS.items():
        adapter = make_adapter(folder / f"{recipe}-adapter", alpha)
        of = (MODEL_DIR, adapter, folder)
        torch.set_num_threads(1)
        made[recipe] = score(recipe, *of, NUM_ROWS, **data.get(recipe, {}))
    solo = {"engine": "solo", "name": "solo"}
    made["solo"] = score("turkish_tweets", *of[:2], folder, NUM_ROWS, **solo)
    return made


def score(
    recipe: str, model: Path, adapter: Path, runs_dir: Path, num_rows: int | None, **changes: Any
) -> Path:
    """A run's folder with rows/, answers/ and best/, after the one look at test.

    Args:
        num_rows: of test, the first; None is all.
        changes: of the config.
    """
    config = _configure(recipe, model, runs_dir, **changes)
    preflight = _prepare(config, num_rows)
    paths = RunPaths.from_name(config.runs_dir, config.name)
    write_json(paths.sweep_json, make_first_record(config, preflight))
    settings = config.settings
    capacity = None if config.engine == "solo" else capacity_of(1)
    results = final_test.score_final_test(settings, {TRIAL_ID: adapter}, capacity=capacity)
    predictions.save(paths, preflight.splits, settings, results)
    scores = {name: result.metrics for name, result in results.items()}
    run = make_history(1, "completed", (settings.max_steps, 1.0), params=PARAMS)
    report = replace(run.reports[-1], metrics=scores["validation_base"])
    run = replace(run, reports=[report])
    winner = Winner(run=run, tested={TRIAL_ID: adapter})
    outcome = Outcome(winner=winner, scores=scores | {"test": scores.pop(TRIAL_ID)})
    write_best(config, preflight, paths, [run], outcome)
    return paths.folder


def _configure(recipe: str, model: Path, runs_dir: Path, **changes: Any) -> SweepConfig:
    config = RECIPES[recipe](True)
    common = {"name": recipe, "num_rungs": 1, "compute_dtype": "float32", "eval_rows": 16}
    common |= {"model": str(model), "runs_dir": str(runs_dir), "eval_batch_size": 16}
    return replace(config, **SMALL[recipe] | common | changes)


def _prepare(config: SweepConfig, num_rows: int | None = None) -> Preflight:
    task = TASKS[config.task](config.task_options)
    splits = fit_splits(TokenizerFile(config.model), task.load(config.data), config)
    splits = replace(splits, test=splits.test[:num_rows])
    write_rows(config.settings.rows_dir, splits)
    return Preflight(task, splits, read_model_facts(config.model), "disabled")


def _edit(path: Path, **values: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = {k: v for k, v in (content | values).items() if v is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")
