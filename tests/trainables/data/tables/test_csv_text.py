"""CSV files of any encoding and delimiter give the texts that were written."""
# ruff: noqa: RUF001 - Turkish has a dotless i

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainables.data.tables.test_read_tables import open_table
from trainables.config import TaskOptions
from trainables.data.tables.csv_text import DELIMITERS, decode, find_delimiter
from trainables.data.tables.read_tables import read_tables
from trainables.errors import SweepAborted

TURKISH = "yorum;puan\nIşığı çok güzel, ğüşöç;iyi\n"
PORTUGUESE = "texto;nota\nnão é ação;má\n"


@pytest.mark.parametrize(
    ("text", "written", "found"),
    [
        (TURKISH, "utf-8", "utf-8"),
        (TURKISH, "utf-8-sig", "utf-8-sig"),
        (TURKISH, "utf-16", "utf-16"),
        (TURKISH, "utf-16-le", "utf-16-le"),
        (TURKISH, "utf-16-be", "utf-16-be"),
        (TURKISH, "cp1254", "cp1254"),
        (PORTUGUESE, "cp1252", "cp1252"),
        (PORTUGUESE, "latin-1", "cp1252"),
        ("a,b\n1,2\n", "ascii", "utf-8"),
    ],
)
def test_encoding_is_found_and_the_text_is_whole(text: str, written: str, found: str) -> None:
    assert decode(text.encode(written)) == (text, found)


def test_unicode_formats_are_never_taken_for_windows_ones() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode("é".encode("latin-1"), is_unicode=True)


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00\ufeff"), max_size=12)


@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=3, max_size=8),
    delimiter=st.sampled_from(DELIMITERS),
)
def test_delimiter_is_the_one_that_was_written(
    rows: list[tuple[str, str, str]], delimiter: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("first", "second", "third"), *rows])
    assert find_delimiter(text.getvalue()) == delimiter


def test_delimiter_inside_texts_does_not_mislead() -> None:
    assert find_delimiter("text;label\na, b, c;x\nd, e, f;y\n") == ";"
    assert find_delimiter("one column\na; b\n") == ","


def test_table_tells_how_it_was_read(tmp_path: Path) -> None:
    (tmp_path / "yorum.csv").write_bytes(TURKISH.encode("cp1254"))
    table = open_table(tmp_path / "yorum.csv")
    assert table.note == "yorum.csv: 1 rows, encoding cp1254, delimiter ;"
    assert table.frame.to_dict("records") == [{"yorum": "Işığı çok güzel, ğüşöç", "puan": "iyi"}]


def test_rows_with_more_fields_than_the_header_are_refused(tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text("text,label\na,b,c\nd,e,f\n")
    with pytest.raises(SweepAborted, match="more fields than its header"):
        open_table(tmp_path / "wide.csv")


def test_texts_may_be_longer_than_csv_has_them(tmp_path: Path) -> None:
    text = "x, " * 70_000
    (tmp_path / "long.csv").write_text(f"a;b\nc;{text}\n")
    assert open_table(tmp_path / "long.csv").frame.to_dict("records") == [{"a": "c", "b": text}]


def test_encoding_is_the_given_one_and_an_unknown_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("слово,метка\nда,1\n".encode("cp1251"))
    path = str(tmp_path / "a.csv")
    [table] = read_tables(path, TaskOptions(encoding="cp1251")).values()
    assert (table.columns, table.note) == (
        ["слово", "метка"],
        "a.csv: 1 rows, encoding cp1251, delimiter ,",
    )
    for encoding, error in (("klingon", "unknown encoding: klingon"), ("ascii", "'ascii' codec")):
        with pytest.raises(SweepAborted, match=error) as told:
            read_tables(path, TaskOptions(encoding=encoding))
        assert "--encoding" in told.value.fix


def test_lines_above_the_header_are_skipped_and_counted_in_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Export of May\n\ntext;mood\na;b\nc;d\n")
    path = str(tmp_path / "a.csv")
    with pytest.raises(SweepAborted, match="more fields than its header") as told:
        read_tables(path, TaskOptions())
    assert told.value.fix.endswith("names stand in line 3, add --skip-rows 2")
    [table] = read_tables(path, TaskOptions(skip_rows=2)).values()
    assert table.frame.to_dict("list") == {"text": ["a", "c"], "mood": ["b", "d"]}


@pytest.mark.parametrize("delimiter", ["\t", ","])
def test_stray_quotes_take_in_no_rows(delimiter: str, tmp_path: Path) -> None:
    path = tmp_path / ("rows.tsv" if delimiter == "\t" else "rows.csv")
    lines = [f"{chr(34) * (n % 10 == 3)}review {n} good{delimiter}pos" for n in range(100)]
    path.write_text("\n".join([f"text{delimiter}label", *lines]) + "\n")
    table = read_tables(str(path), TaskOptions())[""]
    assert len(table.frame) == 100 and set(table.frame["label"]) == {"pos"}
    assert "quotes taken as letters" in table.note


def test_quoted_cells_of_several_lines_stay_one_cell(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + '"one, and\ntwo, and three",pos\nfour,neg\n' * 20)
    table = read_tables(str(path), TaskOptions())[""]
    assert len(table.frame) == 40 and table.frame["text"][0] == "one, and\ntwo, and three"
    assert "letters" not in table.note
