"""Rows that are added to a small training set: paraphrases, repetitions of rare labels, noise."""

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import Formatter

from trainables.config import TaskOptions
from trainables.data.rows import Added, Row, Splits, normalise
from trainables.data.stratified import make_near_key
from trainables.data.tables.read_tables import read_tables
from trainables.data.tables.table import read_cell, require_columns
from trainables.errors import SweepAborted

_COLUMNS = "two columns: the original text (or the row's id, called id), and paraphrase"


def augment(splits: Splits, options: TaskOptions, seed: int) -> Splits:
    """The splits with the rows that the options add to train; validation and test stay.

    What is added depends on the rows and the sweep's seed, so that all trials train on the same.
    Paraphrases are balanced like any other rows, and each row that is repeated gets noise of its
    own.

    Raises:
        SweepAborted: the paraphrases cannot be read, or none is of a training row; or prompts hold
            the text more than once.
    """
    if options.paraphrases is not None or options.augment_copies:
        _require_one_text(splits)
    if options.paraphrases is not None:
        splits = _add_paraphrases(splits, Path(options.paraphrases))
    if options.balance == "oversample":
        splits = replace(splits, train=oversample(splits.train))
    if options.augment_copies:
        splits = _add_noisy_copies(splits, options.augment_copies, options.augment_noise, seed)
    return splits


def _require_one_text(splits: Splits) -> None:
    """A copy with another text in one place would still hold the original in the others."""
    of_field = splits.columns.prompt if splits.columns else {}
    fields = [field for _, field, _, _ in Formatter().parse(splits.prompt_template) if field]
    source = of_field.get(splits.source, splits.source)
    num_texts = sum(of_field.get(field, field) == source for field in fields)
    if num_texts > 1:
        raise SweepAborted(
            f"the prompt names the column {source} {num_texts} times, and augmentation changes one",
            "name it once in --prompt, or leave out --augment-copies and --paraphrases",
        )


def oversample(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows, with those of rare labels repeated in turn until all labels are as common."""
    by_label: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row.target].append(row)
    most = max(map(len, by_label.values()))
    repeated = [
        replace(row, id=f"{row.id}#{i // len(same) + 1}", added="repeated")
        for same in by_label.values()
        for i, row in ((i, same[i % len(same)]) for i in range(len(same), most))
    ]
    return (*rows, *repeated)


def add_noise(text: str, frac: float, draw: random.Random) -> str:
    """The text with one kind of noise in a share of its words, one word at least.

    Words are left out or change places (Wei and Zou 2019, "EDA: Easy data augmentation techniques
    for boosting performance on text classification tasks", arXiv 1901.11196; its other two
    operations need a thesaurus), or have two of their letters exchanged, neither the first nor the
    last (Belinkov and Bisk 2018, "Synthetic and natural noise both break neural machine
    translation", arXiv 1711.02173). White space separates words; lines stay lines.
    """
    parts = re.split(r"(\s+)", text.strip())  # words at even places
    num = max(1, round(frac * (len(parts) + 1) / 2))
    change = draw.choice((_leave_words_out, _swap_words, _misspell_words))
    change(parts, num, draw)
    return "".join(parts).strip()


def _leave_words_out(parts: list[str], num: int, draw: random.Random) -> None:
    """Empties so many words, but one, each with the blanks behind it."""
    words = range(0, len(parts), 2)
    for place in draw.sample(words, min(num, len(words) - 1)):
        parts[place] = ""
        if place + 1 < len(parts) and "\n" not in parts[place + 1]:
            parts[place + 1] = ""


def _swap_words(parts: list[str], num: int, draw: random.Random) -> None:
    words = range(0, len(parts), 2)
    for _ in range(num if len(words) > 1 else 0):
        one, other = draw.sample(words, 2)
        parts[one], parts[other] = parts[other], parts[one]


def _misspell_words(parts: list[str], num: int, draw: random.Random) -> None:
    spots: dict[int, list[int]] = {}
    """Where in each word a letter differs from the next, with a letter on either side of them."""
    for place in range(0, len(parts), 2):
        word = parts[place]
        inner = range(1, len(word) - 2)
        spots[place] = [
            at for at in inner if word[at] != word[at + 1] and word[at - 1 : at + 3].isalpha()
        ]
    words = [place for place, some in spots.items() if some]
    for place in draw.sample(words, min(num, len(words))):
        word, at = parts[place], draw.choice(spots[place])
        parts[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _add_noisy_copies(splits: Splits, num_copies: int, frac: float, seed: int) -> Splits:
    """A copy that says what another row says, held-out ones included, is left out and counted."""
    keys = _make_keys(splits)
    copies = []
    for number in range(1, num_copies + 1):
        for row in splits.train:
            draw = random.Random(f"{seed} {number} {row.id}")
            text = add_noise(_get_text(row), frac, draw)
            copy = _replace_text(row, text, f"{row.id}#noise{number}", "noisy")
            if (key := _make_key(copy)) not in keys:
                keys.add(key)
                copies.append(copy)
    repeated = num_copies * len(splits.train) - len(copies)
    return replace(
        splits,
        train=(*splits.train, *copies),
        counts=splits.counts | {"noisy copies like other rows": repeated},
    )


def _add_paraphrases(splits: Splits, path: Path) -> Splits:
    """Each paraphrase as a row like its original, but for the text; the others are counted."""
    column, pairs, note = _read_paraphrases(path, splits)
    held_out = (*splits.validation, *splits.test)
    held_texts = {make_near_key(_get_text(row)) for row in held_out}
    held_ids = {row.id for row in held_out}
    originals = defaultdict(list)
    for row in splits.train:
        originals[row.id if column == "id" else normalise(_get_text(row))].append(row)
    keys, added, unmatched = _make_keys(splits), [], []
    num_blank = num_held_out = num_repeated = 0
    for number, (original, text) in enumerate(pairs, 1):
        rows = originals[original if column == "id" else normalise(original)]
        key, held = (
            (original, held_ids) if column == "id" else (make_near_key(original), held_texts)
        )
        if not text:
            num_blank += 1
        elif key in held or make_near_key(text) in held_texts:
            num_held_out += 1
        elif not rows:
            unmatched.append(original)
        else:
            new = [
                _replace_text(r, text, f"{r.id}#paraphrase{number}", "paraphrased") for r in rows
            ]
            fresh = [row for row in new if _make_key(row) not in keys]
            keys |= {_make_key(row) for row in fresh}
            added += fresh
            num_repeated += len(new) - len(fresh)
    if unmatched:
        note += f"; no training row has the {column} {unmatched[0]!r:.60}"
    counts = {
        "paraphrases blank": num_blank,
        "paraphrases of validation or test rows": num_held_out,
        "paraphrases of no training row": len(unmatched),
        "paraphrases like other rows": num_repeated,
    }
    if not added:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.items() if count)
        raise SweepAborted(
            f"--paraphrases {path.name} adds no row: {reasons}",
            "let each row hold the text of a training row, or its id as it stands in "
            "rows/train.parquet of an earlier run, and the paraphrase",
        )
    return replace(
        splits,
        train=(*splits.train, *added),
        counts=splits.counts | counts,
        notes=(*splits.notes, note),
    )


def _read_paraphrases(path: Path, splits: Splits) -> tuple[str, list[tuple[str, str]], str]:
    """The column that names the originals, these with their paraphrases, and how they were read."""
    if not path.is_file():
        raise SweepAborted(f"--paraphrases {path} is no file", f"name a table with {_COLUMNS}")
    try:
        tables = read_tables(str(path), TaskOptions())
    except SweepAborted as refused:  # its fix may name flags, which are those of --data
        raise SweepAborted(
            f"--paraphrases: {refused.error}",
            "save it as UTF-8 CSV with two columns: the original text, and paraphrase",
        ) from None
    names = (*((splits.columns.prompt[splits.source],) if splits.columns else ()), "text", "id")
    pairs = []
    for table in tables.values():
        others = [name for name in table.columns if name != "paraphrase"]
        present = [name for name in names if name in others]
        (column, *_) = others if len(others) == 1 else (*present, "text")
        require_columns(
            table.columns,
            (column, "paraphrase"),
            f"--paraphrases {path.name}",
            fix=f"let it have {_COLUMNS}",
            has_choice=False,
        )
        cells = (map(read_cell, table.frame[name]) for name in (column, "paraphrase"))
        pairs += [(original or "", text or "") for original, text in zip(*cells, strict=True)]
    return column, pairs, "; ".join(table.note for table in tables.values())


def _make_keys(splits: Splits) -> set[str]:
    return set(map(_make_key, (*splits.train, *splits.validation, *splits.test)))


def _make_key(row: Row) -> str:
    """By which two rows ask the same."""
    return make_near_key("\n".join([*(message.content for message in row.history), row.prompt]))


def _get_text(row: Row) -> str:
    """The input column's text in the prompt."""
    return row.prompt[row.cut_from : row.cut_to]


def _replace_text(row: Row, text: str, id_: str, added: Added) -> Row:
    """The row with another text between the prompt's own words."""
    end = len(row.prompt) if row.cut_to is None else row.cut_to
    return replace(
        row,
        id=id_,
        prompt=row.prompt[: row.cut_from] + text + row.prompt[end:],
        cut_to=None if row.cut_to is None else row.cut_from + len(text),
        added=added,
    )
