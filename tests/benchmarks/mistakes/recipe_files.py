"""Recipe files of the user's own that cannot be read, raise, or give what no sweep takes."""

from tests.benchmarks.mistakes.damage import Damage, link, make_folder
from tests.benchmarks.mistakes.mistake import Mistake

COMMAND = "sweeps.run mine.py --tiny"
HEAD = "from dataclasses import replace\nfrom sweeps.recipes import samsum\n"


def _define(body: str) -> str:
    return f"{HEAD}\ndef recipe(is_tiny):\n    {body}\n"


def _vary(values: str) -> str:
    return _define(f"return replace(samsum(is_tiny), {values})")


CONTENTS: list[tuple[str, str | bytes, str]] = [
    ("is empty", "", "mine.py"),
    ("has a syntax error", "def recipe(is_tiny)\n    return 1\n", "SyntaxError"),
    ("mixes tabs and spaces", "def recipe(is_tiny):\n\tx = 1\n        return x\n", "TabError"),
    ("holds NUL bytes", "x = 1\n\0\n", "mine.py"),
    ("is not UTF-8", "# Größe\n".encode("latin-1"), "mine.py"),
    ("is UTF-16", _vary("seed=1").encode("utf-16"), "mine.py"),
    ("is no Python", b"\x7fELF\x02\x01\x01" + bytes(range(128, 256)), "mine.py"),
    ("calls the function otherwise", _define("return 1").replace("recipe(", "sweep("), "recipe"),
    ("has a recipe that is no function", "recipe = 3\n", "recipe"),
    ("has a recipe that is a class", "class recipe:\n    pass\n", "mine.py"),
    ("returns None", _define("samsum(is_tiny)"), "NoneType"),
    ("returns a dict", _define("return {'seed': 1}"), "dict"),
    ("returns the function of another recipe", _define("return samsum"), "function"),
    ("takes no argument", _define("return samsum()").replace("(is_tiny):", "():"), "TypeError"),
    ("takes two arguments", _define("return 1").replace("(is_tiny)", "(a, b)"), "TypeError"),
    ("raises", _define("raise RuntimeError('not today')"), "not today"),
    ("raises without a word", _define("assert not is_tiny"), "AssertionError"),
    ("raises when it is imported", "1 / 0\n", "ZeroDivisionError"),
    ("exits", "import sys\nsys.exit('enough')\n", "SystemExit"),
    ("recurs for ever", _define("return recipe(is_tiny)"), "RecursionError"),
    ("raises text of many lines", _define("raise ValueError('one\\ntwo\\x1b[2J')"), "one two"),
    ("imports what is not there", "import no_such_module\n", "no_such_module"),
    ("imports a recipe that is not there", "from sweeps.recipes import samsun\n", "samsun"),
    ("reads a file that is not there", _define("return open('none.json').read()"), "none.json"),
    ("names an unknown field", _vary("num_trails=3"), "num_trails"),
    ("gives no trials", _vary("num_trials=0"), "num_trials"),
    ("gives a number as text", _vary("num_trials='12'"), "mine.py"),
    ("gives half a step", _vary("max_steps=1.5"), "max_steps"),
    ("gives None for a number", _vary("batch_size=None"), "mine.py"),
    ("gives a list for a name", _vary("name=['a']"), "mine.py"),
    ("gives an unknown task", _vary("task='poetry'"), "poetry"),
    ("gives an unknown engine", _vary("engine='warp'"), "engine"),
    ("gives a space that is none", _vary("space={'lora_rank': [8]}"), "space"),
    ("gives start points that are none", _vary("start_points=3"), "start_points"),
    ("gives an unknown start point", _vary("start_points=({'rank': 8},)"), "rank"),
    ("gives task options that are none", _vary("task_options='text'"), "mine.py"),
    ("gives not a number", _vary("weight_decay=float('nan')"), "weight_decay"),
    ("gives a model that is none", _vary("model=None"), "mine.py"),
    ("gives data that is none", _vary("data=7"), "mine.py"),
]
"""What the file does, its content, and what the error has to name."""

PLACES: list[tuple[str, str, Damage | None]] = [
    ("is not there", COMMAND, None),
    ("is a folder", COMMAND, make_folder("mine.py")),
    ("is a link to nothing", COMMAND, link("mine.py", "gone.py")),
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
