"""Rows of any table as the rows that a finished sweep was tested on: what its adapter is asked."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.data.conversations import Unusable, add_system, read_question, split_thought
from trainables.data.labels import read_value
from trainables.data.rows import Document, Row, Splits, TableColumns
from trainables.data.splitting import make_row
from trainables.data.tables.table import Table, read_cell, require_columns, to_json_value


@dataclass(frozen=True)
class Questions:
    """A table's rows."""

    records: list[dict[str, Any]]
    """As JSON values, by column."""
    questions: list[Row | None]
    """None where there is nothing to ask. Right answers are the targets, "" where none is known."""
    notes: list[str]
    """What is to be told of them."""


def read_questions(table: Table, splits: Splits) -> Questions:
    """The rows of a table as the sweep would have asked them.

    Args:
        splits: the run's, whose columns are known.

    Raises:
        SweepAborted: a column is missing, or there are two of a name.
    """
    assert splits.columns is not None
    check_columns(table, splits.columns)
    target = splits.columns.target
    questions: list[Row | None] = []
    unusable: Counter[str] = Counter()
    num_unknown = 0
    rows = [{str(k): v for k, v in row.items()} for row in table.frame.to_dict("records")]
    for number, values in enumerate(rows, 1):
        try:
            question = make_question(values, splits, str(number))
        except Unusable as reason:
            unusable[str(reason)] += 1
            questions.append(None)
            continue
        num_unknown += not question.target and bool(read_cell(values.get(target)))
        questions.append(question)
    notes = [table.note]
    if unusable:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in unusable.items())
        notes.append(f"rows without a prediction: {reasons}")
    if num_unknown:
        notes.append(f"not scored: {num_unknown:,} rows whose {target} is no label of the sweep's")
    records = [{name: to_json_value(value) for name, value in row.items()} for row in rows]
    return Questions(records, questions, notes)


def check_columns(table: Table, columns: TableColumns) -> None:
    """Whether the table has what the prompt names.

    Raises:
        SweepAborted: a column is missing, or there are two of a name.
    """
    names = list(dict.fromkeys(columns.prompt.values()))
    require_columns(
        table.columns,
        [*names, *table.columns],
        table.source,
        fix=f"name its columns as the sweep's data had them: {', '.join(names)}",
        has_choice=False,
    )


def make_question(values: Mapping[str, object], splits: Splits, id_: str) -> Row:
    """The row that the sweep would have made; the target is "" where none is known, or where it is
    no label of the sweep's.

    Args:
        values: by column.
        splits: the run's, whose columns are known.

    Raises:
        Unusable: there is nothing to ask; its text is the reason.
    """
    columns, template, source = splits.columns, splits.prompt_template, splits.source
    assert columns is not None
    if splits.scoring.kind == "chat":
        conversation = read_question(values[columns.prompt[source]], columns.train_on)
        history, target = conversation.history, conversation.answer
        texts = {source: conversation.prompt}
    else:
        cells = {name: read_cell(values[column]) for name, column in columns.prompt.items()}
        texts = {name: text for name, text in cells.items() if text is not None}
        if len(texts) < len(cells):
            raise Unusable("not text")
        if not texts[source]:
            raise Unusable("blank input")
        history, target = (), read_cell(values.get(columns.target)) or ""
        if splits.scoring.kind == "classify":
            value = read_value(target, columns.label_names, columns.label_words)
            label = columns.label_names.get(value, value)
            target = label if label in splits.scoring.labels else ""
        else:
            target = split_thought(target)[0]
    document = Document(
        id=id_,
        source=texts[source],
        target=target,
        columns=texts,
        history=add_system(history, columns.system_prompt),
    )
    return make_row(document, template, source)
