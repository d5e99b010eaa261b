"""Files that survive kills and full disks."""

import csv
import io
import threading
from pathlib import Path

import pytest

from trainables.files import DamagedLine, JsonLines, read_json_lines, write_atomic, write_table


def test_text_is_replaced_as_a_whole_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old\n")
    write_atomic(path, "ünlü\r\n")
    assert path.read_bytes() == "ünlü\r\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_reader_meets_whole_files_only_while_threads_replace_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "0" * 50_000)

    def write(digit: str) -> None:
        for _ in range(20):
            write_atomic(path, digit * 50_000)

    writers = [threading.Thread(target=write, args=(digit,)) for digit in "123"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        content = path.read_text()
        assert len(content) == 50_000 and len(set(content)) == 1
    for writer in writers:
        writer.join()


def test_failed_write_leaves_the_older_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def refuse(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_line_ends_of_texts_end_no_line(tmp_path: Path) -> None:
    record = {"text": "one\u2028two\x85three\r\nfour"}
    JsonLines(tmp_path / "a.jsonl").append(record)
    JsonLines(tmp_path / "a.jsonl").append({"n": 1})
    assert read_json_lines(tmp_path / "a.jsonl") == [record, {"n": 1}]


def test_torn_last_line_is_skipped_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    JsonLines(path).append({"n": 1})
    with path.open("ab") as file:
        file.write(b'{"n": 2')
    assert read_json_lines(path) == [{"n": 1}]
    JsonLines(path).append({"n": 3})
    assert read_json_lines(path) == [{"n": 1}, {"n": 3}]


def test_damaged_line_says_its_number(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"n": 1}\n{"n":\n{"n": 3}\n')
    with pytest.raises(DamagedLine, match=r"line 2 of .*a\.jsonl") as caught:
        read_json_lines(tmp_path / "a.jsonl")
    assert caught.value.number == 2


def test_number_that_json_cannot_hold_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        lines.append({"n": float("nan")})
    assert read_json_lines(tmp_path / "a.jsonl") == []


def test_texts_that_a_spreadsheet_would_run_stand_behind_an_apostrophe() -> None:
    formulas = ["=1+1", "@SUM(A1)", "+cmd|'/C calc'!A1", "-a", "\t=1", "\r=1"]
    (row,) = csv.reader(
        io.StringIO(
            write_table(
                [formulas],
            ),
            newline="",
        )
    )
    assert row == [f"'{formula}" for formula in formulas]
    plain = ["", "a=1", "-1", "+2.5e3", "-inf", "'=1", 'günlük, "x"\n']
    (row,) = csv.reader(io.StringIO(write_table([plain]), newline=""))
    assert row == plain
    assert write_table([[None, -1.5, True]]) == ",-1.5,True\r\n"
