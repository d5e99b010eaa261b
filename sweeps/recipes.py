"""Named sweeps: one function a sweep, which returns its config."""

import difflib
import importlib.util
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from search_spaces import samsum as samsum_space
from search_spaces import table as table_space
from search_spaces import turkish_tweets as turkish_tweets_space
from sweeps.config import SweepConfig
from trainables import tiny as bundled
from trainables.config import TaskOptions
from trainables.errors import SweepAborted

Recipe = Callable[[bool], SweepConfig]
"""Takes is_tiny: whether to use the bundled model, data and budget."""

_SIGNATURE = "recipe(is_tiny: bool) -> SweepConfig"


def samsum(is_tiny: bool = False) -> SweepConfig:
    """Summarise chats: Qwen3-0.6B on SAMSum, ranked by ROUGE-Lsum on validation."""
    if is_tiny:
        return SweepConfig(
            recipe="samsum",
            task="samsum",
            tiny=True,
            model=str(bundled.MODEL_DIR),
            data=str(bundled.SAMSUM_DIR),
            space=samsum_space.TINY_SPACE,
            start_points=samsum_space.TINY_START_POINTS,
            num_trials=12,
            max_steps=90,
            eval_rows=48,
            eval_batch_size=48,
            max_new_tokens=48,
            max_length_tokens=384,
            name=_dated("samsum-tiny"),
        )
    return SweepConfig(
        recipe="samsum",
        task="samsum",
        model="Qwen/Qwen3-0.6B",
        space=samsum_space.SPACE,
        start_points=samsum_space.START_POINTS,
        num_trials=32,
        max_steps=900,
        batch_size=16,
        micro_batch_size=16,
        eval_batch_size=64,
        name=_dated("samsum"),
    )


def turkish_tweets(is_tiny: bool = False) -> SweepConfig:
    """Tell whether a Turkish tweet is neutral, negative or positive, ranked by accuracy."""
    if is_tiny:
        return SweepConfig(
            recipe="turkish_tweets",
            task="turkish_tweets",
            tiny=True,
            model=str(bundled.MODEL_DIR),
            data=str(bundled.TWEETS_FILE),
            space=turkish_tweets_space.TINY_SPACE,
            start_points=turkish_tweets_space.TINY_START_POINTS,
            num_trials=12,
            max_steps=90,
            eval_rows=60,
            eval_batch_size=60,
            max_length_tokens=192,
            max_new_tokens=16,
            name=_dated("turkish-tweets-tiny"),
        )
    return SweepConfig(
        recipe="turkish_tweets",
        task="turkish_tweets",
        model="Qwen/Qwen3-0.6B",
        space=turkish_tweets_space.SPACE,
        start_points=turkish_tweets_space.START_POINTS,
        num_trials=32,
        max_steps=540,
        batch_size=16,
        micro_batch_size=16,
        eval_rows=400,
        eval_batch_size=64,
        max_length_tokens=256,
        max_new_tokens=16,
        name=_dated("turkish-tweets"),
    )


def table(is_tiny: bool = False) -> SweepConfig:
    """Your own rows: --data FILE --input COLUMN --target COLUMN --kind summarize or classify."""
    if is_tiny:
        return SweepConfig(
            recipe="table",
            task="table",
            tiny=True,
            model=str(bundled.MODEL_DIR),
            task_options=TaskOptions(input="message", target="intent", kind="classify"),
            data=str(bundled.MESSAGES_FILE),
            space=table_space.TINY_SPACE,
            start_points=table_space.TINY_START_POINTS,
            num_trials=12,
            max_steps=90,
            eval_rows=60,
            eval_batch_size=60,
            max_length_tokens=192,
            max_new_tokens=48,
            name=_dated("table-tiny"),
        )
    return SweepConfig(
        recipe="table",
        task="table",
        model="Qwen/Qwen3-0.6B",
        space=table_space.SPACE,
        start_points=table_space.START_POINTS,
        num_trials=32,
        max_steps=900,
        batch_size=16,
        micro_batch_size=16,
        eval_batch_size=64,
        name=_dated("table"),
    )


RECIPES: dict[str, Recipe] = {
    "samsum": samsum,
    "turkish_tweets": turkish_tweets,
    "table": table,
}


def read_recipe(argv: Sequence[str], prog: str) -> tuple[Recipe, list[str]]:
    """The recipe that a command line names first, and the flags after it.

    Raises:
        SweepAborted: no recipe stands first, or there is none of that name.
    """
    known = f"{prog} RECIPE, with RECIPE one of {', '.join(RECIPES)} or the path of a .py file"
    if argv and argv[0] in ("-h", "--help"):
        return next(iter(RECIPES.values())), list(argv)
    if not argv:
        raise SweepAborted("no recipe was named", known)
    if argv[0].startswith("-"):
        raise SweepAborted(f"the recipe comes first, before {argv[0]}", known)
    return find_recipe(argv[0]), list(argv[1:])


def named(argv: Sequence[str]) -> str:
    """The recipe as it was given, for usage lines and fixes."""
    return "RECIPE" if argv[0].startswith("-") else shlex.quote(argv[0])


def find_recipe(name: str) -> Recipe:
    """The recipe of this name, or the function `recipe` of the Python file at this path.

    Raises:
        SweepAborted: no such recipe (names the nearest), or the file has no such function.
    """
    if name in RECIPES:
        return RECIPES[name]
    if name.endswith(".py"):
        return _from_file(Path(name))
    near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
    known = ", ".join(RECIPES)
    raise SweepAborted(
        f"there is no recipe {name!r}",
        f"did you mean {near[0]}?" if near else f"choose one of {known}, or the path of a .py file",
    )


def _from_file(path: Path) -> Recipe:
    if not path.is_file():
        raise SweepAborted(f"there is no recipe file {path}", "check the path")
    name = f"recipe_{path.stem}"  # a recipe called random.py hides no other module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _blamed_on(path):
        spec.loader.exec_module(module)
    function = vars(module).get("recipe")
    if not callable(function):
        raise SweepAborted(f"{path} has no function named recipe", f"define {_SIGNATURE} in it")

    def recipe(is_tiny: bool) -> SweepConfig:
        with _blamed_on(path):
            config = function(is_tiny)
        if not isinstance(config, SweepConfig):
            raise SweepAborted(
                f"recipe in {path} returned a {type(config).__name__}", f"let it be {_SIGNATURE}"
            )
        return replace(config, recipe=str(path))

    return recipe


@contextmanager
def _blamed_on(path: Path) -> Iterator[None]:
    """A user's own file may raise anything; the line of it that did so is the remedy."""
    try:
        yield
    except SweepAborted:
        raise
    except (Exception, SystemExit) as raised:
        lines = [f.lineno for f in traceback.extract_tb(raised.__traceback__)
                 if f.filename == str(path.absolute())]  # fmt: skip
        line = raised.lineno if isinstance(raised, SyntaxError) else (lines or [1])[-1]
        raise SweepAborted(
            f"{path} raised {type(raised).__name__}: {raised}", f"look at line {line} of {path}"
        ) from raised


def _dated(name: str) -> str:
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
