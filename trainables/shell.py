"""Commands that are shown to be pasted: any word as bash and zsh read it. Standard library only."""

import os
import shlex
from pathlib import Path
from typing import Any


def write_command(*words: object) -> str:
    """The words between blanks, each quoted where it has to be; a Path is never read as a flag."""
    return " ".join(map(_quote, words))


def get_flag(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


def write_flag(name: str, value: Any) -> list[str]:
    """The words by which a command line gives a field its value."""
    flag = get_flag(name)
    if isinstance(value, bool):
        return [flag if value else get_flag(f"no_{name}")]
    shown = [str(one) for one in (value if isinstance(value, tuple | list) else (value,))]
    if len(shown) == 1 and shown[0].startswith("-"):
        return [f"{flag}={shown[0]}"]
    return [flag, *shown]


def _quote(word: object) -> str:
    text = str(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_escape, text))}'"  # a newline, or what a terminal would obey


def _escape(char: str) -> str:
    if char.isprintable() and char not in "'\\":
        return char
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
