"""Commands that can be pasted: a real shell reads each word as it was."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.examples import max_examples
from tests.sweeps.commands import read_by_shell
from trainables.shell import write_command, write_flag

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("sweeps", "trainables", "search_spaces", "cluster")
FILES = [path for package in PACKAGES for path in (PROJECT / package).rglob("*.py")]
COMMAND = re.compile(r"(python -m [\w.]+|wandb sync|optuna-dashboard) \Z")
"""What a text ends with where a command's words are put in."""
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


@max_examples(40)
@given(words=st.lists(st.text(LETTERS, max_size=8), max_size=4))
@example(words=["", "it's", '"a  b"', "$HOME `id` $(id)", "~", "~/a", "!1", "*?[a]", "a\\", "#"])
@example(words=["a\nb", "\x1b[2Jé'\\", "\u202e", "\r\t", "\x01f"])
def test_shell_reads_each_word_as_it_was(words: list[str]) -> None:
    command = write_command(*words)
    assert command.isprintable()
    assert read_by_shell(command) == words


def test_path_is_never_read_as_a_flag() -> None:
    assert write_command(Path("-a/b"), Path("/-a")) == "./-a/b /-a"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a", ["--to-do", "a"]),
        ("-a", ["--to-do=-a"]),
        (-1.5, ["--to-do=-1.5"]),
        (("a", "b"), ["--to-do", "a", "b"]),
        (True, ["--to-do"]),
        (False, ["--no-to-do"]),
    ],
)
def test_value_that_begins_with_a_dash_is_joined_to_its_flag(
    value: object, words: list[str]
) -> None:
    assert write_flag("to_do", value) == words


def test_no_other_file_quotes_words_for_a_shell() -> None:
    users = {path for path in FILES if "shlex" in path.read_text("utf-8")}
    # cluster imports nothing of the others
    assert users == {PROJECT / "trainables" / "shell.py", PROJECT / "cluster" / "launch.py"}


def test_words_of_every_shown_command_are_quoted() -> None:
    num_found = 0
    for path in FILES:
        source = path.read_text("utf-8")
        for text, word in _list_texts_before_words(ast.parse(source)):
            if COMMAND.search(text):
                num_found += 1
                shown = ast.unparse(word)
                is_quoted = shown.startswith("write_command(")
                assert is_quoted or f" {shown} = write_command(" in source, (path, text, shown)
    assert num_found > 15


def _list_texts_before_words(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """What stands before each value in f-strings and in formats of the log."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for text, word in zip(node.values, node.values[1:], strict=False):
                if isinstance(text, ast.Constant) and isinstance(word, ast.FormattedValue):
                    yield str(text.value), word.value
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            texts = re.split("%[^%]*?[sdf]", str(node.args[0].value))
            yield from zip(texts, node.args[1:], strict=False)
