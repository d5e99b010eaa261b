"""What tyro says of a command line, in a user's words: the flag, its value, and what is allowed."""

import re
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sweeps.command_line.help_layout import Flag
from trainables.shell import get_flag

_WORDS = {int: "a whole number", float: "a number", bool: "True or False", NoneType: "None"}
_REFUSED = re.compile(
    r"Error parsing (?P<parsed>--\S+):.*?(?P<values>\[?['\"].*['\"])\]?\.?$"
    r"|invalid choice (?P<choice>.*) for argument '(?P<chosen>--[^']*)'"
    r"|Missing value for argument '(?P<empty>--[^']*)'"
)


def explain_refusal(boxed: str, flags: Sequence[Flag]) -> tuple[str, str]:
    """The message in tyro's frame, and the flag that it suggests (or "").

    Args:
        flags: all that the command has.
    """
    paragraphs: list[list[str]] = [[]]
    for line in boxed.splitlines():
        if line[:1] in "╭╰":
            continue
        text = line.strip("│ ").strip()
        if text.strip("─"):
            paragraphs[-1].append(text)
        else:
            paragraphs.append([])
    error = " ".join(paragraphs[0]) or "the command line could not be read"
    if error.startswith("Missing from"):
        listed, _, _ = boxed.partition("│ ──")
        names = re.findall(r"^│ {5}(\S.*?) *│$", listed, re.M)  # what explains them stands deeper
        error = f"missing: {', '.join(names)}"
    elif refused := _REFUSED.match(error):
        error = _explain_value(refused, flags) or error
    hint = paragraphs[1] if len(paragraphs) > 1 else []
    fix = f"perhaps you meant {hint[1]}" if hint[:1] == ["Perhaps you meant:"] else ""
    return name_flags(error, flags), fix


def name_flags(error: str, flags: Sequence[Flag]) -> str:
    """What a dataclass says of its fields, said of the flags that these are."""
    error = re.sub(r"^Error parsing \w+: ", "", error)
    for name in {field.name for field, _ in flags if not _is_positional(field.type)}:
        flag = get_flag(name)
        error = re.sub(rf"^{name}(?= is )", flag, error)
        if "_" in name:
            error = re.sub(rf"(?<![\w'\"/.-]){name}(?![\w'\"/.=(])", flag, error)
    return error


def _explain_value(refused: re.Match[str], flags: Sequence[Flag]) -> str:
    """What a flag has, and what it takes; "" for a flag that is none of these."""
    said = refused.groupdict()
    flag = said["parsed"] or said["chosen"] or said["empty"]
    types = [field.type for field, _ in flags if get_flag(field.name) == flag]
    if not types:
        return ""
    values = (said["values"] or said["choice"] or "").strip("[]")
    found = f"is {values}" if values else "lacks a value"
    return f"{flag} {found}; it must be {_describe_type(types[0])}"


def _describe_type(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _describe_type(inner[0])
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(map(_describe_type, inner))
    if origin is tuple:
        number = "one or more" if inner[-1] is ... else str(len(inner))
        return f"{number} values, each {_describe_type(inner[0])}"
    return _WORDS.get(kind, "a text")


def _is_positional(kind: Any) -> bool:
    return any(repr(note) == "Positional" for note in getattr(kind, "__metadata__", ()))
