"""Tables of every type and place give the same rows, or one clear error."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from trainables.config import TaskOptions
from trainables.data.reading import read_data
from trainables.data.tables.read_tables import read_tables
from trainables.data.tables.table import Table, read_cell
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


def read_local(path: Path, sheet: str | None = None) -> dict[str, Table]:
    return read_tables(str(path), TaskOptions(sheet=sheet))


def open_table(path: Path, sheet: str | None = None) -> Table:
    return read_local(path, sheet)[""]


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_type_gives_the_same_texts(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    WRITERS[suffix](path)
    frame = open_table(path).frame
    assert [{k: read_cell(v) for k, v in row.items()} for row in frame.to_dict("records")] == ROWS


def test_json_lines_may_lack_keys_and_keep_whole_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{"a": 1152921504606846977}\n\n{"a": null, "b": [1]}\n{"b": "x"}\n'
    )
    frame = open_table(tmp_path / "a.json").frame
    assert [read_cell(value) for value in frame["a"]] == ["1152921504606846977", "", ""]
    assert [read_cell(value) for value in frame["b"]] == ["", None, "x"]


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
    assert read_cell(value) == text


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
        read_data("table", str(tmp_path), TaskOptions())


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_cells_of_lists_and_objects_are_left_as_they_are(suffix: str, tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": f"hi {i}"}, {"role": "assistant"}] for i in range(3)]
    frame = pd.DataFrame({"messages": chats, "number": [1, None, 3]}, dtype=object)
    path = tmp_path / f"chats.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    read = open_table(path).frame
    messages = read["messages"].tolist()
    assert [[m["content"] for m in chat[:1]] for chat in messages] == [["hi 0"], ["hi 1"], ["hi 2"]]
    assert all(type(chat) is list and type(chat[0]) is dict for chat in messages)
    assert [read_cell(value) for value in read["number"]] == ["1", "", "3"]


@pytest.mark.parametrize(
    ("content", "rows", "how"),
    [
        ({"meta": {"n": 2}, "result": {"items": ROWS}}, ROWS, "rows under result.items"),
        ({"few": ROWS[:1], "many": ROWS}, ROWS, "rows under many"),
        ({"text": ["a", "b"], "label": [1, 2]}, [{"text": "a", "label": 1}], ""),
        ([["text", "label"], ["a", 1]], [{"text": "a", "label": 1}], ""),
        ({"text": "a", "label": 1}, [{"text": "a", "label": 1}], ""),
    ],
)
def test_json_rows_are_found_where_they_are(
    content: object, rows: list[dict[str, object]], how: str, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content, indent=1))
    table = open_table(tmp_path / "a.json")
    assert table.frame.to_dict("records")[: len(rows)] == rows
    assert table.note.endswith(how or "rows")


def test_files_of_a_split_that_differ_in_their_columns_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nx,1\n")
    (tmp_path / "b.csv").write_text("text,mood\ny,2\n")
    [table] = read_tables([str(tmp_path / n) for n in ("a.csv", "b.csv")], TaskOptions()).values()
    assert "a.csv has no column mood, b.csv has no column label" in table.note


def test_column_of_splits_is_used_and_never_ignored_silently(tmp_path: Path) -> None:
    def notes(name: str, rows: str) -> tuple[list[str], list[str]]:
        (tmp_path / name).write_text("text,data_split\n" + rows)
        path = tmp_path if name == "train.csv" else tmp_path / name
        tables = read_tables(str(path), TaskOptions())
        return list(tables), [table.note for table in tables.values() if table.note]

    splits, told = notes("a.csv", "x,train\ny,Dev\nz,TEST\nw,later\n")
    assert splits == ["train", "validation", "test"]
    assert told[0].endswith("split by its column data_split, 1 rows of 'later' left out")
    splits, told = notes("b.csv", "x,1\ny,2\n")
    assert splits == [""] and "the column data_split (1, 2) is not used: it does not" in told[0]
    splits, told = notes("train.csv", "x,train\ny,test\n")
    assert splits == ["train"] and "is not used: the files tell the splits" in told[0]
    _, told = notes("train.csv", "x,train\ny,train\n")
    assert "not used" not in told[0]


def test_rows_beyond_the_most_are_drawn_alike_each_time(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "".join(f"row {i}\n" for i in range(100)))
    first, second = (
        read_tables(str(path), TaskOptions(max_rows=10))[""].frame["text"].tolist() for _ in "ab"
    )
    assert first == second == sorted(first, key=lambda text: int(text[4:]))
    assert len(set(first)) == 10 and first[-1] > "row 1"
    assert len(read_tables(str(path), TaskOptions(max_rows=101))[""].frame) == 100


def test_rows_are_drawn_of_each_split(tmp_path: Path) -> None:
    splits = ["train"] * 190 + ["validation"] * 30 + ["test"] * 5
    path = tmp_path / "rows.csv"
    rows = [f"text {n},{split}" for n, split in enumerate(splits)]
    path.write_text("\n".join(["text,split", *rows]) + "\n")
    tables = read_tables(str(path), TaskOptions(max_rows=20))
    assert {s: len(t.frame) for s, t in tables.items()} == {
        "train": 20,
        "validation": 20,
        "test": 5,
    }
