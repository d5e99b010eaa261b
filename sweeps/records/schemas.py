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


class _Begun(_Event):
    num_trials: int = 0


class _TrialStarted(_Event):
    trial_id: str
    number: int
    params: Annotated[_Params, AfterValidator(_check_params)]  # type: ignore[valid-type]
    is_asked: bool = False


class _TrialEnded(_Event):
    trial_id: str
    status: Status
    reason: str


class _FinalRun(_Facts):
    trial_id: str
    of: str
    seed: int


class _FinalsStarted(_Event):
    finalists: list[str]
    baseline: str | None
    runs: list[_FinalRun]


class _Asked(_Event):
    id: str
    finish: bool
    stop: list[str]
    add: dict[str, float | bool | str] | None
    num_trials: int = 0
    refused: str


class _FinalScores(_Event):
    trial_id: str
    scores: Scores
    runs: Scores = {}


class _BertScore(_Event):
    scores: Scores


class _SummaryValues(_Facts):
    winner: str


class _Summary(_Event):
    values: _SummaryValues
    confusion: Any
    files: list[str] = []


class _PackEnded(_Event):
    pack: str | int  # a number in records of before 0.1
    device: str
    seconds: dict[str, float]
    trial_steps: int = 0
    real_tokens: int = 0
    computed_tokens: int = 0
    peak_gib: float = 0.0


class _Predicted(_Event):
    wall_s: float
    wall_low_s: float
    wall_high_s: float


class _Interrupted(_Event):
    reason: str


class _Cost(_Facts):
    wall_s: float
    gpu_hours: float


class _GpuTime(_Facts):
    search_s: float = 0.0
    finals_s: float = 0.0
    overhead_s: dict[str, float] = {}
    saved_by_asha_s: float | None = None


class _Ended(_Event):
    actual: _Cost | None = None
    gpu_time: _GpuTime | None = None


_EVENTS: Mapping[str, type[_Event]] = {
    "sweep_started": _Begun,
    "sweep_resumed": _Begun,
    "trial_started": _TrialStarted,
    "report": create_model("_Report", __base__=_Event, **_list_facts(TrialReport, "cohort")),
    "trial_ended": _TrialEnded,
    "finals_started": _FinalsStarted,
    "asked": _Asked,
    "final_scores": _FinalScores,
    "bertscore": _BertScore,
    "summary": _Summary,
    "pack_ended": _PackEnded,
    "predicted": _Predicted,
    "sweep_interrupted": _Interrupted,
    "sweep_ended": _Ended,
}


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
