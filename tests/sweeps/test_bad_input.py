"""Whatever a user gets wrong: error, fix, exit code 2, in time, and nothing is begun."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sweeps.commands import Ended, call, start, tree

pytestmark = pytest.mark.usefixtures("few_rows", "own_world")

POSTGRESQL = "postgresql+psycopg://"
COUNTS = (
    "--num-trials",
    "--max-steps",
    "--num-rungs",
    "--slots-per-gpu",
    "--gpus",
    "--batch-size",
    "--micro-batch-size",
    "--eval-rows",
    "--eval-batch-size",
    "--max-new-tokens",
)

BAD_VALUES = [
    *[([flag, value], flag) for flag in COUNTS for value in ("0", "-1")],
    (["--num-trials", "x"], "--num-trials"),
    (["--num-trials", "1.5"], "--num-trials"),
    (["--num-trials"], "--num-trials"),
    (["--reduction-factor", "1"], "--reduction-factor"),
    (["--seed", "-1"], "--seed"),
    (["--max-failures", "-1"], "--max-failures"),
    (["--micro-batch-size", "3"], "--micro-batch-size"),
    (["--max-length-tokens", "15"], "--max-length-tokens"),
    (["--warmup-frac", "1"], "--warmup-frac"),
    (["--warmup-frac", "nan"], "--warmup-frac"),
    (["--weight-decay", "-0.1"], "--weight-decay"),
    (["--max-grad-norm", "0"], "--max-grad-norm"),
    (["--max-grad-norm", "nan"], "--max-grad-norm"),
    (["--schedule", "square"], "--schedule"),
    (["--compute-dtype", "float16"], "--compute-dtype"),
    (["--base", "fp16"], "--base"),
    (["--engine", "warp"], "--engine"),
    (["--wandb", "maybe"], "--wandb"),
    (["--learning-rates", "1e-3"], "--learning-rates"),
    (["--learning-rates", "1e-3", "1e-4"], "--learning-rates"),
    (["--learning-rates", "0", "1e-4"], "--learning-rates"),
    (["--learning-rates", "1e-4", "inf"], "--learning-rates"),
    (["--learning-rates", "nan", "nan"], "--learning-rates"),
    (["--lora-ranks", "0"], "--lora-ranks"),
    (["--lora-ranks", "8", "x"], "--lora-ranks"),
    (["--lora-ranks"], "--lora-ranks"),
    (["--alphas-over-rank", "0"], "--alphas-over-rank"),
    (["--lora-dropouts", "1"], "--lora-dropouts"),
    (["--rsloras", "maybe"], "--rsloras"),
    (["--target-modules"], "--target-modules"),
    (["--target-modules", "all", "q_proj,"], "--target-modules"),
    (["--target-modules", "all", "q_proj,in_proj_z"], "in-proj-z"),
    (["--target-modules", "embed_tokens", "all"], "embed-tokens"),
    (["--target-modules", "all-linear"], "no all-linear; its layers are"),
    (["--augment-copies", "-1"], "--augment-copies"),
    (["--augment-copies", "101"], "--augment-copies"),
    (["--augment-copies", "2", "--augment-noise", "0"], "--augment-noise"),
    (["--augment-copies", "2", "--augment-noise", "nan"], "--augment-noise"),
    (["--augment-noise", "0.2"], "--augment-copies"),
    (["--paraphrases", "none.csv"], "--paraphrases"),
    (["--name", ""], "--name"),
    (["--name", "a/b"], "--name"),
    (["--name", ".."], "--name"),
    (["--name", "a\nb"], "--name"),
    (["--runs-dir", "s3://bucket/runs"], "--runs-dir"),
]


@pytest.mark.parametrize(("flags", "named"), BAD_VALUES, ids=lambda v: " ".join(v)[:40])
def test_bad_value_is_refused_by_its_name(flags: list[str], named: str, tmp_path: Path) -> None:
    error, _ = call("sweeps.run", "samsum", "--tiny", *flags).refusal()
    assert named.lstrip("-") in error.replace("_", "-")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("command", ["sweeps.run", "sweeps.trial"])
@pytest.mark.parametrize(
    ("words", "error", "fix"),
    [
        ([], "no recipe was named", "RECIPE, with RECIPE one of samsum"),
        (["samsun"], "there is no recipe 'samsun'", "did you mean samsum?"),
        (["zzz"], "there is no recipe 'zzz'", "choose one of samsum"),
        ([""], "there is no recipe ''", "choose one of samsum"),
        (["zz\nzz"], r"there is no recipe 'zz\nzz'", "choose one of samsum"),
        (["--tiny", "samsum"], "the recipe comes first, before --tiny", "RECIPE"),
        (["samsum", "--num-trails", "3"], "--num-trails", "--num-trials"),
        (["samsum", "--lora-rnks", "3"], "--lora-rnks", "--lora-rank"),
        (["samsum", "--lora-target", "all"], "--lora-target", "--target-modules"),
        (["samsum", "--zzzzzz"], "--zzzzzz", "--help"),
        (["samsum", "stray"], "stray", "--help"),
        (["table", "--tiny", "--kind", "chat"], "the bundled rows of --tiny are", "--data FILE"),
        (["samsum", "--model", "no\nsuch/x/y"], "no such/x/y", "--model DIR"),
    ],
)
def test_unreadable_command_line_names_what_is_near(
    command: str, words: list[str], error: str, fix: str, tmp_path: Path
) -> None:
    tiny = ["--tiny"] if words[1:2] == ["--model"] else []
    told = call(command, *words, *tiny).refusal()
    assert error in told[0]
    assert fix in told[1]
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--lora-rank", "0"], "lora_rank"),
        (["--lora-rank", "x"], "--lora-rank"),
        (["--lora-dropout", "1"], "lora_dropout"),
        (["--learning-rate", "nan"], "learning_rate"),
        (["--lora-alpha", "-1"], "lora_alpha"),
        (["--target-modules", "embed_tokens"], "target_modules"),
        (["--target-modules"], "target_modules"),
        (["--target-modules", "q_proj", "in_proj_z"], "in_proj_z"),
        (["--target-modules", "q_proj,in_proj_z"], "in_proj_z"),
        (["--target-modules", "q_proj,"], "target_modules"),
        (["--lora-ranks", "8"], "--lora-ranks"),
        (["--lora-rnk", "3"], "--lora-rnk"),
    ],
)
def test_bad_hyperparameter_of_one_trial_is_refused(
    flags: list[str], named: str, tmp_path: Path
) -> None:
    error, _ = call("sweeps.trial", "samsum", "--tiny", *flags).refusal()
    assert named in error
    assert tree(tmp_path) == {}


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
