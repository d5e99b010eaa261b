"""The command on a model card, pasted, asks for the sweep that it was written of."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from sweeps.checks.commands import write_sweep_command
from sweeps.checks.run_args import read_command
from sweeps.config import SweepConfig, to_json
from tests.examples import max_examples
from tests.sweeps.commands import read_by_shell

OWN_RECIPE = """
from dataclasses import replace
from sweeps.recipes import samsum

def recipe(is_tiny):
    return replace(samsum(is_tiny), epochs=2.0, num_trials=7, seed=3)
"""
FLAGS = (
    ["--model", "my base"],
    ["--data", "rows.csv", "b c.csv"],
    ["--data", "owner/name"],
    ["--input", "the text", "--target", "class", "--kind", "classify"],
    ["--input", "message"],
    ["--input", "messages", "--kind", "chat", "--train-on", "last"],
    ["--kind", "generate", "--target", "intent"],
    ["--label-names", "0=it's", '1="b" $x', "-1=c"],
    ["--prompt=--x {a}\n`{b}` *"],
    ["--system-prompt", "Sei kurz; sag's!"],
    ["--metric", "bleu,mine.py:score,chrf"],
    ["--max-steps", "40"],
    ["--epochs", "1.5"],
    ["--learning-rates", "1e-05", "3e-3"],
    ["--lora-ranks", "4"],
    ["--rsloras", "True", "False"],
    ["--target-modules", "all", "attention", "q_proj,v_proj"],
    ["--no-finals", "--no-estimate"],
    ["--thinking"],
    ["--low-rung-eval-rows", "None"],
    ["--slots-per-gpu", "3", "--gpus", "2"],
    ["--time-budget", "1h30m", "--gpu-hours", "2.5"],
    ["--runs-dir", "other runs"],
    ["--wandb", "offline", "--wandb-project", "my project"],
    ["--num-trials", "9", "--seed", "17", "--compute-dtype", "float32"],
)


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my base").mkdir()
    Path("own.py").write_text(OWN_RECIPE)
    for name in ("rows.csv", "b c.csv", "mine.py"):
        Path(name).write_text("")


def read(words: list[str]) -> SweepConfig | None:
    try:
        return read_command(words).config
    except Exception:
        return None


@max_examples(12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    recipe=st.sampled_from(["table", "samsum", "own.py"]),
    tiny=st.booleans(),
    flags=st.lists(st.sampled_from(FLAGS), max_size=7, unique_by=lambda flags: flags[0]),
)
@example(recipe="own.py", tiny=False, flags=[["--max-steps", "900"]])
@example(recipe="own.py", tiny=False, flags=[["--epochs", "2.0"]])
@example(recipe="table", tiny=True, flags=[["--data", "rows.csv"], ["--input", "message"]])
@example(recipe="samsum", tiny=True, flags=[["--model", "tiny-hybrid"], ["--base", "bf16"]])
@example(recipe="table", tiny=False, flags=FLAGS[1:4:2])
@example(recipe="table", tiny=False, flags=FLAGS[1:6:4])
def test_command_of_the_card_asks_for_the_same_sweep(
    recipe: str, tiny: bool, flags: list[list[str]]
) -> None:
    config = read([recipe, *["--tiny"] * tiny, *[word for some in flags for word in some]])
    if config is None:  # --epochs beside --max-steps
        return
    command = write_sweep_command(config)
    assert str(Path.cwd()) not in command
    python, minus_m, module, *words = read_by_shell(command)
    assert (python, minus_m, module) == ("python", "-m", "sweeps.run")
    again = read([*words, "--name", config.name])  # which has a time
    assert to_json(again) == to_json(config)


def test_steps_that_epochs_came_to_are_not_in_the_command() -> None:
    config = read(["samsum", "--epochs", "2"])
    command = write_sweep_command(replace(config, max_steps=123))
    assert "--epochs 2.0" in command and "--max-steps" not in command


def test_trials_that_were_added_by_hand_are_not_counted_in_the_command() -> None:
    started = [{"kind": "trial_started", "trial_id": "t0003", "is_asked": True}] * 2  # a resume
    asked = [{"kind": "asked", "num_trials": number} for number in (9, 10)]
    command = write_sweep_command(read(["samsum"]), [*asked, *started])
    assert command == "python -m sweeps.run samsum --num-trials 9"


def test_folders_and_accounts_of_the_owner_are_not_in_the_command() -> None:
    words = ["--study-storage", "postgresql://me:pw@db/x", "--wandb-entity", "my-team"]
    words += ["--data", "/home/me/rows.csv", "--runs-dir", "/home/me/runs", "--name", "a"]
    command = write_sweep_command(read(["table", *words]))
    assert not any(secret in command for secret in ("/home", "postgresql", "my-team"))
    assert (
        command == "python -m sweeps.run table --data rows.csv --runs-dir runs"
    )  # its name is taken


def test_command_of_a_recipe_that_is_gone_names_every_flag() -> None:
    config = read(["own.py", "--name", "a"])
    Path("own.py").unlink()
    words = read_by_shell(write_sweep_command(config))
    for flag in (["--model", "Qwen/Qwen3-0.6B"], ["--epochs", "2.0"], ["--num-trials", "7"]):
        at = words.index(flag[0])
        assert words[at : at + 2] == flag
