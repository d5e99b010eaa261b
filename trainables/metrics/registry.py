"""The metrics by name: what they are of, which way is better, how their scores are shown, and what
`--metric` may name."""

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from trainables.config import Hyperparameters, Language, Metric, TaskOptions, TrialReport
from trainables.errors import SweepAborted
from trainables.metrics.rouge import ROUGE_TYPES
from trainables.metrics.texts.ngram_scores import BLEU, CHRF, SummedScore
from trainables.metrics.texts.text_scores import exact_match, json_fields, token_f1

Mode = Literal["max", "min"]
PER_LABEL = ("f1_", "precision_", "recall_")
"""How the scores of one label begin; trainables.metrics.classification.label_names ends them."""
PERCENT = 100.0
SHOWN_SCALES = (1e-6, 1e6)
"""Outside of them scores are shown with an exponent."""
_RESERVED = {
    *(f.name for f in fields(TrialReport)),
    *(f.name for f in fields(Hyperparameters)),
    *("gen_len_tokens", "unfinished_frac", "status", "reason", "steps", "slot", "pack", "name"),
    *("number", "run", "done", "config", "date", "pid", "hostname", "node_ip", "timestamp"),
    *("training_iteration", "time_total_s", "time_this_iter_s", "time_since_restore"),
    *("iterations_since_restore", "experiment_tag", "should_checkpoint", "checkpoint_dir_name"),
}
"""Names of the columns of trials.csv and of Ray Tune's results."""


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """A metric of this project."""

    of: Literal["texts", "labels", "both"] = "texts"
    """What kind of answer it is of."""
    mode: Mode = "max"
    scale: float | None = 100.0
    """The largest score; None if there is none."""
    files: tuple[str, ...] = ()
    """Files of this folder whose code is the metric; they count in its fingerprint."""
    is_always: bool = True
    """Whether every report has it; the others are computed where they are asked for."""
    score_row: Callable[[str, str, Language], float] | None = None
    """Score of an answer beside one reference. The metric is the mean over rows."""
    summed: SummedScore | None = None
    """A metric of all rows at once."""


_ROUGE = BuiltIn(files=("rouge.py", "lcs.py", "sentences.py", "words.py"))
LABEL_METRIC = BuiltIn(of="labels", files=("classification.py",))

METRICS: dict[str, BuiltIn] = {
    **dict.fromkeys(ROUGE_TYPES, _ROUGE),  # all four at once, in score_answers.py
    "exact_match": BuiltIn(files=("texts/text_scores.py",), score_row=exact_match),
    "token_f1": BuiltIn(files=("texts/text_scores.py", "words.py"), score_row=token_f1),
    "json_fields": BuiltIn(files=("texts/text_scores.py",), is_always=False, score_row=json_fields),
    "bleu": BuiltIn(files=("texts/ngram_scores.py",), is_always=False, summed=BLEU),
    "chrf": BuiltIn(files=("texts/ngram_scores.py",), is_always=False, summed=CHRF),
    "accuracy": LABEL_METRIC,
    "macro_f1": LABEL_METRIC,
    "mcc": replace(LABEL_METRIC, scale=1.0),
    "eval_loss": BuiltIn(of="both", mode="min", scale=None),
}

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_FUNCTION = re.compile(rf"(?P<path>.+\.py):(?P<function>{_NAME})(?::(?P<key>[A-Za-z0-9_]+))?")
_MODULE = re.compile(r"evaluate:(?P<path>[^:]+)(?::(?P<key>[A-Za-z0-9_]+))?")
_FORMS = "FILE.py:FUNCTION or evaluate:NAME_OR_DIR"


@dataclass(frozen=True, kw_only=True)
class AskedMetric:
    """One of the metrics that `--metric` names."""

    metric: Metric
    """Name in the reports, and direction."""
    path: str | None = None
    """The user's file, or the folder or name of a module of evaluate; None of a built-in one."""
    function: str | None = None
    """Function in the user's file."""
    key: str | None = None
    """Which of several numbers it is."""
    prefix: str = ""
    """Name in the reports without the key."""


def rank_by(options: TaskOptions, default: str) -> Metric:
    """The metric that ranks trials: the first that the options name, or the task's own.

    Raises:
        SweepAborted: what the options name is no metric.
    """
    asked = read_metrics(options)
    return asked[0].metric if asked else Metric(name=default)


def read_metrics(options: TaskOptions) -> tuple[AskedMetric, ...]:
    """What --metric names, in its order.

    Raises:
        SweepAborted: something in it is no metric, stands there twice, or has its own direction.
    """
    texts = [] if options.metric is None else options.metric.split(",")
    asked = tuple(_read_metric(text.strip(), options.metric_mode) for text in texts)
    names = [one.metric.name for one in asked]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SweepAborted(
            f"--metric {options.metric} gives two scores the name {twice}",
            "name each metric once, and give functions different names",
        )
    if options.metric_mode is not None and all(one.path is None for one in asked):
        raise SweepAborted(
            f"--metric-mode {options.metric_mode} is of metrics of your own, and --metric names "
            "none",
            f"leave it out, or name one: --metric {_FORMS}",
        )
    return asked


def resolve_metrics(text: str) -> str:
    """What --metric names, with the absolute paths of files and folders that are there."""
    return replace_paths(text, lambda path: os.path.abspath(path) if os.path.exists(path) else path)


def replace_paths(text: str, replace: Callable[[str], str]) -> str:
    """What --metric names, with something else for each file or module of the user's."""
    parts = []
    for part in map(str.strip, text.split(",")):
        match = _MODULE.fullmatch(part) or _FUNCTION.fullmatch(part)
        if match is not None:
            first, last = match.span("path")
            part = f"{part[:first]}{replace(match['path'])}{part[last:]}"
        parts.append(part)
    return ",".join(parts)


def find_scale(name: str, values: Iterable[float | None]) -> float:
    """The largest score that a metric gives, or, where that is not known, seems to give.

    Args:
        values: scores by it; their next power of ten is the scale of a metric of the user's own.
    """
    known = PERCENT if name.startswith(PER_LABEL) else None
    known = METRICS[name].scale if name in METRICS else known
    if known is not None:
        return known
    largest = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)
    return 10.0 ** math.ceil(math.log10(largest)) if largest else 1.0


def format_score(name: str, value: float | None, beside: Iterable[float | None] = ()) -> str:
    """The score to a ten-thousandth of the metric's scale; empty if there is none.

    Args:
        beside: scores by the same metric that stand beside it and have as many digits.
    """
    if value is None:
        return ""
    scale = find_scale(name, (value, *beside))
    if not SHOWN_SCALES[0] <= scale <= SHOWN_SCALES[1]:
        return f"{value:.4g}"
    return f"{value:.{max(0, 4 - round(math.log10(scale)))}f}"


def is_reserved(name: str) -> bool:
    """Whether something else is reported, kept in a table or told to Ray Tune under this name."""
    return name in METRICS or name.startswith(PER_LABEL) or name in _RESERVED


def _read_metric(text: str, mode: Mode | None) -> AskedMetric:
    if text in METRICS:
        return AskedMetric(metric=Metric(name=text, mode=METRICS[text].mode))
    if text.startswith(PER_LABEL):
        return AskedMetric(metric=Metric(name=text))
    match = _MODULE.fullmatch(text) or _FUNCTION.fullmatch(text)
    if match is None:
        raise SweepAborted(*_explain(text))
    parts = match.groupdict()
    function, key = parts.get("function"), parts["key"]
    stem = re.sub(r"[^A-Za-z0-9]+", "_", Path(parts["path"]).stem).strip("_")
    prefix = function or f"evaluate_{stem}"
    name = f"{prefix}_{key}" if key else prefix
    if is_reserved(name):
        raise SweepAborted(
            f"--metric {text} would be reported as {name}, which is another score's name",
            f"give the function another name than {function}",
        )
    return AskedMetric(
        metric=Metric(name=name, mode=mode or "max"),
        path=parts["path"],
        function=function,
        key=key,
        prefix=prefix,
    )


def _explain(text: str) -> tuple[str, str]:
    """Why a text names no metric, and what would."""
    if text.endswith(".py"):
        return f"--metric {text} names no function", f"name one: --metric {text}:FUNCTION"
    near = difflib.get_close_matches(text, METRICS, n=1)
    guess = f"perhaps you meant {near[0]}; " if near else ""
    return (
        f"--metric {text or repr(text)} is no metric",
        f"{guess}name one of {', '.join(METRICS)}, f1_LABEL, {_FORMS}",
    )
