"""Documents into train, validation and test rows, so that no score is earned by memory."""

import hashlib
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace

from trainables.data.prompts import find_cut
from trainables.data.rows import (
    SPLITS,
    Document,
    Row,
    Scoring,
    Splits,
    TableColumns,
    digest_text,
    drop_duplicates,
    drop_shared,
    normalise,
)
from trainables.data.tables.table import read_cell
from trainables.errors import SweepAborted

ROWS_PER_BLOCK = 10
"""Rows of similar length of which split_by_content puts one into validation and one into test."""


def make_document(
    row: Mapping[Hashable, object],
    *,
    source: str,
    columns: Collection[str],
    keys: Collection[str] = (),
) -> Document:
    """A document of a table's row: its target is the column summary.

    A table without a column id names its rows by a digest of their source.
    """
    texts = {name: read_cell(row.get(name)) or "" for name in columns}
    made = Document(
        id=str(row.get("id", "")).encode(errors="ignore").decode(),
        source=texts[source],
        target=read_cell(row["summary"]) or "",
        columns=texts,
        keys=frozenset(keys),
    )
    return made if made.id else replace(made, id=_digest_source(made)[:12])


def divide_documents(
    documents: Mapping[str, Sequence[Document]], counts: dict[str, int]
) -> tuple[dict[str, list[Document]], tuple[str, ...]]:
    """The documents of files.read_tables in three splits, and a note if they were split anew."""
    if set(documents) == set(SPLITS):
        return separate_splits(documents, counts), ()
    everything = [d for some in documents.values() for d in some]
    names = " and ".join(documents)
    note = f"no train split: the {len(everything):,} rows of {names} were split by their content"
    return split_by_content(everything, counts), (note,)


def separate_splits(
    documents: Mapping[str, Sequence[Document]], counts: dict[str, int]
) -> dict[str, list[Document]]:
    """The splits without what a later one of train, validation, test holds, and counts of it.

    Training rows that repeat one another go too.
    """
    validation, test = documents["validation"], documents["test"]
    others = {"validation": validation, "test": test}
    train = drop_shared(documents["train"], "train", others, counts)
    return {
        "train": drop_duplicates(train, "train", counts),
        "validation": drop_shared(validation, "validation", {"test": test}, counts),
        "test": list(test),
    }


def drop_shared_turns(
    splits: Mapping[str, Sequence[Document]], counts: dict[str, int]
) -> dict[str, list[Document]]:
    """Conversations without those that a later split's begins with or goes on from, and counts."""
    chains = {split: list(map(_digest_turns, some)) for split, some in splits.items()}
    kept = {}
    for number, split in enumerate(SPLITS):
        is_shared = [False] * len(splits[split])
        for other in SPLITS[number + 1 :]:
            wholes = {chain[-1] for chain in chains[other]}
            begun = {digest for chain in chains[other] for digest in chain}
            repeats = [c[-1] in begun or not wholes.isdisjoint(c) for c in chains[split]]
            counts[f"{split} shares its turns with {other}"] = sum(repeats)
            is_shared = [one or two for one, two in zip(is_shared, repeats, strict=True)]
        kept[split] = [d for d, is_out in zip(splits[split], is_shared, strict=True) if not is_out]
    return kept


def _digest_turns(document: Document) -> list[bytes]:
    """A digest of what is said up to each of the assistant's answers, the last one too."""
    turns = [(message.role, message.content) for message in document.history]
    turns += [("user", document.columns["input"]), ("assistant", document.target)]
    digest, chain = hashlib.blake2b(digest_size=16), []
    for role, text in turns:
        if role != "system":
            digest.update(f"{normalise(text)}\n".encode())
        if role == "assistant":
            chain.append(digest.digest())
    return chain


def split_by_content(
    documents: Sequence[Document], counts: dict[str, int]
) -> dict[str, list[Document]]:
    """Eight in ten for training, one each for validation and test, alike in length.

    Documents that count as one are kept once. The rest is ordered by length and cut into blocks
    of about ROWS_PER_BLOCK; within each a digest of the text decides. So neither the order of
    the rows nor a seed moves a row from one split to another.
    """
    ordered = sorted(documents, key=lambda d: (_digest_source(d), d.source, d.target))
    kept = drop_duplicates(ordered, "all", counts)
    # Stable: equal lengths stay in the digests' order.
    kept.sort(key=lambda d: len(normalise(d.source)))
    splits: dict[str, list[Document]] = {split: [] for split in SPLITS}
    num_blocks = max(1, round(len(kept) / ROWS_PER_BLOCK))
    for block in range(num_blocks):
        begin, end = (len(kept) * edge // num_blocks for edge in (block, block + 1))
        by_digest = sorted(kept[begin:end], key=_digest_source)
        splits["test"] += by_digest[:1]
        splits["validation"] += by_digest[1:2]
        splits["train"] += by_digest[2:]
    return splits


def assemble_splits(
    task: str,
    documents: Mapping[str, Sequence[Document]],
    template: str,
    source: str,
    scoring: Scoring,
    counts: dict[str, int],
    columns: TableColumns,
    notes: tuple[str, ...] = (),
) -> Splits:
    """The documents as rows of prompt and target, counted.

    Args:
        source: the column whose text a long prompt may lose the end of.
        columns: where the documents' texts came from.

    Raises:
        SweepAborted: a split has no row.
    """
    check_splits(task, documents, counts)
    counts |= {split: len(documents[split]) for split in SPLITS}
    train, validation, test = (
        tuple(make_row(d, template, source) for d in documents[split]) for split in SPLITS
    )
    return Splits(
        train=train,
        validation=validation,
        test=test,
        counts=counts,
        scoring=scoring,
        prompt_template=template,
        source=source,
        notes=notes,
        columns=columns,
    )


def check_splits(
    task: str, documents: Mapping[str, Sequence[Document]], counts: Mapping[str, int]
) -> None:
    """Refuses a split without rows, and says where they went.

    Raises:
        SweepAborted: there is one.
    """
    for split in SPLITS:
        if not documents[split]:
            gone = [f"{why} {n:,}" for why, n in counts.items() if n and why.startswith(split)]
            raise SweepAborted(
                f"the {split} split of {task} has no usable row"
                + (f": {', '.join(gone)}" if gone else ""),
                "give every split rows with an input and a target that no later split holds",
            )


def make_row(document: Document, template: str, source: str) -> Row:
    """The document as a row of prompt and target."""
    cut_from, cut_to = find_cut(template, document.columns, source)
    return Row(
        id=document.id,
        prompt=template.format_map(document.columns),
        target=document.target,
        history=document.history,
        thought=document.thought,
        references=document.references,
        cut_from=cut_from,
        cut_to=cut_to,
    )


def _digest_source(document: Document) -> str:
    return digest_text(normalise(document.source))
