"""Prompt templates: a task's own by name, or the user's, checked before any row is read."""
# ruff: noqa: RUF001 - Turkish has a dotless i

import string
from collections.abc import Collection, Mapping, Sequence

from trainables.config import Kind, Language
from trainables.errors import SweepAborted

MAX_LISTED_LABELS = 50
"""Labels that a question lists; more would leave no room for the text."""
QUESTIONS: dict[Language, dict[str, str]] = {
    "english": {
        "summarize": "Summarize the following text.",
        "generate": "",
        "classify": "Classify the following text. Answer with one of: {labels}.",
        "many": "Classify the following text. Answer with its label alone.",
    },
    "turkish": {
        "summarize": "Aşağıdaki metni özetle.",
        "generate": "",
        "classify": "Aşağıdaki metni sınıflandır. Şunlardan biriyle yanıtla: {labels}.",
        "many": "Aşağıdaki metni sınıflandır. Yalnızca etiketiyle yanıtla.",
    },
    "portuguese": {
        "summarize": "Resuma o texto a seguir.",
        "generate": "",
        "classify": "Classifique o texto a seguir. Responda com uma destas opções: {labels}.",
        "many": "Classifique o texto a seguir. Responda apenas com o rótulo.",
    },
}


def choose_template(
    given: str | None, named: Mapping[str, str], columns: Collection[str], source: str
) -> str:
    """The first named template if none is given, a named one, or the given text itself.

    Args:
        named: the task's own templates; the first is its default.
        columns: what a template may name in braces.
        source: the column that every template must name.

    Raises:
        SweepAborted: given is neither a name nor a template that fill can fill.
    """
    if given is None:
        return next(iter(named.values()))
    if given in named:
        return named[given]
    known = f"{' or '.join(named)}, or a text with {{{source}}}"
    if "{" not in given:
        raise SweepAborted(f"the prompt {given!r} has no {{{source}}}", f"let --prompt be {known}")
    names = _read_names(given, known)
    unknown, allowed = (
        ", ".join(f"{{{name}}}" for name in some)
        for some in (sorted(names - set(columns)), columns)
    )
    if unknown:
        raise SweepAborted(
            f"the prompt {given!r} names no such column: {unknown}",
            f"name {allowed} only; write {{{{ and }}}} for braces, and rename a column whose name "
            "has . : ! or brackets",
        )
    if source not in names:
        raise SweepAborted(f"the prompt {given!r} has no {{{source}}}", f"let --prompt be {known}")
    return given


def make_question(given: str | None, kind: Kind, language: Language, labels: Sequence[str]) -> str:
    """What a row is asked, to stand in a template: the question given, or the language's own.

    Args:
        given: a question with {labels} where these are to stand.
    """
    is_many = kind == "classify" and len(labels) > MAX_LISTED_LABELS
    question = given or QUESTIONS[language]["many" if is_many else kind]
    names = ", ".join(labels).replace("{", "{{").replace("}", "}}")
    return question.replace("{labels}", names)


def find_cut(template: str, values: Mapping[str, str], column: str) -> tuple[int, int | None]:
    """Where the column's text begins and ends in the filled template: what a long row may lose.

    A template without it may lose its whole text.
    """
    begin = 0
    for literal, name, _, _ in string.Formatter().parse(template):
        begin += len(literal)
        if name == column:
            return begin, begin + len(values[column])
        begin += len(values[name]) if name else 0
    return 0, None


def _read_names(template: str, known: str) -> set[str]:
    """Every name in braces, as it stands there; a conversion or a format counts as part of it."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as refused:
        raise SweepAborted(
            f"the prompt {template!r} cannot be read: {refused}",
            f"let --prompt be {known}; write {{{{ and }}}} for braces",
        ) from None
    return {
        name + (f"!{conversion}" if conversion else "") + (f":{layout}" if layout else "")
        for _, name, layout, conversion in parts
        if name is not None
    }
