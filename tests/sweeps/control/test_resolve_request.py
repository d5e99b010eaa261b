"""What each request comes to, and what is refused."""

import json
from typing import Any

import pytest

from search_spaces.lora import LoraSpace
from sweeps.control.resolve_request import (
    ResolvedRequest,
    foresee,
    is_any_possible,
    keep_begun,
    read_point,
    resolve,
)
from sweeps.records.events import list_waiting_points
from sweeps.records.request_file import Request
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


def added(point: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "asked", "id": "a", "finish": False, "stop": [], "add": point, "refused": ""}


def refuse(request: Request, events: list[dict[str, Any]], *, is_open: bool = True) -> str:
    with pytest.raises(SweepAborted) as refused:
        resolve(request, CONFIG, events, is_open=is_open)
    assert refused.value.fix
    return refused.value.error


def test_what_is_refused_anyway_is_no_work() -> None:
    late = Request(stop=("t0002",))
    assert not is_any_possible([], CONFIG, RUNNING)
    assert not is_any_possible([late], CONFIG, RUNNING)
    assert is_any_possible([late, Request(num_trials=9)], CONFIG, RUNNING)


def test_what_requests_come_to() -> None:
    assert resolve(Request(stop=("t0001",)), CONFIG, RUNNING) == ResolvedRequest(
        stop=("t0001",), num_trials=8
    )
    added = resolve(Request(add={"lora_rank": 8}), CONFIG, RUNNING)
    assert added == ResolvedRequest(add={"lora_rank": 8}, num_trials=9)
    assert resolve(Request(num_trials=64), CONFIG, RUNNING) == ResolvedRequest(num_trials=64)
    fewer = resolve(Request(num_trials=1), CONFIG, RUNNING)
    note = "1 is less than the 3 that have begun or were added: the search ends with these 3"
    assert fewer == ResolvedRequest(num_trials=3, note=note)
    finish = resolve(Request(finish=True), CONFIG, RUNNING)
    assert finish == ResolvedRequest(stop=("t0000", "t0001"), num_trials=3)


def test_points_that_were_added_count_until_the_search_is_ended() -> None:
    points = [{"lora_rank": 8, "learning_rate": 2e-3}, {"lora_rank": 4}, {"lora_rank": 2}]
    events = [*RUNNING, *map(added, points), started(3) | {"is_asked": True}]
    assert list_waiting_points(events) == points[1:]
    assert keep_begun(6, events) == (6, "")
    fewer = resolve(Request(num_trials=4), CONFIG, events)
    assert fewer.num_trials == 6 and "4 is less than the 6 that have begun or were" in fewer.note
    finish = resolve(Request(finish=True), CONFIG, events)
    assert finish.num_trials == 4
    assert finish.note == "dropped, since they had not begun: lora_rank=4; lora_rank=2"
    config, foreseen = foresee([Request(finish=True), Request(stop=("t9",))], CONFIG, events)
    assert config.num_trials == 4 and list_waiting_points(foreseen) == []


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
    asked = added(json.loads(json.dumps(add)))
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
