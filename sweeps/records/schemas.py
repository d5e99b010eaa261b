"""What the files of a run have to hold, so that all who read them can rely on it.

Facts beside these may be there or not; kinds that are not named here are of another version.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Len
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, create_model

from trainables.config import Hyperparameters, TrialReport

Status = Literal["completed", "stopped", "failed"]
Number = float | Literal["nan", "inf", "-inf"]
"""As strict JSON holds it."""
Interval = Annotated[list[Number], Len(2, 2)]
Scores = dict[str, dict[str, Number]]
"""By what was scored, and by metric."""
_IN_JSON: Mapping[Any, Any] = {
    float: Number,
    dict[str, float]: dict[str, Number],
    tuple[str, ...]: list[str],
    Path: str,
}


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


def _list_facts(cls: type, *without: str) -> dict[str, Any]:
    """The fields of a dataclass as JSON has them, for a model."""
    types = get_type_hints(cls)
    return {
        f.name: (
            _IN_JSON.get(types[f.name], types[f.name]),
            ... if f.default is MISSING else f.default,
        )
        for f in fields(cls)
        if f.name not in without
    }


def _check_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("it has no time zone")
    return text


def _check_params(facts: _Facts) -> _Facts:
    try:
        Hyperparameters(**facts.model_dump())
    except TypeError as wrong:  # of a number that is none, or a name that is no hyperparameter's
        raise ValueError(str(wrong)) from None
    return facts


_Params = create_model("_Params", __base__=_Facts, **_list_facts(Hyperparameters))


class _Event(_Facts):
    kind: str
    time: Annotated[str, AfterValidator(_check_time)]


class _FinalRun(_Facts):
    trial_id: str
    of: str
    seed: int


class _SummaryValues(_Facts):
    winner: str


class _Cost(_Facts):
    wall_s: float
    gpu_hours: float


class _GpuTime(_Facts):
    search_s: float = 0.0
    finals_s: float = 0.0
    overhead_s: dict[str, float] = {}
    saved_by_asha_s: float | None = None


_FACTS: dict[str, dict[str, Any]] = {
    "sweep_started": {"num_trials": (int, 0)},
    "sweep_resumed": {"num_trials": (int, 0)},
    "trial_started": {
        **{"trial_id": str, "number": int, "is_asked": (bool, False)},
        "params": Annotated[_Params, AfterValidator(_check_params)],
    },
    "report": _list_facts(TrialReport, "cohort"),
    "trial_ended": {"trial_id": str, "status": Status, "reason": str},
    "asked": {
        **{"id": str, "finish": bool, "stop": list[str], "num_trials": (int, 0), "refused": str},
        "add": dict[str, float | bool | str] | None,
        **{"request": (str, ""), "note": (str, "")},
    },
    "finals_started": {"finalists": list[str], "baseline": str | None, "runs": list[_FinalRun]},
    "final_scores": {"trial_id": str, "scores": Scores, "runs": (Scores, {})},
    "bertscore": {"scores": Scores},
    "summary": {"values": _SummaryValues, "confusion": Any, "files": (list[str], [])},
    "pack_ended": {
        "pack": str | int,  # a number in records of before 0.1
        **{"device": str, "seconds": dict[str, float], "peak_gib": (float, 0.0)},
        **dict.fromkeys(("trial_steps", "real_tokens", "computed_tokens"), (int, 0)),
    },
    "predicted": dict.fromkeys(("wall_s", "wall_low_s", "wall_high_s"), float),
    "sweep_interrupted": {"reason": str},
    "sweep_ended": {"actual": (_Cost | None, None), "gpu_time": (_GpuTime | None, None)},
}
"""What an event of each kind has to hold: a type, and a default where it may be missing."""


def _make_event(kind: str, facts: Mapping[str, Any]) -> type[_Event]:
    given: dict[str, Any] = {n: f if isinstance(f, tuple) else (f, ...) for n, f in facts.items()}
    return create_model(kind, __base__=_Event, **given)


_EVENTS = {kind: _make_event(kind, facts) for kind, facts in _FACTS.items()}


class _Metric(_Facts):
    name: str
    mode: Literal["max", "min"]


class _Digest(_Facts):
    num: int
    sha256: str


class _Digests(_Facts):
    rows: dict[str, _Digest] = {}
    model: dict[str, str] = {}


class _Config(_Facts):
    num_trials: int


class SweepRecord(_Facts):
    """What sweep.json holds; from_json reads its config."""

    sweep_id: str
    name: str
    config: _Config
    metric: _Metric
    digests: _Digests
    rungs: list[int] = []
    doubts: list[str] = []
    read: list[str] = []
    labels: list[str] = []
    rows: dict[str, int] = {}
    versions: dict[str, str] = {}
    added: dict[str, int] = {}
    baselines: dict[str, Scores] = {}
    lead_intervals: dict[str, dict[str, Interval | None]] = {}
    prompt: str | None = None
    dataset: str | list[str] | None = None


class _FinalistRun(_Facts):
    trial_id: str


class _Finalist(_Facts):
    trial_id: str
    runs: list[_FinalistRun]
    probability_best: Number | None


class FinalsFile(_Facts):
    """What finals.json holds."""

    finalists: list[_Finalist]
    lead: Number | None
    interval: Interval | None
    num_rows: int
    notes: list[str]


def describe_fault(damaged: ValidationError) -> str:
    """The first thing that does not fit, in words."""
    first = damaged.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"it has no {place!r}"
    return f"{place}: {first['msg']}".removeprefix(": ")


def find_fault(event: object) -> str | None:
    """What an event lacks, or which of its facts is of a wrong type; None if it is as written."""
    kind = event.get("kind") if isinstance(event, dict) else None
    if not isinstance(kind, str):
        return f"it is no event: {str(event)[:80]}"
    try:
        _EVENTS.get(kind, _Event).model_validate(event)
    except ValidationError as damaged:
        return describe_fault(damaged)
    return None
