"""The flags that fit a table's columns: by their names and how full they are, then by length."""

import re
from collections.abc import Collection, Sequence

from trainables.config import Kind, TaskOptions
from trainables.data.conversations import is_conversation
from trainables.data.labels import MAX_LABELS
from trainables.data.tables.table import Table, read_cell
from trainables.shell import write_command, write_flag

MAX_SUGGESTED_LABELS = 20
"""A column of at most so many different values is suggested as one of labels."""
MIN_FILLED_FRAC = 0.5
"""Share of its rows that a suggested column fills, if another does."""
MAX_NAME_CHARS = 40
LONG_FRAC = 0.8
"""The first column of at least this share of the longest one's length is the input."""
INSTRUCTIONS = ("instruction", "prompt", "question", "query")
INPUTS = (
    *(*INSTRUCTIONS, "text", "dialogue", "document", "article"),
    *("review", "tweet", "message", "sentence", "content", "body", "comment", "input", "premise"),
    *("source", "src"),
)
"""Names of what a model reads, the likelier first."""
LABELS: tuple[str, ...] = (
    *("label", "category", "sentiment", "class"),
    *("intent", "mood", "emotion", "topic"),
)
ANSWERS: tuple[str, ...] = (
    *("output", "response", "answer", "completion", "summary", "target", "highlights", "chosen"),
    *("reply", "translation", "solution", "reference", "tldr"),
)
SUMMARIES = ("summary", "highlights", "tldr")
CONTEXTS = ("input", "context", "passage")
"""Names of what belongs to an instruction or a question."""
NUM_LOOKED_AT = 1000
MIN_WORDS = 3
"""From how many words on a text is more than a name, in most cells."""
SIDE = ("id", "idx", "index", "unnamed", "uuid", "url", "link", "date", "time", "split")
"""Names of what is neither."""


class Columns:
    """The texts of a table's columns, and what they seem to be."""

    def __init__(self, table: Table) -> None:
        frame = table.frame
        texts = {
            name: [read_cell(value) for value in frame.iloc[:, place]]
            for place, name in enumerate(table.columns)
        }
        self._num_rows = len(frame)
        columns = ((name, frame.iloc[:20, place]) for place, name in enumerate(table.columns))
        self._chats = [name for name, cells in columns if any(map(is_conversation, cells))]
        self.texts = {name: [text for text in some if text] for name, some in texts.items()}
        """The texts of each column, without blank cells and lists."""

    def describe(self) -> str:
        """The columns with the number of their different values."""
        return ", ".join(
            f"{_shorten(name)} ({f'{len(set(texts)):,} different values' if texts else 'no text'})"
            for name, texts in self.texts.items()
        )

    def suggest(self, options: TaskOptions) -> str:
        """The flags that are left to write, and those that were given."""
        if self._chats and options.target is None and options.kind in (None, "chat"):
            return f"try {write_command(*write_flag('input', self._chats[0]))} --kind chat"
        names = self._guess_names() if options.columns is None else {}
        if names:
            given = [names.get(name or "", name) for name in (options.input, options.target)]
            options = TaskOptions(input=given[0], target=given[1], kind=options.kind)
            self.texts = {names[name]: texts for name, texts in self.texts.items()}
        flags = self._choose_flags(options)
        if None in flags.values():
            return "give it a column of texts to read, and one of texts or labels to answer with"
        shown = {"columns": tuple(names.values())} | flags if names else flags
        words = [word for name, value in shown.items() for word in write_flag(name, value)]
        why = "the first row seems to be no row of names: " if names else ""
        return f"{why}try {write_command(*words)}"

    def _choose_flags(self, options: TaskOptions) -> dict[str, str | None]:
        """None stands for a column that is not there."""
        source = options.input or self._find_input({options.target})
        target = options.target or self._find_target(source, options.kind)
        answers = self.texts.get(target or "", [])
        most = MAX_LABELS if _has_word(target or "", LABELS) else MAX_SUGGESTED_LABELS
        is_few = 2 <= len(set(answers)) <= min(most, len(answers) // 2)
        kind = options.kind or ("classify" if is_few else _guess_text_kind(source, target))
        flags = {"input": source, "target": target, "kind": kind}
        beside = [n for n in self.texts if _has_word(n, CONTEXTS) and n not in (source, target)]
        if beside and _is_instruction(source) and options.prompt is None:
            spelled = f"{source}{beside[0]}"
            if self.texts[beside[0]] and spelled.replace("_", "a").isalnum():
                flags["prompt"] = f"{{{source}}} {{{beside[0]}}}"
        return flags

    def _find_input(self, taken: Collection[str | None]) -> str | None:
        """By name, else the first of the long columns; never one with the name of an answer."""
        names = [name for name in self._list_usable() if name not in taken]
        likely = [n for n in names if not _has_word(n, (*LABELS, *ANSWERS))] or names
        by_name = [n for n in likely if _has_word(n, INPUTS)]
        if by_name:
            return min(by_name, key=lambda n: _rank(n, INPUTS))
        likely = [n for n in likely if not self._has_few(n)] or likely
        longest = max(map(self._measure_length, likely), default=0.0)
        return next((n for n in likely if self._measure_length(n) >= LONG_FRAC * longest), None)

    def _find_target(self, source: str | None, kind: str | None) -> str | None:
        """By name, else the column of few values, else the longest that is left."""
        names = [n for n in self._list_usable() if n != source and len(set(self.texts[n])) > 1]
        names = [n for n in names if not _has_word(n, CONTEXTS)]
        any_kind = (*ANSWERS, *LABELS) if _is_instruction(source) else (*LABELS, *ANSWERS)
        by_kind = {"summarize": ANSWERS, "generate": ANSWERS, "classify": LABELS}
        known = by_kind.get(kind or "", any_kind)
        by_name = [n for n in names if _has_word(n, known)]
        if by_name:
            return min(by_name, key=lambda n: _rank(n, known))
        few = [n for n in names if self._has_few(n) and kind not in ("summarize", "generate")]
        return max(few or names, key=self._measure_length, default=None)

    def _has_few(self, name: str) -> bool:
        return len(set(self.texts[name])) <= MAX_SUGGESTED_LABELS

    def _list_usable(self) -> list[str]:
        """The columns with texts: filled ones, and not ids, if there are."""
        names = [name for name, texts in self.texts.items() if texts]
        filled = [n for n in names if len(self.texts[n]) >= MIN_FILLED_FRAC * self._num_rows]
        is_side = {n: _split_words(n)[-1:] and _split_words(n)[-1] in SIDE for n in filled}
        return [n for n in filled if not is_side[n] or _has_word(n, LABELS)] or filled or names

    def _measure_length(self, name: str) -> float:
        return sum(map(len, self.texts[name])) / len(self.texts[name])

    def _guess_names(self) -> dict[str, str]:
        """Names for columns whose "names" look like cells of theirs; {} if they do not."""
        odd = [n for n, texts in self.texts.items() if n in texts or len(n) > 3 * MAX_NAME_CHARS]
        if not odd:
            return {}
        longest = max(self.texts, key=lambda n: sum(map(len, self.texts[n])))
        few = [n for n, t in self.texts.items() if n != longest and 2 <= len(set(t)) <= 20]
        names = {name: f"column{number}" for number, name in enumerate(self.texts, 1)}
        return names | {longest: "text"} | ({few[0]: "label"} if few else {})


def find_unused_texts(table: Table, used: Collection[str]) -> list[str]:
    """The columns that seem to hold what a model should read, and are not used.

    They hold different texts, of several words for the most part unless their name tells that they
    belong to an instruction or a question; and their name is not that of an id or a date.
    """
    unused = []
    for name in table.columns:
        is_side = not set(SIDE).isdisjoint(_split_words(name)[-1:])
        if name in used or is_side or table.columns.count(name) > 1:
            continue
        cells = map(read_cell, table.frame[name].head(NUM_LOOKED_AT))
        texts = {text for text in cells if text}
        are_long = [len(text.split()) >= MIN_WORDS for text in texts]
        if len(texts) > 1 and (_has_word(name, CONTEXTS) or 2 * sum(are_long) > len(texts)):
            unused.append(name)
    return unused


def _split_words(name: str) -> list[str]:
    """The words of a column's name, without the plural: "reviews.text" is review and text."""
    parts = re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+", name)
    return [part.lower().removesuffix("s") if len(part) > 5 else part.lower() for part in parts]


def _has_word(name: str, known: Sequence[str]) -> bool:
    return not {_split_words(word)[0] for word in known}.isdisjoint(_split_words(name))


def _rank(name: str, known: Sequence[str]) -> tuple[int, int]:
    """Lower is likelier: a name that is a known word, ends with one, has one; then their order."""
    words, singular = _split_words(name), [_split_words(word)[0] for word in known]
    place = min(singular.index(word) for word in words if word in singular)
    return 0 if len(words) == 1 else 1 if words[-1] in singular else 2, place


def _guess_text_kind(source: str | None, target: str | None) -> Kind:
    """Answers to instructions and questions are no summaries of them."""
    is_summary = target is None or not _has_word(target, ANSWERS) or _has_word(target, SUMMARIES)
    return "summarize" if is_summary and not _is_instruction(source) else "generate"


def _is_instruction(name: str | None) -> bool:
    return name is not None and _has_word(name, INSTRUCTIONS)


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_NAME_CHARS else f"{name[:MAX_NAME_CHARS]}..."
