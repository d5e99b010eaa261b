"""A user's own recipe file: what may be wrong with it is told by its line; a right one runs."""

import sys
from pathlib import Path

import pytest

from sweeps.checks.find_recipe import find_recipe, read_recipe
from sweeps.recipes import RECIPES
from sweeps.trial import read_command
from tests.sweeps.commands import TINY, call, start, tree, world
from trainables.errors import SweepAborted

GOOD = """
from dataclasses import dataclass, replace

from sweeps.recipes import samsum


@dataclass
class Budget:
    trials: int = 5


def recipe(is_tiny):
    return replace(samsum(is_tiny), num_trials=Budget().trials, eval_rows=7, name="mine")
"""
WITH = "from dataclasses import replace\nfrom sweeps.recipes import samsum\n"

BROKEN = [
    ("", "has no function named recipe", "recipe(is_tiny: bool) -> SweepConfig"),
    ("recipe = 3\n", "has no function named recipe", "recipe(is_tiny: bool) -> SweepConfig"),
    ("x = 1\ndef recipe(:\n", "SyntaxError", "line 2"),
    ("\n\nimport no_such_module\n", "ModuleNotFoundError", "line 3"),
    ("\nraise RuntimeError('two\\nlines')\n", "RuntimeError: two lines", "line 2"),
    ("import sys\nsys.exit(5)\n", "SystemExit: 5", "line 2"),
    ("def recipe(is_tiny):\n    return {'num_trials': 3}\n", "returned a dict", "SweepConfig"),
    ("def recipe(is_tiny):\n    pass\n", "returned a NoneType", "SweepConfig"),
    ("def recipe():\n    pass\n", "TypeError", "line"),
    ("def recipe(is_tiny):\n\n    return 1 / 0\n", "ZeroDivisionError", "line 3"),
    (
        WITH + "def recipe(t):\n    return replace(samsum(t), num_trials=0)\n",
        "num_trials",
        "line 4",
    ),
    (WITH + "def recipe(t):\n    return replace(samsum(t), no=0)\n", "TypeError", "line 4"),
    (
        WITH + "def recipe(t):\n    return replace(samsum(t), base='NF4')\n",
        "base is 'NF4': Input should be 'nf4' or 'bf16'",
        ".py",
    ),
    (
        WITH + "def recipe(t):\n    c = samsum(t)\n"
        "    return replace(c, space=replace(c.space, target_modules='all'))\n",
        "space.target_modules is 'all': Input should be a valid tuple",
        ".py",
    ),
    (WITH + "def recipe(t):\n    return replace(samsum(t), task='cook')\n", "'cook'", "samsum"),
    (
        WITH + "def recipe(t):\n    return replace(samsum(t), start_points=({'rank': 8},))\n",
        "{'rank': 8}",
        "alpha_over_rank, learning_rate",
    ),
]


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in world(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.mark.parametrize(("source", "error", "fix"), BROKEN)
def test_broken_recipe_file_is_told_by_its_line(
    source: str, error: str, fix: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(source)
    before = tree(tmp_path)
    refusal = call("sweeps.run", "mine.py", "--tiny").refusal()
    assert "mine.py" in refusal[0] or "recipe's" in refusal[0]
    assert error in refusal[0]
    assert fix in refusal[1]
    assert tree(tmp_path) == before


def test_missing_recipe_file_is_named(tmp_path: Path) -> None:
    assert "nowhere/mine.py" in call("sweeps.run", "nowhere/mine.py").refusal()[0]
    (tmp_path / "folder.py").mkdir()
    assert "folder.py" in call("sweeps.run", "folder.py").refusal()[0]


def test_recipe_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(b"# \xff\xfe\x00\n")
    assert "SyntaxError" in call("sweeps.run", "mine.py", "--tiny").refusal()[0]


def test_broken_recipe_ends_the_process_in_two_lines(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def recipe(is_tiny):\n    return {}\n")
    for command in ("sweeps.run", "sweeps.trial"):
        error, _ = start(command, "mine.py", "--tiny", folder=tmp_path).refusal()
        assert error == "recipe in mine.py returned a dict"


def test_own_recipe_plans_its_own_budget(tmp_path: Path) -> None:
    (tmp_path / "my recipe.py").write_text(GOOD)
    ended = start("sweeps.run", "my recipe.py", "--tiny", "--dry-run", folder=tmp_path)
    assert (ended.code, ended.stderr) == (0, "")
    assert "mine: 5 trials of my recipe.py" in ended.stdout
    assert "eval_rows 7" in ended.stdout
    assert set(tree(tmp_path)) == {"my recipe.py"}


def test_own_recipe_hides_no_module_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text(GOOD)
    ended = call("sweeps.run", "./random.py", "--tiny", "--dry-run")
    assert ended.code == 0, ended.stderr
    assert not str(sys.modules["random"].__file__).startswith(str(tmp_path))


@pytest.mark.slow
def test_own_recipe_trains_one_trial_and_needs_no_start_points(tmp_path: Path) -> None:
    source = GOOD.replace("eval_rows=7", "eval_rows=2, max_steps=2, num_rungs=1, start_points=()")
    (tmp_path / "mine.py").write_text(source)
    flags = ["--batch-size", "2", "--micro-batch-size", "2", "--max-new-tokens", "2"]
    ended = call("sweeps.trial", "mine.py", "--tiny", *flags)
    assert ended.code == 0, ended.stderr
    assert "step 2: train_loss" in ended.stdout
    assert (tmp_path / "runs" / "mine" / "checkpoints" / "trial").is_dir()


def test_trial_by_hand_starts_from_the_last_point_that_is_whole(tmp_path: Path) -> None:
    points = "(*samsum(t).start_points, {'lora_rank': 8})"
    source = f"{WITH}def recipe(t):\n    return replace(samsum(t), start_points={points})\n"
    (tmp_path / "mine.py").write_text(source)
    args = read_command(["mine.py", "--tiny"])
    assert args.config.start_points[-1] == {"lora_rank": 8}
    assert (args.params.lora_rank, args.params.lora_alpha) == (16, 32.0)


def test_tiny_recipes_stay_on_the_bundled_files() -> None:
    assert RECIPES
    for recipe in RECIPES.values():
        config = recipe(True)
        assert config.tiny
        assert Path(config.model) == TINY / "model"
        assert Path(config.data or "").parent == TINY
        assert not recipe(False).tiny


def test_start_points_of_all_recipes_lie_in_their_spaces() -> None:
    for recipe in RECIPES.values():
        for config in (recipe(True), recipe(False)):
            assert config.start_points
            assert all(config.space.contains(point) for point in config.start_points)


def test_recipe_stands_before_its_flags() -> None:
    read = read_recipe(["samsum", "--seed", "3"], "prog")
    assert read == (RECIPES["samsum"], ["--seed", "3"], "prog samsum")
    Path("my own.py").write_text("from sweeps.recipes import samsum as recipe")
    assert read_recipe(["my own.py"], "prog")[2] == "prog 'my own.py'"
    with pytest.raises(SweepAborted, match="no recipe was named"):
        read_recipe([], "prog")


def test_near_recipe_is_suggested() -> None:
    with pytest.raises(SweepAborted) as caught:
        find_recipe("samsumm")
    assert caught.value.fix == "did you mean samsum?"
