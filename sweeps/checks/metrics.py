"""Whether the asked metrics can score the task's answers: tried before a GPU is used."""

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trainables.config import TaskOptions
from trainables.data.rows import MetricCode, Row, Scoring, Splits
from trainables.errors import SweepAborted, TrialFailed
from trainables.files import parse_json
from trainables.metrics.classification import label_names
from trainables.metrics.custom.client import MetricProcess, end_processes, score_custom
from trainables.metrics.registry import METRICS, PER_LABEL, AskedMetric, read_metrics

MAX_NAMED = 20
"""Labels that an error names at most, the nearest ones."""
TRY_TIMEOUT_S = 120.0
"""Longest time for two rows, the metric's imports included."""


def choose_metrics(splits: Splits, options: TaskOptions, *, is_resumed: bool) -> Splits:
    """The splits with the metrics that the options ask for.

    Metrics of the user's own are tried on two rows: a right answer and an empty one.

    Args:
        splits: those of a resumed run are its own, with the metrics that it began with.

    Raises:
        SweepAborted: a metric is of another kind of answer, cannot be read, fails on the two rows,
            or is not what it was when the run began.
    """
    asked = read_metrics(options)
    scoring = splits.scoring
    for one in asked:
        if one.path is None:
            _check_built_in(one.metric.name, splits)
    began = {code.ranking_name: code for code in scoring.custom}
    custom = tuple(
        _read_code(one, began.get(one.metric.name)) for one in asked if one.path is not None
    )
    if is_resumed:  # trials of one sweep are scored by the same source
        pairs = zip(custom, scoring.custom, strict=True)
        if changed := [code.name for code, other in pairs if code != other]:
            raise SweepAborted(
                f"the metric {changed[0]} is not what it was when this sweep began: its source "
                "differs",
                "put its file back as it was, or begin a new sweep with another --name",
            )
        return splits
    names = tuple(one.metric.name for one in asked if one.path is None)
    chosen = replace(scoring, metrics=names, custom=custom)
    _try_custom(chosen, splits.validation)
    return replace(splits, scoring=chosen)


def _check_built_in(name: str, splits: Splits) -> None:
    """A metric of this project is of the task's kind of answer, and of a label that is there."""
    labels = splits.scoring.labels
    is_of_label = name not in METRICS
    of = "labels" if is_of_label else METRICS[name].of
    if of != "both" and (of == "labels") != (splits.scoring.kind == "classify"):
        kind = "labels" if splits.scoring.kind == "classify" else "texts"
        fitting = [other for other in METRICS if METRICS[other].of in (kind, "both")]
        raise SweepAborted(
            f"--metric {name} is of {of}, and the answers here are {kind}",
            f"name one of {', '.join(fitting)}, or a metric of your own",
        )
    known = [f"{PER_LABEL[0]}{label}" for label in label_names(labels).values()]
    if is_of_label and name.partition("_")[2] not in label_names(labels).values():
        near = difflib.get_close_matches(name, known, n=MAX_NAMED, cutoff=0.0)
        named = known if len(known) <= MAX_NAMED else near
        raise SweepAborted(
            f"--metric {name} is of no label here", f"name one of {', '.join(named)}"
        )
    if name == "json_fields":
        rows = (*splits.validation, *splits.test)
        for row, text in ((one, text) for one in rows for text in (one.target, *one.references)):
            try:
                parse_json(text)
            except ValueError as error:
                raise SweepAborted(
                    f"--metric json_fields: the target of row {row.id} is no JSON: {error}",
                    "make every target of validation and test JSON, or name another metric",
                ) from None


def _read_code(asked: AskedMetric, began: MetricCode | None) -> MetricCode:
    """A metric of the user's with its source.

    Args:
        began: what a resumed run has of it; it serves where the file is gone.
    """
    assert asked.path is not None
    path = Path(asked.path)
    if asked.function is not None:
        paths = [path]
    elif path.is_dir():  # as evaluate has it: DIR/DIR.py
        main = path / f"{path.absolute().name}.py"
        paths = [main, *sorted(set(path.glob("*.py")) - {main, path / "__init__.py"})]
    else:
        paths = [path] if path.suffix == ".py" else []
    code = MetricCode(name=asked.prefix, files={}, function=asked.function, key=asked.key)
    try:
        files = {one.name: one.read_text(encoding="utf-8") for one in paths}
    except FileNotFoundError as missing:
        if began is not None:
            return began
        raise SweepAborted(
            f"--metric {asked.path}: there is no file {missing.filename}",
            "name a Python file with a function that scores, or a folder of evaluate's form: "
            "NAME/NAME.py",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SweepAborted(
            f"--metric {asked.path} cannot be read: {error}", "name a Python file in UTF-8"
        ) from None
    if not files and began is not None:
        return began  # the run has its source; the module may be gone from evaluate's cache
    return replace(code, files=files or _find_module(code, asked.path))


def _find_module(code: MetricCode, name: str) -> dict[str, str]:
    """The files of a module that evaluate has in its cache."""
    process = MetricProcess(code, (), TRY_TIMEOUT_S)
    try:
        return process.find_files(name)
    except TrialFailed as failed:
        raise SweepAborted(
            f"--metric evaluate:{name} cannot be loaded: {failed}",
            "nothing is downloaded: name a folder that holds it, or load it once yourself: "
            f"python -c \"import evaluate; evaluate.load('{name}')\"",
        ) from None
    finally:
        process.end()


def _try_custom(scoring: Scoring, rows: Sequence[Row]) -> None:
    """Metrics of the user's own give numbers for a right answer, and for an empty or any label."""
    tried = rows[:2]
    answers = [tried[0].target, next(iter(scoring.labels), "")]
    try:
        score_custom(
            scoring.custom, tried, answers[: len(tried)], scoring.labels, timeout_s=TRY_TIMEOUT_S
        )
    except TrialFailed as failed:
        raise SweepAborted(
            f"{failed}; it was tried on two rows, with the answers {answers[0]!r:.80} and "
            f"{answers[-1]!r:.80}",
            "make it return a finite number, a dict of numbers (name one: "
            "--metric FILE.py:FUNCTION:KEY), or a list with a number a row, whatever a model says",
        ) from None
    finally:
        end_processes()
