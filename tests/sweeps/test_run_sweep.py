"""run_sweep's keywords are the command's flags, and its mistakes are told as the command's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps import SweepAborted, run_sweep
from sweeps.checks.commands import write_resume_call
from sweeps.checks.preflight import check
from sweeps.checks.run_args import RunArgs, read_call, read_command
from sweeps.checks.run_folder import open_run
from sweeps.config import SweepConfig
from sweeps.recipes import samsum

pytestmark = pytest.mark.usefixtures("own_world")

MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"num_trails": 3}, "no keyword 'num_trails'", "perhaps you meant num_trials"),
    ({"lr": 3e-4}, "no keyword 'lr'", "--learning-rates LOW HIGH"),
    ({"dry_run": True}, "no keyword 'dry_run'", "lists the flags"),
    ({"num_trials": "four"}, "num-trials", "--help"),
    ({"num_trials": 0}, "--num-trials is 0", "--help"),
    ({"name": "a b"}, "name is 'a b'", "--help"),
    ({"resume": True}, "--resume needs the name", "begin a new sweep"),
    ({"name": "gone", "resume": True}, "there is no sweep 'gone'", "begin a new sweep"),
    ({"epochs": 1, "max_steps": 3}, "both say how long", "leave out one"),
]


@pytest.mark.parametrize(("flags", "error", "fix"), MISTAKES)
def test_mistakes_have_an_error_and_a_fix(flags: dict[str, Any], error: str, fix: str) -> None:
    with pytest.raises(SweepAborted) as refused:
        run_sweep("samsum", tiny=True, **flags)
    assert error in refused.value.error and fix in refused.value.fix
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("make", "flags", "error", "fix"),
    [
        (lambda c: c, {"num_trials": 3}, "flags beside a config: num_trials", "dataclasses.rep"),
        (lambda c: replace(c, base="NF4"), {}, "bad value: base is 'NF4'", "change it"),
        (
            lambda c: replace(c, space={"ranks": [8]}),
            {},
            "bad value: space is {'ranks': [8]}",
            "change it",
        ),
        (lambda c: replace(c, name="gone"), {"resume": True}, "no sweep 'gone'", "a new sweep"),
        (lambda c: replace(c, data="gone.csv"), {}, "gone.csv", "--data"),
    ],
)
def test_a_config_is_checked_too(
    make: Callable[[SweepConfig], SweepConfig], flags: dict[str, Any], error: str, fix: str
) -> None:
    with pytest.raises(SweepAborted) as refused:
        run_sweep(make(samsum(is_tiny=True)), **flags)
    assert error in refused.value.error and fix in refused.value.fix


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"tiny": True, "num_trials": 4}, "--tiny --num-trials 4"),
        ({"tiny": False, "low_rung_eval_rows": None}, "--low-rung-eval-rows None"),
        ({"lora_ranks": (8, 16), "finals": False}, "--lora-ranks 8 16 --no-finals"),
        ({"learning_rates": [1e-5, 3e-3]}, "--learning-rates 1e-05 3e-3"),
        ({"data": (Path("a.csv"), "b.csv"), "input": "x"}, "--data a.csv b.csv --input x"),
        ({"rsloras": (True, False), "epochs": 1.5}, "--rsloras True False --epochs 1.5"),
        ({"prompt": "--x {dialogue}"}, "--prompt=--x_{dialogue}"),
    ],
)
def test_keywords_are_the_flags(flags: dict[str, Any], words: str) -> None:
    argv = ["samsum", "--name", "a", *(word.replace("_{", " {") for word in words.split())]
    assert read_call("samsum", {"name": "a", **flags}, is_resumed=False) == read_command(argv)


def test_a_config_is_taken_as_it_is() -> None:
    config = replace(samsum(is_tiny=True), num_trials=3)
    assert read_call(config, {}, is_resumed=False) == RunArgs(config=config)


def test_run_that_exists_is_gone_on_with_by_a_call() -> None:
    Path("runs/a").mkdir(parents=True)
    Path("runs/a/sweep.json").touch()
    call = "run_sweep('samsum', tiny=True, name='a', resume=True)"
    config = replace(samsum(is_tiny=True), name="a")
    flags: dict[str, Any] = {"tiny": True, "name": "a"}
    for recipe, more in (("samsum", flags), (config, {})):
        with pytest.raises(SweepAborted, match="exists already") as refused:
            run_sweep(recipe, **more)
        assert refused.value.fix == f"choose another --name, or go on with it: {call}"


def test_resume_of_another_recipe_is_told_as_a_call() -> None:
    config = replace(samsum(is_tiny=True), name="a")
    with open_run(config, check(config, is_resumed=False), is_resumed=False):
        pass
    with pytest.raises(SweepAborted, match="of the recipe samsum, not of table") as refused:
        run_sweep("table", tiny=True, name="a", resume=True)
    assert refused.value.fix == "run_sweep('samsum', tiny=True, name='a', resume=True)"


def test_call_that_resumes_can_be_pasted() -> None:
    config = replace(samsum(is_tiny=True), name="a", runs_dir="my runs", recipe="/a/it's.py")
    said = "run_sweep(\"/a/it's.py\", tiny=True, name='a', runs_dir='my runs', resume=True)"
    assert write_resume_call(config) == said
