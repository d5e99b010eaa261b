"""The untuned base and an adapter, over one base in memory, answer one question at a time."""

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any

from sweeps.publish.trained_run import TrainedRun
from trainables.data.conversations import Unusable
from trainables.data.prepared_rows import read_rows
from trainables.data.questions import make_question
from trainables.data.rows import Row, Splits, select_fixed_slice

Values = dict[str, Any]
"""What a user gives: a text by the name of each column of the prompt, or of chats the turns."""


@dataclass(frozen=True)
class Answer:
    """What one of the two says."""

    text: str
    probabilities: dict[str, float] | None
    """The likeliest labels with their probabilities; None for texts."""


@dataclass(frozen=True)
class Example:
    """A row of validation, as a user could give it."""

    values: Values
    target: str


class SideBySide:
    """Answers as the sweep's rows were scored; thread-safe."""

    def __init__(self, run: TrainedRun) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._rows: Sequence[Row] = ()
        self._results = self._open()

    def ask(self, for_base: Values, for_adapter: Values) -> tuple[Answer, Answer]:
        """What the base and the adapter say; the first question loads them.

        Args:
            for_base, for_adapter: different in a chat, where each has given answers of its own.

        Raises:
            Unusable: there is nothing to ask; its text is the reason.
            SweepAborted: the GPU's memory does not hold the question.
        """
        rows = [make_row(values, self.run.splits) for values in (for_base, for_adapter)]
        if rows[0] == rows[1]:
            del rows[1]
        with self._lock:
            self._rows = rows
            try:
                base, adapter = next(self._results)
            except BaseException:
                self._results = self._open()  # a generator that has raised is at its end
                raise
        answers = []
        for result, index in ((base, 0), (adapter, len(rows) - 1)):
            probabilities = result.probabilities[index] if result.probabilities else None
            answers.append(Answer(result.answers[index], probabilities))
        return answers[0], answers[1]

    def note_cut(self, values: Values) -> str:
        """To how many tokens the prompt is cut; "" if it is not."""
        limit, num_cut = self.run.count_cut([make_row(values, self.run.splits)])
        return f"The text was cut: the prompt has {limit:,} tokens at most." if num_cut else ""

    def _open(self) -> Iterator[Any]:
        return self.run.answer(self._list_windows(), [None, self.run.adapter])

    def _list_windows(self) -> Iterator[Sequence[Row]]:
        while True:
            yield self._rows


def make_row(values: Values, splits: Splits) -> Row:
    """The row that the sweep would have made of them.

    Raises:
        Unusable: there is nothing to ask.
    """
    return replace(make_question(values, splits, "1"), target="")


def list_examples(run: TrainedRun, num_examples: int) -> list[Example]:
    """Rows of validation, but for those that cannot be taken apart into columns again."""
    splits = read_rows(run.paths.rows, ["validation"])
    rows = select_fixed_slice(splits.validation, min(num_examples, len(splits.validation)))
    values = [take_apart(row, splits) for row in rows]
    return [
        Example(given, row.target)
        for row, given in zip(rows, values, strict=True)
        if given is not None
    ]


def take_apart(row: Row, splits: Splits) -> Values | None:
    """The texts of the columns that a prompt was made of; None where these are not plain."""
    assert splits.columns is not None
    column_of = splits.columns.prompt
    if splits.scoring.kind == "chat":
        turns = [{"role": turn.role, "content": turn.content} for turn in row.history]
        turns.append({"role": "user", "content": row.prompt})
        values: Values = {column_of[splits.source]: turns}
    else:
        prompt, begin, end = row.prompt, row.cut_from, row.cut_to
        parts = {splits.source: re.escape(prompt[begin:end])}  # it is known where the text stands
        names: dict[str, str] = {}
        pattern = ""
        for literal, name, _, _ in Formatter().parse(splits.prompt_template):
            pattern += re.escape(literal)
            if name is None:
                continue
            if name in names:
                pattern += f"(?P={names[name]})"
            else:
                names[name] = f"column{len(names)}"
                pattern += f"(?P<{names[name]}>{parts.get(name, '.*?')})"
        match = re.fullmatch(pattern, prompt, re.DOTALL)
        if match is None:
            return None
        values = {column_of[name]: match[group] for name, group in names.items()}
    try:
        again = make_row(values, splits)
    except Unusable:
        return None
    return values if _read_inputs(again) == _read_inputs(row) else None


def _read_inputs(row: Row) -> tuple[object, ...]:
    """What a model reads of it."""
    turns = [(turn.role, turn.content) for turn in row.history]
    return turns, row.prompt, row.cut_from, row.cut_to
