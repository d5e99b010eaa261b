"""The recipe that a command line names: one of ours, or a function in the user's own file."""

import difflib
import importlib.util
import itertools
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sweeps.config import SweepConfig, find_bad_value
from sweeps.recipes import RECIPES, Recipe
from trainables.config import TaskOptions
from trainables.errors import SweepAborted
from trainables.shell import write_command

_SIGNATURE = "recipe(is_tiny: bool) -> SweepConfig"


def read_recipe(argv: Sequence[str], prog: str) -> tuple[Recipe, list[str], str]:
    """The recipe that a command line names first, the flags after it, and prog with the recipe.

    Raises:
        SweepAborted: no recipe stands first, or there is none of that name.
    """
    known = f"{prog} RECIPE, with RECIPE one of {', '.join(RECIPES)} or the path of a .py file"
    if not argv:
        raise SweepAborted("no recipe was named", known)
    if argv[0] in ("-h", "--help"):
        return next(iter(RECIPES.values())), list(argv), f"{prog} RECIPE"
    if argv[0].startswith("-"):
        raise SweepAborted(f"the recipe comes first, before {argv[0]}", known)
    return find_recipe(argv[0]), list(argv[1:]), f"{prog} {write_command(argv[0])}"


def read_default_config(argv: Sequence[str], prog: str) -> tuple[SweepConfig, list[str], str]:
    """The config that a command line begins with, the flags that change it, and prog with both.

    Raises:
        SweepAborted: no recipe stands first, there is none of that name, or flags contradict.
    """
    recipe, flags, prog = read_recipe(argv, prog)
    words = {*flags, *map(" ".join, itertools.pairwise(flags))}
    names = {flag.partition("=")[0].replace("_", "-") for flag in flags}
    if {"--epochs", "--max-steps"} <= names:
        raise SweepAborted(
            "--epochs and --max-steps both say how long a trial trains", "leave out one of them"
        )
    config = recipe("--tiny" in flags)
    if "--max-steps" in names:
        config = replace(config, epochs=None)
    if "--data" in names and argv[0] == "table":  # the bundled file's columns say nothing of it
        is_named = {"--input", "--target"} <= names
        kind = config.task_options.kind if is_named else None
        config = replace(config, task_options=TaskOptions(kind=kind))
    elif argv[0] == "table" and config.tiny and {"--kind chat", "--kind=chat"} & words:
        raise SweepAborted(
            "--kind chat is of conversations, and the bundled rows of --tiny are messages and "
            "labels",
            f"name a file of yours: {prog} --tiny --data FILE --input COLUMN --kind chat",
        )
    return config, flags, prog


def find_recipe(name: str) -> Recipe:
    """The recipe of this name, or the function `recipe` of the Python file at this path.

    Raises:
        SweepAborted: no such recipe (names the nearest), or the file has no such function.
    """
    if name in RECIPES:
        return RECIPES[name]
    if name.endswith(".py"):
        return _load_recipe_file(Path(name))
    near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
    known = ", ".join(RECIPES)
    raise SweepAborted(
        f"there is no recipe {name!r}",
        f"did you mean {near[0]}?" if near else f"choose one of {known}, or the path of a .py file",
    )


def _load_recipe_file(path: Path) -> Recipe:
    if not path.is_file():
        raise SweepAborted(f"there is no recipe file {path}", "check the path")
    name = f"recipe_{path.stem}"  # a recipe called random.py hides no other module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _blame_file(path):
        spec.loader.exec_module(module)
    function = vars(module).get("recipe")
    if not callable(function):
        raise SweepAborted(f"{path} has no function named recipe", f"define {_SIGNATURE} in it")

    def recipe(is_tiny: bool) -> SweepConfig:
        with _blame_file(path):
            config = function(is_tiny)
        if not isinstance(config, SweepConfig):
            raise SweepAborted(
                f"recipe in {path} returned a {type(config).__name__}", f"let it be {_SIGNATURE}"
            )
        bad_value = find_bad_value(config)
        if bad_value:
            raise SweepAborted(f"recipe in {path} gives a bad value: {bad_value}", f"edit {path}")
        return replace(config, recipe=str(path))

    return recipe


@contextmanager
def _blame_file(path: Path) -> Iterator[None]:
    """A user's own file may raise anything; the line of it that did so is the remedy."""
    try:
        yield
    except SweepAborted:
        raise
    except (Exception, SystemExit) as raised:
        frames = traceback.extract_tb(raised.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path.absolute())]
        line = raised.lineno if isinstance(raised, SyntaxError) else (lines or [1])[-1]
        raise SweepAborted(
            f"{path} raised {type(raised).__name__}: {raised}", f"look at line {line} of {path}"
        ) from raised
