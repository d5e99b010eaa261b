"""Commands that can be pasted: a real shell reads each word as it was."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.examples import max_examples
from tests.sweeps.commands import read_by_shell
from trainables.shell import write_command, write_flag

PROJECT = Path(__file__).resolve().parents[2]
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
    packages = ("sweeps", "trainables", "search_spaces", "cluster")
    files = [path for package in packages for path in (PROJECT / package).rglob("*.py")]
    users = {path for path in files if "shlex" in path.read_text("utf-8")}
    # cluster imports nothing of the others
    assert users == {PROJECT / "trainables" / "shell.py", PROJECT / "cluster" / "launch.py"}
