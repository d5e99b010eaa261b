"""Recipe files of the user's own that cannot be read, raise, or give what no sweep takes."""

from pathlib import Path

from tests.benchmarks.mistakes.mistake import Mistake, Prepare

COMMAND = "sweeps.run mine.py --tiny"
HEAD = "from dataclasses import replace\nfrom sweeps.recipes import samsum\n"


def _recipe(body: str) -> str:
    return f"{HEAD}\ndef recipe(is_tiny):\n    {body}\n"


def _changed(values: str) -> str:
    return _recipe(f"return replace(samsum(is_tiny), {values})")


CONTENTS: list[tuple[str, str | bytes, str]] = [
    ("is empty", "", "mine.py"),
    ("has a syntax error", "def recipe(is_tiny)\n    return 1\n", "SyntaxError"),
    ("mixes tabs and spaces", "def recipe(is_tiny):\n\tx = 1\n        return x\n", "TabError"),
    ("holds NUL bytes", "x = 1\n\0\n", "mine.py"),
    ("is not UTF-8", "# Größe\n".encode("latin-1"), "mine.py"),
    ("is UTF-16", _changed("seed=1").encode("utf-16"), "mine.py"),
    ("is no Python", b"\x7fELF\x02\x01\x01" + bytes(range(128, 256)), "mine.py"),
    ("calls the function otherwise", _recipe("return 1").replace("recipe(", "sweep("), "recipe"),
    ("has a recipe that is no function", "recipe = 3\n", "recipe"),
    ("has a recipe that is a class", "class recipe:\n    pass\n", "mine.py"),
    ("returns None", _recipe("samsum(is_tiny)"), "NoneType"),
    ("returns a dict", _recipe("return {'seed': 1}"), "dict"),
    ("returns the function of another recipe", _recipe("return samsum"), "function"),
    ("takes no argument", _recipe("return samsum()").replace("(is_tiny):", "():"), "TypeError"),
    ("takes two arguments", _recipe("return 1").replace("(is_tiny)", "(a, b)"), "TypeError"),
    ("raises", _recipe("raise RuntimeError('not today')"), "not today"),
    ("raises without a word", _recipe("assert not is_tiny"), "AssertionError"),
    ("raises when it is imported", "1 / 0\n", "ZeroDivisionError"),
    ("exits", "import sys\nsys.exit('enough')\n", "SystemExit"),
    ("recurs for ever", _recipe("return recipe(is_tiny)"), "RecursionError"),
    ("raises text of many lines", _recipe("raise ValueError('one\\ntwo\\x1b[2J')"), "one two"),
    ("imports what is not there", "import no_such_module\n", "no_such_module"),
    ("imports a recipe that is not there", "from sweeps.recipes import samsun\n", "samsun"),
    ("reads a file that is not there", _recipe("return open('none.json').read()"), "none.json"),
    ("names an unknown field", _changed("num_trails=3"), "num_trails"),
    ("gives no trials", _changed("num_trials=0"), "num_trials"),
    ("gives a number as text", _changed("num_trials='12'"), "mine.py"),
    ("gives half a step", _changed("max_steps=1.5"), "max_steps"),
    ("gives None for a number", _changed("batch_size=None"), "mine.py"),
    ("gives a list for a name", _changed("name=['a']"), "mine.py"),
    ("gives an unknown task", _changed("task='poetry'"), "poetry"),
    ("gives an unknown engine", _changed("engine='warp'"), "engine"),
    ("gives a space that is none", _changed("space={'lora_rank': [8]}"), "space"),
    ("gives start points that are none", _changed("start_points=3"), "start_points"),
    ("gives an unknown start point", _changed("start_points=({'rank': 8},)"), "rank"),
    ("gives task options that are none", _changed("task_options='text'"), "mine.py"),
    ("gives not a number", _changed("weight_decay=float('nan')"), "weight_decay"),
    ("gives a model that is none", _changed("model=None"), "mine.py"),
    ("gives data that is none", _changed("data=7"), "mine.py"),
]
"""What the file does, its content, and what the error has to name."""


def _as_folder(here: Path) -> None:
    (here / "mine.py").mkdir()


def _as_dead_link(here: Path) -> None:
    (here / "mine.py").symlink_to("gone.py")


PLACES: list[tuple[str, str, Prepare | None]] = [
    ("is not there", COMMAND, None),
    ("is a folder", COMMAND, _as_folder),
    ("is a link to nothing", COMMAND, _as_dead_link),
    ("has no .py at its end", "sweeps.run ./mine --tiny", None),
    ("is a notebook", "sweeps.run mine.ipynb --tiny", None),
]

MISTAKES = [
    *(
        Mistake(
            kind="recipe",
            title=title,
            command=COMMAND.replace("run", "trial") if number % 8 == 7 else COMMAND,
            files={"mine.py": content},
            named=named,
        )
        for number, (title, content, named) in enumerate(CONTENTS)
    ),
    *(
        Mistake(kind="recipe", title=title, command=command, prepare=prepare, named="mine")
        for title, command, prepare in PLACES
    ),
]
