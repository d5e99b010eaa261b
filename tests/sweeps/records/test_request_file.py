"""The file of requests: what is written is read once, whatever becomes of a line."""

import logging
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from sweeps.records.paths import RunPaths
from sweeps.records.request_file import Request, RequestReader, append_request


def test_requests_are_read_once_and_in_their_order(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    reader = RequestReader(paths, [])
    assert reader.read_new() == []
    asked = [
        Request(stop=("t0007", "t0008")),
        Request(add={"lora_rank": 32, "learning_rate": 3e-4, "use_rslora": True}),
        Request(num_trials=64),
        Request(finish=True),
    ]
    for request in asked:
        append_request(paths, request)
    assert reader.read_new() == asked and reader.read_new() == []
    assert stat.S_IMODE(paths.requests.stat().st_mode) == 0o600
    append_request(paths, asked[0])  # whoever repeats an id says nothing new
    assert reader.read_new() == []
    assert RequestReader(paths, [{"kind": "asked", "id": asked[1].id}]).read_new() == [
        asked[0],
        *asked[2:],
    ]


def test_damaged_and_torn_lines_cost_no_other_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = RunPaths(tmp_path)
    first, second = Request(num_trials=9), Request(finish=True)
    append_request(paths, first)
    with paths.requests.open("a") as file:
        file.write('not json\n{"id": "x"}\n{"id": "y", "num_trials": "many"}\n{"id": "z", "fin')
    reader = RequestReader(paths, [])
    with caplog.at_level(logging.WARNING):
        assert reader.read_new() == [first]
    assert [line.partition(" of ")[0] for line in caplog.messages] == ["line 2", "line 3", "line 4"]
    append_request(paths, second)  # ends the line that a killed writer left
    assert reader.read_new() == [second]
    assert len(caplog.messages) == 4


def test_a_request_without_an_id_has_the_same_one_whenever_it_is_read(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.requests.write_text('{"num_trials": 9}\n{"num_trials": 9}\n')
    first, second = RequestReader(paths, []).read_new()
    assert [first, second] == RequestReader(paths, []).read_new() and first.id != second.id
    assert RequestReader(paths, [{"kind": "asked", "id": first.id}]).read_new() == [second]


def test_a_file_that_cannot_be_read_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = RunPaths(tmp_path)
    paths.requests.mkdir()
    reader = RequestReader(paths, [])
    with caplog.at_level(logging.WARNING):
        assert reader.read_new() == reader.read_new() == []
    assert len(caplog.messages) == 1 and "cannot be read" in caplog.messages[0]
    paths.requests.rmdir()
    append_request(paths, Request(finish=True))
    assert len(reader.read_new()) == 1


def test_a_write_that_takes_less_than_it_is_given_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:7]))
    asked = Request(stop=("t0001", "t0002"))
    append_request(RunPaths(tmp_path), asked)
    assert RequestReader(RunPaths(tmp_path), []).read_new() == [asked]


def _append_many(folder: Path, number: int) -> None:
    for n in range(20):
        append_request(RunPaths(folder), Request(id=f"{number}-{n}", stop=("t0000",) * (n + 1)))


def test_many_that_ask_in_the_same_moment_are_all_heard(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(tmp_path, n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    reader = RequestReader(RunPaths(tmp_path), [])
    ids = {request.id for request in reader.read_new()}
    assert ids == {f"{w}-{n}" for w in range(4) for n in range(20)}


@pytest.mark.parametrize("fields", [{}, {"finish": True, "num_trials": 3}, {"stop": ()}])
def test_a_request_asks_for_one_thing(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one of stop, add"):
        Request(**fields)
