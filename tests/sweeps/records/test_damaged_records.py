"""Records that were damaged by hand: every command tells it in two lines, or does without."""

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.publish.load_run import load_run
from sweeps.publish.report.page import render
from sweeps.records.paths import RunPaths
from tests.sweeps.commands import call
from tests.sweeps.publish.report.many_trials import write_run
from trainables.errors import SweepAborted

FILES = ("sweep.json", "finals.json", "events.jsonl")
DELETED = object()
VALUES = (DELETED, None, [], {}, "x", -1, True, {"a": {"b": 1}}, ["x"])
NESTED = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    return write_run(tmp_path_factory.mktemp("runs") / "many", num_trials=6)


def list_places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value may be damaged."""
    yield place
    inside = dict(enumerate(value[:1])) if isinstance(value, list) else value
    for key, inner in inside.items() if isinstance(inside, dict) else ():
        yield from list_places(inner, (*place, key))


def damage(value: Any, place: tuple[Any, ...], new: object) -> Any:
    if not place:
        return None if new is DELETED else new
    value = copy.deepcopy(value)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = new
    if new is DELETED:
        del inner[place[-1]]
    return value


@st.composite
def damaged_texts(draw: st.DrawFn, folder: Path) -> tuple[str, str]:
    """A file of the run, and a text for it in which one value is missing or another one."""
    name = draw(st.sampled_from(FILES))
    text, new = (folder / name).read_text("utf-8"), draw(st.sampled_from(VALUES))
    if name != "events.jsonl":
        content = json.loads(text)
        place = draw(st.sampled_from(list(list_places(content))))
        return name, json.dumps(damage(content, place, new))
    lines = [json.loads(line) for line in text.splitlines()]
    kind = draw(st.sampled_from(sorted({line["kind"] for line in lines})))
    number = draw(st.sampled_from([n for n, line in enumerate(lines) if line["kind"] == kind]))
    place = draw(st.sampled_from(list(list_places(lines[number]))))
    changed = damage(lines[number], place, new)
    lines[number : number + 1] = [] if changed is None else [changed]
    return name, "".join(json.dumps(line) + "\n" for line in lines)


def look(folder: Path) -> None:
    """Commands and load_run read a folder, or refuse it."""
    for command, *words in (("sweeps.status",), ("sweeps.ask", "--num-trials", "9")):
        ended = call(command, str(folder), *words)
        assert ended.code == 0 or ended.refusal()
    try:
        load_run(folder).to_json()
    except SweepAborted as refused:
        assert refused.fix


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_value_that_is_missing_or_wrong_is_told(run: RunPaths, data: st.DataObject) -> None:
    name, text = data.draw(damaged_texts(run.folder))
    whole = (run.folder / name).read_text("utf-8")
    try:
        (run.folder / name).write_text(text, "utf-8")
        look(run.folder)
    finally:
        (run.folder / name).write_text(whole, "utf-8")


@pytest.mark.parametrize("text", ["", "{}", "null", "\ufffd", NESTED, f"{NESTED}\n", '{"a'])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_record_is_told(
    name: str, text: str, run: RunPaths, tmp_path: Path
) -> None:
    for path in FILES:
        (tmp_path / path).write_bytes((run.folder / path).read_bytes())
    (tmp_path / name).write_text(text, "utf-8")
    look(tmp_path)


@pytest.mark.parametrize(
    ("kind", "place", "new"),
    [
        ("sweep_started", ("num_trials",), "x"),
        ("trial_started", ("params", "learning_rate"), "nan"),
        ("trial_started", ("params", "lora_size"), 8),
        ("final_scores", ("scores", "test_base"), DELETED),
        ("final_scores", ("scores", "test", "rougeLsum"), DELETED),
        ("pack_ended", ("seconds",), DELETED),
        ("pack_ended", ("peak_gib",), DELETED),
        ("summary", ("values", "winner"), DELETED),
        ("summary", ("values", "test/rougeLsum"), ["x"]),
        ("sweep_ended", ("actual",), DELETED),
        ("sweep_ended", ("gpu_time", "search_s"), None),
        ("sweep_ended", ("gpu_time",), DELETED),
    ],
)
def test_a_fact_that_only_some_readers_need_is_told_or_done_without(
    kind: str, place: tuple[str, ...], new: object, run: RunPaths, tmp_path: Path
) -> None:
    for path in FILES:
        (tmp_path / path).write_bytes((run.folder / path).read_bytes())
    events = [json.loads(line) for line in run.events.read_text("utf-8").splitlines()]
    values = {"winner": "t0000", "adapter": "t0000", "test/rougeLsum": 31.5}
    events.insert(-1, events[-1] | {"kind": "summary", "values": values, "confusion": None})
    number = next(n for n, event in enumerate(events) if event["kind"] == kind)
    events[number].setdefault(place[0], 0)
    events[number] = damage(events[number], place, new)
    lines = (json.dumps(event) + "\n" for event in events)
    (tmp_path / "events.jsonl").write_text("".join(lines), "utf-8")
    look(tmp_path)
    with suppress(SweepAborted):  # whose fix was looked at
        render([load_run(tmp_path)])


def test_lines_of_a_trial_that_never_started_name_it(run: RunPaths, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_bytes(run.sweep_json.read_bytes())
    lines = run.events.read_text("utf-8").splitlines(keepends=True)
    start = next(n for n, line in enumerate(lines) if '"trial_started"' in line)
    RunPaths(tmp_path).events.write_text("".join(lines[:start] + lines[start + 1 :]), "utf-8")
    error, fix = call("sweeps.status", str(tmp_path)).refusal()
    assert error == "events.jsonl tells of t0000, and no line before says that it has started"
    assert "remove all lines of t0000" in fix
