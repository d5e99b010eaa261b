"""Tables of every type and place give the same rows, or one clear error."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from trainables.data.files import cell_text, open_table, read_local
from trainables.errors import SweepAborted

ROWS = [{"text": "NA", "label": "1"}, {"text": 'a "b", c\nd', "label": "0"}]
FRAME = pd.DataFrame(ROWS)
WRITERS: dict[str, Callable[[Path], object]] = {
    "csv": lambda path: FRAME.to_csv(path, index=False),
    "tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "jsonl": lambda path: FRAME.to_json(path, orient="records", lines=True),
    "json": lambda path: path.write_text(json.dumps(ROWS)),
    "parquet": lambda path: FRAME.to_parquet(path),
    "xlsx": lambda path: FRAME.to_excel(path, index=False),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_type_gives_the_same_texts(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    WRITERS[suffix](path)
    frame = open_table(path).frame
    assert [{k: cell_text(v) for k, v in row.items()} for row in frame.to_dict("records")] == ROWS


def test_json_lines_may_lack_keys_and_keep_whole_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{"a": 1152921504606846977}\n\n{"a": null, "b": [1]}\n{"b": "x"}\n'
    )
    frame = open_table(tmp_path / "a.json").frame
    assert [cell_text(value) for value in frame["a"]] == ["1152921504606846977", "", ""]
    assert [cell_text(value) for value in frame["b"]] == ["", None, "x"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (1.5, "1.5"),
        (True, "True"),
        (None, ""),
        (float("nan"), ""),
        (pd.NA, ""),
        (" a\r\nb ", "a\nb"),
        ({"a": 1}, None),
        (b"a", None),
        (7, "7"),
    ],
)
def test_cell_is_text_blank_or_no_text(value: object, text: str | None) -> None:
    assert cell_text(value) == text


def test_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2\n')
    with pytest.raises(SweepAborted, match=r"a.jsonl: line 2 is no JSON"):
        open_table(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.xlsx", b"no workbook", "cannot read .*a.xlsx"),
        ("a.xls", b"old", "no known type"),
        ("a.json", b"3", "each a row"),
        ("a.jsonl", b"", "each a row"),
    ],
)
def test_file_that_is_no_table_is_refused(
    name: str, content: bytes, error: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SweepAborted, match=error):
        open_table(tmp_path / name)


def test_workbook_gives_its_first_sheet_and_says_so(tmp_path: Path) -> None:
    with pd.ExcelWriter(tmp_path / "a.xlsx") as book:
        FRAME.to_excel(book, sheet_name="rows", index=False)
        FRAME.head(1).to_excel(book, sheet_name="notes", index=False)
    path = tmp_path / "a.xlsx"
    first, other = open_table(path), open_table(path, "notes")
    assert first.note == "a.xlsx: 2 rows, sheet rows, the first of 2 (--sheet names another)"
    assert (other.note, len(other.frame)) == ("a.xlsx: 1 rows, sheet notes", 1)
    with pytest.raises(SweepAborted, match="no sheet 'note'") as told:
        open_table(path, "note")
    assert told.value.fix.endswith("rows, notes")


def test_sheet_of_a_file_without_sheets_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,mood\nx,y\n")
    for read in (open_table, read_local):
        with pytest.raises(SweepAborted, match="has no sheets"):
            read(tmp_path / "a.csv", "rows")


def test_folder_gives_its_splits_by_any_of_their_names(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        WRITERS["jsonl"](tmp_path / f"{name}.jsonl")
    assert list(read_local(tmp_path)) == ["train", "validation", "test"]


def test_folder_with_one_file_of_any_name_is_that_file(tmp_path: Path) -> None:
    WRITERS["csv"](tmp_path / "mine.csv")
    (tmp_path / "LICENSE").write_text("free")
    assert list(read_local(tmp_path)) == [""]


def test_folder_that_leaves_a_choice_is_refused(tmp_path: Path) -> None:
    WRITERS["csv"](tmp_path / "one.csv")
    WRITERS["csv"](tmp_path / "two.csv")
    with pytest.raises(SweepAborted, match=r"holds one.csv, two.csv"):
        read_local(tmp_path)
    (tmp_path / "one.csv").rename(tmp_path / "test.csv")
    with pytest.raises(SweepAborted, match=r"has test.csv but no train file"):
        read_local(tmp_path)
