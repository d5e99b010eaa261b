"""What a request of a user comes to, as a sweep stands. Loads no Ray."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from search_spaces.lora import LoraSpace, Point
from sweeps.config import SweepConfig, fill_point
from sweeps.records.events import list_waiting_points
from sweeps.records.request_file import Request, write_point
from sweeps.records.trial_record import TrialRecord, replay, replay_all
from trainables.errors import SweepAborted

MAX_TRIALS = 1_000_000
"""That a request may ask for."""


@dataclass(frozen=True, kw_only=True)
class ResolvedRequest:
    """What a request comes to, as things stand."""

    stop: tuple[str, ...] = ()
    """Trials that end as stopped."""
    add: Point | None = None
    """A point that is proposed next."""
    num_trials: int
    """Trials that the search has from now on."""
    note: str = ""
    """What of the request is not done, or what it drops, in words."""


@dataclass(frozen=True, kw_only=True)
class _AskedPoint:
    """The type of each name that a point may have."""

    learning_rate: float | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    alpha_over_rank: float | None = None
    lora_dropout: float | None = None
    use_rslora: bool | None = None
    target_modules: str | None = None


def resolve(
    request: Request,
    config: SweepConfig,
    events: Sequence[dict[str, Any]],
    *,
    is_open: bool = True,
) -> ResolvedRequest:
    """What a request comes to.

    Args:
        config: with the number of trials that the search is asked for by now.
        events: of the log, which has all trials that have begun.
        is_open: whether the search may still have new trials.

    Raises:
        SweepAborted: it cannot be done, and why.
    """
    trials, waiting = replay(events), list_waiting_points(events)
    running = tuple(trial.trial_id for trial in trials if trial.status is None)
    if request.stop:
        known = {record.trial_id: record for record in replay_all(events)}
        for trial_id in request.stop:
            _check_stoppable(trial_id, known, running)
        return ResolvedRequest(stop=request.stop, num_trials=config.num_trials)
    if not is_open or (request.finish and not running and len(trials) >= config.num_trials):
        fix = "once the sweep has ended, more trials follow by: --resume --num-trials N"
        raise SweepAborted("the search has ended already", fix)
    if request.finish:
        if not any(trial.reports for trial in trials):
            raise SweepAborted(
                "no trial has reported yet, so there is none for the finals",
                "wait for a report, or end the sweep: Ctrl-C",
            )
        dropped = "; ".join(map(write_point, waiting))
        note = f"dropped, since they had not begun: {dropped}" if dropped else ""
        return ResolvedRequest(stop=running, num_trials=len(trials), note=note)
    if request.num_trials is not None:
        if not 1 <= request.num_trials <= MAX_TRIALS:
            fix = f"ask for 1 to {MAX_TRIALS}"
            raise SweepAborted(f"--num-trials is {request.num_trials}", fix)
        num_trials, note = keep_begun(request.num_trials, events)
        return ResolvedRequest(num_trials=num_trials, note=note)
    point = read_point(request.add or {}, config.space)
    _check_new(point, config.space, trials, waiting)
    return ResolvedRequest(add=point, num_trials=config.num_trials + 1)


def keep_begun(num_trials: int, events: Sequence[dict[str, Any]]) -> tuple[int, str]:
    """The trials that a search has that is asked for so many, and why it has more of them: those
    that have begun or were added count."""
    num_least = len(replay(events)) + len(list_waiting_points(events))
    if num_trials >= num_least:
        return num_trials, ""
    note = (
        f"{num_trials} is less than the {num_least} that have begun or were added: the search ends "
        f"with these {num_least}"
    )
    return num_least, note


def foresee(
    requests: Iterable[Request], config: SweepConfig, events: Sequence[dict[str, Any]]
) -> tuple[SweepConfig, list[dict[str, Any]]]:
    """The config and the log of a sweep once it has taken up requests that wait, as far as later
    requests depend on it."""
    foreseen = list(events)
    for request in requests:
        with suppress(Exception):  # as Steering takes them
            resolved = resolve(request, config, foreseen)
            config = replace(config, num_trials=resolved.num_trials)
            asked = {"kind": "asked", "finish": request.finish, "refused": ""}
            foreseen.append(asked | asdict(resolved))
    return config, foreseen


def is_any_possible(
    requests: Iterable[Request], config: SweepConfig, events: Sequence[dict[str, Any]]
) -> bool:
    """Whether the sweep has work of a request: one that is not refused as things stand."""
    for request in requests:
        with suppress(Exception):  # as Steering takes them
            resolve(request, config, events)
            return True
    return False


def read_point(named: Mapping[str, object], space: LoraSpace) -> Point:
    """A point, or a part of one, as the search takes it.

    It may lie outside the bounds of the space, but not where packs have no memory for it: a rank
    above all of the space, or other sets of layers.

    Args:
        named: values, or texts of them, by hyperparameter; lora_alpha beside lora_rank.

    Raises:
        SweepAborted: an unknown name, or a value that no trial can have.
    """
    names = [f.name for f in fields(_AskedPoint)]
    fix = f"name some of {', '.join(names)}, e.g. lora_rank=32 learning_rate=3e-4"
    unknown = [name for name in named if name not in names]
    if unknown or not named:
        what = f"there is no hyperparameter {unknown[0]!r}" if unknown else "no point was named"
        raise SweepAborted(what, fix)
    try:
        asked = TypeAdapter(_AskedPoint).validate_python(dict(named))
    except ValidationError as refused:
        first = refused.errors()[0]
        raise SweepAborted(
            f"{first['loc'][0]} is {first['input']!r}: {first['msg']}", fix
        ) from None
    point: Point = {name: v for name, v in vars(asked).items() if v is not None}
    try:
        if asked.lora_alpha is not None:
            if asked.lora_rank is None or asked.alpha_over_rank is not None:
                ratio = "name lora_rank beside it; or alpha_over_rank alone"
                raise SweepAborted("lora_alpha is a multiple of the rank", ratio)
            point["alpha_over_rank"] = asked.lora_alpha / max(1, asked.lora_rank)
            del point["lora_alpha"]
        fill_point(point)
    except (ValueError, OverflowError) as refused:  # also of an alpha over a rank that is no float
        raise SweepAborted(str(refused), fix) from None
    largest = max(space.lora_ranks)
    if asked.lora_rank is not None and asked.lora_rank > largest:
        error = f"lora_rank is {asked.lora_rank}; this sweep has memory for {largest} at most"
        raise SweepAborted(
            error, "name a smaller one, or begin a new sweep with other --lora-ranks"
        )
    if not space.contains({"target_modules": point.get("target_modules", space.target_modules[0])}):
        sets = " ".join(space.target_modules)
        error = f"target_modules is {asked.target_modules!r}; this sweep has memory for: {sets}"
        raise SweepAborted(error, "name one of them, or begin a new sweep with other ones")
    return point


def _check_stoppable(
    trial_id: str, known: Mapping[str, TrialRecord], running: Sequence[str]
) -> None:
    record = known.get(trial_id)
    fix = f"name some of those that run: {', '.join(running)}" if running else "none runs now"
    if record is None:
        raise SweepAborted(f"there is no trial {trial_id!r} in this sweep", fix)
    if record.final_of is not None:
        raise SweepAborted(f"{trial_id} is a run of the finals, which all run to their end", fix)
    if record.status is not None:
        reason = f", {record.reason}" if record.reason else ""
        raise SweepAborted(f"{trial_id} has ended already ({record.status}{reason})", fix)


def _check_new(
    point: Point,
    space: LoraSpace,
    trials: Sequence[TrialRecord],
    waiting: Sequence[Point],
) -> None:
    """Refuses a point that would be the same training once more.

    Raises:
        SweepAborted: a trial has it, or it was added before and waits.
    """
    fixed = {name: c[0] for name, c in space.choices.items() if len(c) == 1}
    whole: Point = {**fixed, **point}
    if set(whole) < {"learning_rate", *space.choices}:
        return  # what it leaves out is drawn
    params = fill_point(whole)
    same = [trial.trial_id for trial in trials if trial.params == params]
    if same or any({**fixed, **other} == whole for other in waiting):
        error = f"{same[0] if same else 'a trial that is to come'} has this point already"
        raise SweepAborted(error, "name another one, or leave something out, which is drawn")
