"""A table's rows as a task's: columns chosen, bad rows counted, splits made, labels found."""
# ruff: noqa: RUF001 - Turkish has a dotless i

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from trainables.config import Balance, Kind, Language
from trainables.data.files import Table, cell_text, read_local, require_columns
from trainables.data.hub_tables import read_hub
from trainables.data.labels import (
    check_number,
    clean_label,
    describe_shares,
    drop_contradictory,
    find_labels,
    oversample,
    rename,
)
from trainables.data.prompts import choose_template
from trainables.data.rows import SPLITS, Document, Scoring, Splits, drop_duplicates
from trainables.data.splitting import assemble, separate
from trainables.data.stratified import hold_out, near_key
from trainables.errors import SweepAborted
from trainables.models.hub_files import is_dataset_id

NAME_COLUMNS = "name one of those found: --input COLUMN --target COLUMN"
QUESTIONS: dict[Language, dict[Kind, str]] = {
    "english": {
        "summarize": "Summarize the following text.",
        "classify": "Classify the following text. Answer with one of: {labels}.",
    },
    "turkish": {
        "summarize": "Aşağıdaki metni özetle.",
        "classify": "Aşağıdaki metni sınıflandır. Şunlardan biriyle yanıtla: {labels}.",
    },
    "portuguese": {
        "summarize": "Resuma o texto a seguir.",
        "classify": "Classifique o texto a seguir. Responda com uma destas opções: {labels}.",
    },
}


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
    clean_label: Callable[[str], str] = clean_label
    """What is done to a value before its name is looked up."""
    balance: Balance


def read_data(task: str, data: str | None, sheet: str | None = None) -> dict[str, Table]:
    """The data's tables by split; a table that has to be split is called "".

    Args:
        sheet: of workbooks; None is the first.

    Raises:
        SweepAborted: no data is named, or it cannot be read.
    """
    if data is None:
        raise SweepAborted(
            f"{task} has no dataset of its own",
            "name one: --data FILE, DIR, or OWNER/NAME of the Hub; or try --tiny",
        )
    if not is_dataset_id(data):
        return read_local(Path(data), sheet)
    if sheet is not None:
        raise SweepAborted(
            f"the dataset {data} has no sheets", "leave out --sheet, or name an .xlsx file"
        )
    return read_hub(data)


def read_splits(task: str, files: Mapping[str, Table], spec: TableSpec) -> Splits:
    """Clean the tables' rows, and make the splits that are not there.

    A row that is dropped is counted. One whose content stands in a later split too stays there.

    Raises:
        SweepAborted: an unknown column, or rows that do not do.
    """
    columns = [str(name) for name in next(iter(files.values())).frame.columns]
    _require_usable(spec, columns)
    template = _template(spec, columns, ())
    named = [name for name in columns if f"{{{name}}}" in template]
    for split, file in files.items():
        present = list(map(str, file.frame.columns))
        wanted = (*named, spec.target)
        require_columns(present, wanted, split or "table", fix=NAME_COLUMNS)
    counts: dict[str, int] = {}
    documents = {
        split: _read_documents(file.frame, split or "table", spec, named, counts)
        for split, file in files.items()
    }
    _require_rows(documents, files, counts)
    notes = [file.note for file in files.values()]
    if spec.kind == "classify":
        documents = _name_labels(documents, spec, counts)
    splits = _fill_splits(documents, spec, counts, notes)
    labels: tuple[str, ...] = ()
    if spec.kind == "classify":
        labels = find_labels(splits, spec.label_names, spec.target)
        notes += [f"{s}: {describe_shares(splits[s], labels)}" for s in SPLITS]
        if spec.balance == "oversample":
            splits["train"] = oversample(splits["train"])
            notes.append(f"train with repeated rows of rare labels: {len(splits['train']):,} rows")
    scoring = Scoring(kind=spec.kind, language=spec.language, labels=labels)
    template = _template(spec, columns, labels)
    return assemble(task, splits, template, scoring, counts, tuple(notes))


def _require_rows(
    documents: Mapping[str, Sequence[Document]],
    files: Mapping[str, Table],
    counts: Mapping[str, int],
) -> None:
    """One row at least that can be used; if there is none, what is wrong with all of them."""
    num_rows = sum(len(file.frame) for file in files.values())
    if num_rows and not any(documents.values()):
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.items() if count)
        raise SweepAborted(
            f"none of the {num_rows:,} rows can be used: {reasons}",
            "name columns of plain text or numbers: --input COLUMN --target COLUMN",
        )


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
        given = separate({s: documents.get(s, []) for s in SPLITS}, counts)
    made = hold_out(
        given["train"],
        missing,
        key_of=lambda d: near_key(d.columns[spec.input]),
        stratum_of=lambda d: d.target if spec.kind == "classify" else "",
    )
    if missing:
        notes.append(f"split by content, the same for every seed: {', '.join(made)}")
    return {**given, **made}


def _name_labels(
    documents: Mapping[str, list[Document]], spec: TableSpec, counts: dict[str, int]
) -> dict[str, list[Document]]:
    everything = [d for some in documents.values() for d in some]
    if spec.label_names:
        rename(everything, spec.label_names, spec.target)
        documents = {
            split: rename(some, spec.label_names, spec.target) for split, some in documents.items()
        }
    else:
        check_number(everything, spec.target)
    return {
        split: drop_contradictory(some, split or "table", counts)
        for split, some in documents.items()
    }


def _read_documents(
    frame: pd.DataFrame,
    split: str,
    spec: TableSpec,
    named: Sequence[str],
    counts: dict[str, int],
) -> list[Document]:
    """The rows with an input and a target; their source is all that the prompt names."""
    wanted = list(dict.fromkeys([spec.input, *named, spec.target]))
    documents: list[Document] = []
    dropped = dict.fromkeys(("not text", "blank input", "no target"), 0)
    for number, values in enumerate(frame[wanted].itertuples(index=False, name=None), 1):
        texts = dict(zip(wanted, map(cell_text, values), strict=True))
        known = {name: text for name, text in texts.items() if text is not None}
        if len(known) < len(texts):
            dropped["not text"] += 1
        elif not known[spec.input]:
            dropped["blank input"] += 1
        elif not known[spec.target]:
            dropped["no target"] += 1
        else:
            documents.append(_make_document(f"{split}-{number}", known, spec, named))
    counts.update({f"{split} {reason}": count for reason, count in dropped.items()})
    return documents


def _make_document(
    id_: str, texts: Mapping[str, str], spec: TableSpec, named: Sequence[str]
) -> Document:
    target = texts[spec.target]
    return Document(
        id=id_,
        source="\n".join(texts[name] for name in named),
        target=spec.clean_label(target) if spec.kind == "classify" else target,
        columns=texts,
    )


def _template(spec: TableSpec, columns: Sequence[str], labels: Iterable[str]) -> str:
    """The prompt; before the labels are known, without them."""
    names = ", ".join(labels).replace("{", "{{").replace("}", "}}")
    question = spec.question or QUESTIONS[spec.language][spec.kind]
    own = {"default": f"{question.replace('{labels}', names)}\n\n{{{spec.input}}}"}
    return choose_template(spec.prompt, own, columns, spec.input)


def _require_usable(spec: TableSpec, columns: Sequence[str]) -> None:
    """The columns that the options name: there, two, and of names that a prompt can hold."""
    require_columns(columns, (spec.input, spec.target), "the table", fix=NAME_COLUMNS)
    if spec.input == spec.target:
        raise SweepAborted(
            f"--input and --target both name {spec.input!r}", "name two different columns"
        )
    named = [n for n in columns if n == spec.input or f"{{{n}}}" in (spec.prompt or "")]
    odd = [name for name in named if set(name) & set(".[]{}:!") or name.isdecimal()]
    if odd:
        raise SweepAborted(
            f"no prompt can name the column {odd[0]!r}",
            "rename it to letters, digits, spaces and _, not to a number alone",
        )
