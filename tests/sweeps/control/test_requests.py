"""Requests: what is written and read, what each comes to, and what is refused."""

import json
import logging
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from search_spaces.lora import LoraSpace
from sweeps.control.requests import Effect, Inbox, Request, append, read_point, resolve
from sweeps.records.paths import RunPaths
from tests.sweeps.invented_sweep import PARAMS, SPACE, make_config
from trainables.errors import SweepAborted

CONFIG = make_config(num_trials=8)


def started(number: int, trial_id: str = "") -> dict[str, Any]:
    params = vars(PARAMS) | {"target_modules": ["all"], "learning_rate": 1e-3 + number / 1e4}
    trial_id = trial_id or f"t{number:04d}"
    return {"kind": "trial_started", "trial_id": trial_id, "number": number, "params": params}


def ended(trial_id: str, status: str = "stopped", reason: str = "place 2 of 2") -> dict[str, Any]:
    return {"kind": "trial_ended", "trial_id": trial_id, "status": status, "reason": reason}


def reported(trial_id: str) -> dict[str, Any]:
    numbers = ("step", "train_loss", "learning_rate", "epoch", "tokens", "tokens_per_s", "seconds")
    facts = dict.fromkeys((*numbers, "peak_gib"), 1) | {"metrics": {}, "checkpoint": "c"}
    return {"kind": "report", "trial_id": trial_id, "cohort": [], **facts}


RUNNING = [started(0), started(1), reported("t0001"), started(2), ended("t0002")]
FINALS = [
    *(ended("t0000"), ended("t0001")),
    {"kind": "finals_started", "runs": [{"trial_id": "f0001s1", "of": "t0001", "seed": 1}]},
]


def refuse(request: Request, events: list[dict[str, Any]], *, is_open: bool = True) -> str:
    with pytest.raises(SweepAborted) as refused:
        resolve(request, CONFIG, events, is_open=is_open)
    assert refused.value.fix
    return refused.value.error


def test_requests_are_read_once_and_in_their_order(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    inbox = Inbox(paths, [])
    assert not inbox.has_work(CONFIG, RUNNING) and inbox.take_new() == []
    asked = [
        Request(stop=("t0007", "t0008")),
        Request(add={"lora_rank": 32, "learning_rate": 3e-4, "use_rslora": True}),
        Request(num_trials=64),
        Request(finish=True),
    ]
    for request in asked:
        append(paths, request)
    assert inbox.has_work(CONFIG, RUNNING)
    assert inbox.take_new() == asked and inbox.take_new() == []
    assert stat.S_IMODE(paths.requests.stat().st_mode) == 0o600
    append(paths, asked[0])  # whoever repeats an id says nothing new
    assert not inbox.has_work(CONFIG, RUNNING) and inbox.take_new() == []
    assert Inbox(paths, [{"kind": "asked", "id": asked[1].id}]).take_new() == [
        asked[0],
        *asked[2:],
    ]


def test_damaged_and_torn_lines_cost_no_other_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = RunPaths(tmp_path)
    first, second = Request(num_trials=9), Request(finish=True)
    append(paths, first)
    with paths.requests.open("a") as file:
        file.write('not json\n{"id": "x"}\n{"id": "y", "num_trials": "many"}\n{"id": "z", "fin')
    inbox = Inbox(paths, [])
    with caplog.at_level(logging.WARNING):
        assert inbox.take_new() == [first]
    assert [line.partition(" of ")[0] for line in caplog.messages] == ["line 2", "line 3", "line 4"]
    append(paths, second)  # ends the line that a killed writer left
    assert inbox.take_new() == [second]
    assert len(caplog.messages) == 4


def test_a_request_without_an_id_has_the_same_one_whenever_it_is_read(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.requests.write_text('{"num_trials": 9}\n{"num_trials": 9}\n')
    first, second = Inbox(paths, []).take_new()
    assert [first, second] == Inbox(paths, []).take_new() and first.id != second.id
    assert Inbox(paths, [{"kind": "asked", "id": first.id}]).take_new() == [second]


def test_what_is_refused_anyway_is_no_work(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    late = Request(stop=("t0002",))
    append(paths, late)
    inbox = Inbox(paths, [])
    assert not inbox.has_work(CONFIG, RUNNING) and inbox.take_new() == [late]
    append(paths, Request(num_trials=9))
    assert inbox.has_work(CONFIG, RUNNING)


def test_a_file_that_cannot_be_read_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = RunPaths(tmp_path)
    paths.requests.mkdir()
    inbox = Inbox(paths, [])
    with caplog.at_level(logging.WARNING):
        assert inbox.take_new() == inbox.take_new() == []
    assert len(caplog.messages) == 1 and "cannot be read" in caplog.messages[0]
    paths.requests.rmdir()
    append(paths, Request(finish=True))
    assert len(inbox.take_new()) == 1


def test_a_write_that_takes_less_than_it_is_given_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:7]))
    asked = Request(stop=("t0001", "t0002"))
    append(RunPaths(tmp_path), asked)
    assert Inbox(RunPaths(tmp_path), []).take_new() == [asked]


def _append_many(folder: Path, number: int) -> None:
    for n in range(20):
        append(RunPaths(folder), Request(id=f"{number}-{n}", stop=("t0000",) * (n + 1)))


def test_many_that_ask_in_the_same_moment_are_all_heard(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(tmp_path, n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    inbox = Inbox(RunPaths(tmp_path), [])
    ids = {request.id for request in inbox.take_new()}
    assert ids == {f"{w}-{n}" for w in range(4) for n in range(20)}


@pytest.mark.parametrize("fields", [{}, {"finish": True, "num_trials": 3}, {"stop": ()}])
def test_a_request_asks_for_one_thing(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one of stop, add"):
        Request(**fields)


def test_what_requests_come_to() -> None:
    assert resolve(Request(stop=("t0001",)), CONFIG, RUNNING) == Effect(
        stop=("t0001",), num_trials=8
    )
    added = resolve(Request(add={"lora_rank": 8}), CONFIG, RUNNING)
    assert added == Effect(add={"lora_rank": 8}, num_trials=9)
    assert resolve(Request(num_trials=64), CONFIG, RUNNING) == Effect(num_trials=64)
    assert resolve(Request(num_trials=1), CONFIG, RUNNING) == Effect(num_trials=3)
    finish = resolve(Request(finish=True), CONFIG, RUNNING)
    assert finish == Effect(stop=("t0000", "t0001"), num_trials=3)


def test_what_cannot_be_done_is_refused_with_its_reason() -> None:
    assert "no trial 't0009'" in refuse(Request(stop=("t0001", "t0009")), RUNNING)
    assert "t0002 has ended already (stopped, place" in refuse(Request(stop=("t0002",)), RUNNING)
    assert "run of the finals" in refuse(Request(stop=("f0001s1",)), RUNNING + FINALS)
    for request in (Request(num_trials=9), Request(add={"lora_rank": 8}), Request(finish=True)):
        assert "search has ended" in refuse(request, RUNNING + FINALS, is_open=False)
    assert "no trial has reported" in refuse(Request(finish=True), [started(0)])
    assert "--num-trials is 1000" in refuse(Request(num_trials=10**400), RUNNING)
    assert "--num-trials is 0" in refuse(Request(num_trials=0), RUNNING)


def test_the_same_training_is_not_added_twice() -> None:
    point = {"learning_rate": 1e-3, "lora_rank": 8, "lora_alpha": 16.0, "lora_dropout": 0.0}
    same = Request(add={**point, "use_rslora": False})
    assert "t0000 has this point" in refuse(same, RUNNING)
    other = Request(add={**point, "use_rslora": True})
    add = resolve(other, CONFIG, RUNNING).add
    asked = {"kind": "asked", "id": other.id, "add": json.loads(json.dumps(add))}
    assert "that is to come has this point" in refuse(other, [*RUNNING, asked])
    drawn = Request(add=point)  # use_rslora is drawn
    asked["add"] = resolve(drawn, CONFIG, RUNNING).add
    assert resolve(drawn, CONFIG, [*RUNNING, asked]).num_trials == 9


def test_points_are_read_from_texts_and_may_lie_outside_the_space() -> None:
    named = {"lora_rank": "16", "learning_rate": "3e-2", "lora_alpha": "24", "use_rslora": "true"}
    point = {"lora_rank": 16, "learning_rate": 0.03, "alpha_over_rank": 1.5, "use_rslora": True}
    assert read_point(named, SPACE) == point
    space = LoraSpace(target_modules=("attention", "q_proj,v_proj"))
    sets = {"target_modules": "q_proj,v_proj", "lora_dropout": 0.5}
    assert read_point(sets, space) == sets


@pytest.mark.parametrize(
    ("named", "error"),
    [
        ({}, "no point was named"),
        ({"rank": "8"}, "no hyperparameter 'rank'"),
        ({"lora_rank": "8.5"}, "lora_rank is '8.5'"),
        ({"lora_rank": "0"}, "lora_rank is 0"),
        ({"lora_rank": 10**400}, "too large"),
        ({"lora_rank": 10**400, "lora_alpha": 16}, "too large"),
        ({"lora_rank": "32"}, "memory for 16 at most"),
        ({"lora_dropout": "1"}, "lora_dropout is 1"),
        ({"learning_rate": "nan"}, "learning_rate is nan"),
        ({"learning_rate": "-1"}, "learning_rate is -1"),
        ({"lora_alpha": "16"}, "multiple of the rank"),
        ({"lora_rank": "8", "lora_alpha": "-16"}, "lora_alpha is -16"),
        ({"lora_rank": "8", "lora_alpha": "16", "alpha_over_rank": "2"}, "multiple of the rank"),
        ({"target_modules": "mlp"}, "memory for: all"),
        ({"use_rslora": "perhaps"}, "use_rslora is 'perhaps'"),
    ],
)
def test_bad_points_are_refused(named: dict[str, object], error: str) -> None:
    with pytest.raises(SweepAborted, match=error):
        read_point(named, SPACE)
