"""Whatever a user gets wrong: error, fix, exit code 2, in time, and nothing is begun."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sweeps.bad_values import BAD_HYPERPARAMETERS, BAD_VALUES, UNREADABLE
from tests.sweeps.commands import Ended, call, start, tree

pytestmark = pytest.mark.usefixtures("few_rows", "own_world")

POSTGRESQL = "postgresql+psycopg://"


@pytest.mark.parametrize(("flags", "named"), BAD_VALUES, ids=lambda v: " ".join(v)[:40])
def test_bad_value_is_refused_by_its_name(flags: list[str], named: str, tmp_path: Path) -> None:
    error, _ = call("sweeps.run", "samsum", "--tiny", *flags).refusal()
    assert named.lstrip("-") in error.replace("_", "-")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("command", ["sweeps.run", "sweeps.trial"])
@pytest.mark.parametrize(
    ("words", "error", "fix"),
    UNREADABLE,
)
def test_unreadable_command_line_names_what_is_near(
    command: str, words: list[str], error: str, fix: str, tmp_path: Path
) -> None:
    tiny = ["--tiny"] if words[1:2] == ["--model"] else []
    told = call(command, *words, *tiny).refusal()
    assert error in told[0]
    assert fix in told[1]
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(("flags", "named"), BAD_HYPERPARAMETERS)
def test_bad_hyperparameter_of_one_trial_is_refused(
    flags: list[str], named: str, tmp_path: Path
) -> None:
    error, _ = call("sweeps.trial", "samsum", "--tiny", *flags).refusal()
    assert named in error
    assert tree(tmp_path) == {}


CONTRADICTIONS = [
    ("--num-rungs 9 --max-steps 3", "--num-rungs 9 is more than", "--num-rungs 2 at most"),
    ("--num-rungs=9", "--num-rungs 9 is more than", "--num-rungs 5 at most"),
    ("--num_finalists 4 --num-trials 3", "--num-finalists 4 is more than", "3 at most"),
    ("--eval-rows 8 --low-rung-eval-rows 9", "--low-rung-eval-rows 9 is more than", "8 at most"),
    ("--no-finals --num-finalists 3", "--num-finalists does nothing without --finals", "--finals"),
    ("--no-finals --num-final-seeds 3", "--num-final-seeds does nothing", "leave out"),
    ("--bertscore-encoder some/encoder", "--bertscore-encoder does", "--bertscore on"),
    ("--bertscore-layer 3 --bertscore off", "--bertscore-layer does nothing", "--bertscore on"),
]


@pytest.mark.parametrize(("flags", "error", "fix"), CONTRADICTIONS)
def test_flag_that_others_cut_short_or_leave_idle_is_refused(
    flags: str, error: str, fix: str, tmp_path: Path
) -> None:
    told = call("sweeps.run", "samsum", "--tiny", "--dry-run", *flags.split()).refusal()
    assert error in told[0] and fix in told[1]
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "flags",
    ["--max-steps 3", "--num-rungs 2 --max-steps 3", "--num-trials 1", "--eval-rows 8 --no-finals"],
)
def test_defaults_follow_a_smaller_flag(flags: str) -> None:
    assert call("sweeps.run", "samsum", "--tiny", *flags.split(), "--dry-run").code == 0


MISTAKES = [
    (start, ["samsun"], "did you mean samsum?"),
    (call, ["samsum", "--num-trails", "3"], "--num-trials"),
    (call, ["samsum", "--num-trials", "0"], "--help"),
    (start, ["samsum"], "--tiny"),
    (call, ["samsum", "--tiny", "--wandb", "online"], "--wandb offline"),
    (start, ["samsum", "--tiny", "--model", "Qwen/Qwen3-0.6B"], "--model DIR"),
    (call, ["samsum", "--tiny", "--model", "nowhere/at/all"], "--model DIR"),
    (call, ["samsum", "--tiny", "--data", "nowhere"], "--data"),
    (start, ["samsum", "--tiny", "--study-storage", f"{POSTGRESQL}u@127.0.0.1:9/x"], "server"),
    (call, ["samsum", "--tiny", "--resume", "--name", "none"], "begin a new sweep"),
]
"""In a process of its own where more is loaded than the tests' has loaded, or less."""


@pytest.mark.parametrize(("way", "words", "fix"), MISTAKES)
def test_mistake_ends_the_process_in_two_lines(
    way: Callable[..., Ended], words: list[str], fix: str, tmp_path: Path
) -> None:
    where = {"folder": tmp_path} if way is start else {}
    assert fix in way("sweeps.run", *words, **where).refusal()[1]
    left = {name for name in tree(tmp_path) if not name.startswith(".cache")}
    assert left == set()


@pytest.mark.parametrize(
    ("words", "fix"),
    [(["samsum"], "--tiny"), (["samsum", "--tiny", "--lora-rank", "0"], "--help")],
)
def test_mistake_ends_a_trial_in_two_lines(words: list[str], fix: str, tmp_path: Path) -> None:
    assert fix in start("sweeps.trial", *words, folder=tmp_path).refusal()[1]
    assert tree(tmp_path) == {}
