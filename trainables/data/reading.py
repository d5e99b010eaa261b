"""A table's rows as a task's: columns chosen, bad rows counted, splits made, labels found."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from trainables.config import Data, Kind, Language, TaskOptions, TrainedTurns
from trainables.data.conversations import (
    Conversation,
    Unusable,
    add_system,
    read_conversation,
    split_thought,
)
from trainables.data.hints import find_unused_texts
from trainables.data.labels import (
    check_label_count,
    describe_shares,
    drop_contradictory,
    find_joined_label,
    find_labels,
    read_value,
    rename_labels,
)
from trainables.data.prompts import choose_template, make_question
from trainables.data.rows import (
    SPLITS,
    Document,
    Scoring,
    Splits,
    TableColumns,
    drop_duplicates,
    normalise,
)
from trainables.data.splitting import (
    assemble_splits,
    check_splits,
    drop_shared_turns,
    separate_splits,
)
from trainables.data.stratified import hold_out, make_near_key
from trainables.data.tables.read_tables import read_tables
from trainables.data.tables.table import Table, read_cell, require_columns
from trainables.errors import SweepAborted

NAME_COLUMNS = "name one of those found: --input COLUMN --target COLUMN"


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """How a table becomes rows: its options, with nothing left to guess."""

    input: str
    target: str
    kind: Kind
    prompt: str | None
    """Template with columns in braces; None is the question with the input below it."""
    question: str | None = None
    """What is asked, with {labels}; None is the language's own for the kind."""
    language: Language
    label_names: Mapping[str, str]
    """Label by value of the target; empty keeps the values."""
    label_words: Mapping[str, str] = field(default_factory=dict)
    """Value by what else may stand for it, without case."""
    system_prompt: str | None = None
    train_on: TrainedTurns = "all"
    """Which answers of a conversation the loss counts."""


def read_data(task: str, data: Data, options: TaskOptions) -> dict[str, Table]:
    """The data's tables by split; a table that has to be split is called "".

    Raises:
        SweepAborted: no data is named, it cannot be read, or it has no rows to train on.
    """
    if not data:
        raise SweepAborted(
            f"{task} has no dataset of its own",
            "name one: --data FILE, DIR, or OWNER/NAME of the Hub; or try --tiny",
        )
    tables = read_tables(data, options)
    if not {"", "train"} & tables.keys():
        shown = data if isinstance(data, str) else ", ".join(data)
        raise SweepAborted(
            f"{shown} has {', '.join(t.source for t in tables.values())} but no train file",
            "add one with train in its name, or name a file alone to have it split",
        )
    return tables


def read_splits(task: str, tables: Mapping[str, Table], spec: TableSpec) -> Splits:
    """Clean the tables' rows, and make the splits that are not there.

    A row that is dropped is counted. One whose content stands in a later split too stays there.

    Raises:
        SweepAborted: an unknown column, or rows that do not do.
    """
    notes = [table.note for table in tables.values() if table.note]
    if spec.kind == "chat":
        return _read_chats(task, tables, spec, notes)
    tables = _leave_out_unlabelled(tables, spec.target, notes)
    if spec.input == spec.target:
        raise SweepAborted(
            f"--input and --target both name {spec.input!r}", "name two different columns"
        )
    fields = _find_fields(spec, next(iter(tables.values())).columns)
    template = _choose_template(spec, fields, ())
    named = {field: column for field, column in fields.items() if f"{{{field}}}" in template}
    if spec.target in named.values():
        raise SweepAborted(
            f"the prompt names the target {spec.target}, so that every row would show its answer",
            f"leave {{{spec.target}}} out of --prompt",
        )
    for split, table in tables.items():
        wanted = dict.fromkeys((spec.input, *named.values(), spec.target))
        require_columns(table.columns, wanted, split or "the table", fix=NAME_COLUMNS)
    used = {*named.values(), spec.target}
    unused = sorted({name for t in tables.values() for name in find_unused_texts(t, used)})
    if unused:
        notes.append(
            f"columns of text that the prompt does not use: {', '.join(unused)}: --prompt names "
            "columns in braces"
        )
    counts: dict[str, int] = {}
    documents = {
        split: _read_documents(table.frame, split or "table", spec, named, unused, counts)
        for split, table in tables.items()
    }
    _require_usable_rows(
        documents,
        spec,
        counts,
        "name columns of plain text or numbers: --input COLUMN --target COLUMN",
    )
    if spec.kind == "classify":
        documents = _name_labels(documents, spec, counts)
    splits = _fill_splits(documents, spec, counts, notes)
    check_splits(task, splits, counts)
    labels: tuple[str, ...] = ()
    if spec.kind == "classify":
        labels = find_labels(splits, spec.label_names, spec.target)
        notes += [f"{s}: {describe_shares(splits[s], labels)}" for s in SPLITS]
        if joined := find_joined_label(labels):
            notes.append(
                f"the column {spec.target} seems to hold several labels in a cell, e.g. "
                f"{joined!r}: each combination is a label of its own"
            )
    scoring = Scoring(kind=spec.kind, language=spec.language, labels=labels)
    template = _choose_template(spec, fields, labels)
    source = next(field for field, column in named.items() if column == spec.input)
    columns = TableColumns(
        prompt=named,
        target=spec.target,
        label_names=spec.label_names,
        label_words=spec.label_words,
        system_prompt=spec.system_prompt,
    )
    return assemble_splits(task, splits, template, source, scoring, counts, columns, tuple(notes))


def _leave_out_unlabelled(
    tables: Mapping[str, Table], target: str, notes: list[str]
) -> Mapping[str, Table]:
    """The tables without a test whose targets are unknown, as competitions and the Hub have it."""
    if "test" not in tables or "train" not in tables:
        return tables
    train, test = tables["train"], tables["test"]
    if target in test.columns:
        unknown, known = (
            {read_cell(value) for value in t.frame[target].to_numpy().ravel()}
            for t in (test, train)
        )
        is_unlabelled = unknown <= {"", "-1"} and not unknown & (known - {""})
    else:
        is_unlabelled = target in train.columns and set(test.columns) < set(train.columns)
    if not is_unlabelled:
        return tables
    notes.append(
        f"the test rows ({test.source}) have no {target}: they are for python -m sweeps.predict "
        "once the sweep has ended, and the rows that test the winner are taken from train"
    )
    return {split: table for split, table in tables.items() if split != "test"}


def _fill_splits(
    documents: Mapping[str, list[Document]],
    spec: TableSpec,
    counts: dict[str, int],
    notes: list[str],
) -> dict[str, list[Document]]:
    """All three splits; those that are not there are taken from train."""
    missing = [split for split in SPLITS if split not in documents and split != "train"]
    if "" in documents:
        given = {"train": drop_duplicates(documents[""], "table", counts)}
    else:
        given = separate_splits({s: documents.get(s, []) for s in SPLITS}, counts)
        if spec.kind == "chat":
            given = drop_shared_turns(given, counts)
    held_out = hold_out(
        given["train"],
        missing,
        get_key=lambda d: make_near_key(
            _make_exchange_key(d) if spec.kind == "chat" else d.columns[spec.input]
        ),
        get_stratum=lambda d: d.target if spec.kind == "classify" else "",
    )
    if missing:
        notes.append(f"split by content, the same for every seed: {', '.join(held_out)}")
    return {**given, **held_out}


def _name_labels(
    documents: Mapping[str, list[Document]], spec: TableSpec, counts: dict[str, int]
) -> dict[str, list[Document]]:
    everything = [d for some in documents.values() for d in some]
    if spec.label_names:
        rename_labels(everything, spec.label_names, spec.target)
        documents = {
            split: rename_labels(some, spec.label_names, spec.target)
            for split, some in documents.items()
        }
    else:
        check_label_count(everything, spec.target)
    return {
        split: drop_contradictory(some, split or "table", counts)
        for split, some in documents.items()
    }


def _require_usable_rows(
    documents: Mapping[str, Sequence[Document]],
    spec: TableSpec,
    counts: Mapping[str, int],
    fix: str,
) -> None:
    """One row at least; if there is none, what is wrong with all of them."""
    if sum(counts.values()) and not any(documents.values()):
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.items() if count)
        columns = ", ".join(name for name in (spec.input, spec.target) if name)
        error = f"none of the {sum(counts.values()):,} rows can be used by {columns}: {reasons}"
        raise SweepAborted(error, fix)


def _read_chats(
    task: str, tables: Mapping[str, Table], spec: TableSpec, notes: list[str]
) -> Splits:
    """The conversations of a column, their last answer as the target."""
    counts: dict[str, int] = {}
    documents: dict[str, list[Document]] = {}
    for split, table in tables.items():
        name = split or "table"
        require_columns(table.columns, [spec.input], name, fix="name the column: --input COLUMN")
        documents[split], unanswered = [], 0
        for number, value in enumerate(table.frame[spec.input], 1):
            try:
                conversation = read_conversation(value, spec.train_on)
            except Unusable as reason:
                counts[f"{name} {reason}"] = counts.get(f"{name} {reason}", 0) + 1
                continue
            unanswered += conversation.num_dropped > 0
            documents[split].append(_make_chat(f"{name}-{number}", conversation, spec))
        if unanswered:
            notes.append(f"{name}: {unanswered:,} conversations end before what nobody answers")
    fix = (
        "--input COLUMN needs lists of turns with role and content, or from and value, that end "
        "with an answer; --help names the other kinds"
    )
    _require_usable_rows(documents, spec, counts, fix)
    if num_thoughts := sum(bool(d.thought) for some in documents.values() for d in some):
        notes.append(f"{num_thoughts:,} answers hold a thought, which is trained on by --thinking")
    splits = _fill_splits(documents, spec, counts, notes)
    scoring = Scoring(kind="chat", language=spec.language)
    columns = TableColumns(
        prompt={"input": spec.input}, system_prompt=spec.system_prompt, train_on=spec.train_on
    )
    return assemble_splits(task, splits, "{input}", "input", scoring, counts, columns, tuple(notes))


def _make_chat(id_: str, conversation: Conversation, spec: TableSpec) -> Document:
    history = add_system(conversation.history, spec.system_prompt)
    return Document(
        id=id_,
        source="\n".join([*(message.content for message in history), conversation.prompt]),
        target=conversation.answer,
        columns={"input": conversation.prompt},
        history=history,
        thought=conversation.thought,
    )


def _make_exchange_key(document: Document) -> str:
    """By which conversations count as one when they are split: each may be another's beginning."""
    texts = [message.content for message in document.history if message.role != "system"]
    return "\n".join([*texts, document.columns["input"], document.target][:2])


def _read_documents(
    frame: pd.DataFrame,
    split: str,
    spec: TableSpec,
    named: Mapping[str, str],
    unused: Sequence[str],
    counts: dict[str, int],
) -> list[Document]:
    """The rows with an input and a target; their source is all that the prompt names.

    Args:
        named: column by the name that the prompt has for it.
        unused: other columns, by which rows are no copies of one another.
    """
    beside = frame[[name for name in unused if name in frame.columns]]
    digests = [_digest_cells(cells) for cells in beside.itertuples(index=False, name=None)]
    digests = digests or [b""] * len(frame)  # without columns there are no tuples
    wanted = list(dict.fromkeys([spec.input, *named.values(), spec.target]))
    documents: list[Document] = []
    dropped = dict.fromkeys(("not text", "several labels", "blank input", "no target"), 0)
    for number, values in enumerate(frame[wanted].itertuples(index=False, name=None), 1):
        texts = dict(zip(wanted, map(read_cell, values), strict=True))
        known = {name: text for name, text in texts.items() if text is not None}
        if len(known) < len(texts):
            is_list = spec.kind == "classify" and isinstance(values[-1], list)
            dropped["several labels" if is_list else "not text"] += 1
        elif not known[spec.input]:
            dropped["blank input"] += 1
        elif not known[spec.target]:
            dropped["no target"] += 1
        else:
            document = _make_document(f"{split}-{number}", known, spec, named)
            documents.append(replace(document, unused=digests[number - 1]))
    counts.update({f"{split} {reason}": count for reason, count in dropped.items()})
    return documents


def _digest_cells(cells: Sequence[object]) -> bytes:
    text = "\n".join(normalise(read_cell(cell) or "") for cell in cells)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _make_document(
    id_: str, texts: Mapping[str, str], spec: TableSpec, named: Mapping[str, str]
) -> Document:
    if spec.kind == "classify":
        target, thought = read_value(texts[spec.target], spec.label_names, spec.label_words), ""
    else:
        target, thought = split_thought(texts[spec.target])
    return Document(
        id=id_,
        thought=thought,
        history=add_system((), spec.system_prompt),
        source="\n".join(texts[column] for column in dict.fromkeys(named.values())),
        target=target,
        columns={**texts, **{field: texts[column] for field, column in named.items()}},
    )


def _find_fields(spec: TableSpec, columns: Sequence[str]) -> dict[str, str]:
    """What a prompt may name in braces, and the column it stands for.

    {input} is the input unless a column has this name; names that str.format would take apart
    cannot be spelled, and need not be without a prompt of the user's.
    """
    plain = {c: c for c in columns if c.strip() and not re.search(r"[.\[\]{}:!]|^\d+$", c)}
    if spec.prompt is None and spec.input not in plain:
        return {"input": spec.input}
    return {"input": spec.input} | plain


def _choose_template(spec: TableSpec, fields: Mapping[str, str], labels: Sequence[str]) -> str:
    """The prompt; before the labels are known, without them."""
    question = make_question(spec.question, spec.kind, spec.language, labels)
    spellings = [field for field, column in fields.items() if column == spec.input][::-1]
    given = spec.prompt or ""
    source = next((field for field in spellings if f"{{{field}}}" in given), spellings[0])
    own = {"default": f"{question}\n\n{{{spellings[0]}}}".strip()}
    return choose_template(spec.prompt, own, fields, source)
