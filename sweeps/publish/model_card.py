"""The model card of a sweep's best adapter: YAML for the Hub, Markdown for people."""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from sweeps.finals.predictions import CONFUSION_CSV
from sweeps.finals.verdict import Verdict
from sweeps.finals.verdict_text import make_table, write_sentences
from sweeps.publish.usage_code import is_hub_id, usage_code
from trainables.config import Hyperparameters, Metric, TrainingSettings
from trainables.metrics.classification import Confusion

PIPELINE_TAG = "text-generation"
NUM_TOP_TRIALS = 10
MAX_SHOWN_LABELS = 20


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the card says; render adds no fact of its own."""

    base_model: str
    """Hub id or folder of the base; of a folder the card shows only the last name."""
    dataset: str
    """OWNER/NAME or OWNER/NAME@REVISION on the Hub, or a path; of that only the last name shows."""
    dataset_rows: dict[str, int]
    """Rows used, by split."""
    dropped_rows: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason or split."""
    prompt_template: str
    """The user's turn, with a {placeholder} for each column."""
    task: str
    """Name of the task, e.g. "samsum"."""
    params: Hyperparameters
    settings: TrainingSettings
    metric: Metric
    """What the sweep optimised."""
    scores: dict[str, dict[str, float]]
    """Metrics by name, by split; "validation_base" and "test_base" hold the untuned base's."""
    verdict: Verdict | None = None
    """Of the finals; None of a sweep without them."""
    confusion: Confusion | None = None
    """Of the adapter on test; None of texts."""
    sweep_name: str
    trial_id: str
    num_trials_by_status: dict[str, int]
    top_trials: list[dict[str, object]]
    """Rows for the table, best first; the first row's keys are its columns."""
    versions: dict[str, str]
    """Installed version by package."""
    command: str
    """Command line that repeats the sweep."""
    license: str | None = None
    """Hub identifier of the adapter's licence; None leaves it out."""


def render(facts: CardFacts) -> str:
    """The whole README.md. Redacted last, so that no field can bring a secret in."""
    sections = [
        f"# {_text(facts.sweep_name)}",
        _opening(facts),
        "## Use\n\n" + _block(_usage(facts), "python"),
        "## Scores\n\n" + _scores(facts),
        *_confusion(facts.confusion),
        "## Base and data\n\n" + _data(facts),
        "## Prompt\n\nThe user's turn, before the chat template (thinking off):\n\n"
        + _block(facts.prompt_template, "text"),
        "## Hyperparameters\n\n" + _fields_table(facts.params),
        "## Training\n\n" + _fields_table(facts.settings, omit=("model", "rows_dir")),
        "## How it was chosen\n\n" + _selection(facts),
        "## Reproduce\n\n"
        + _block(facts.command, "sh")
        + "\n\n"
        + _table(("package", "version"), facts.versions.items()),
    ]
    return redact(f"---\n{_metadata(facts)}\n---\n\n" + "\n\n".join(sections) + "\n")


def redact(text: str) -> str:
    """Text without Hub tokens, passwords in URLs, secrets of this environment and home folders."""
    text = re.sub(r"\bhf_[A-Za-z0-9]{8,}", "REDACTED", text)
    text = re.sub(r"(\w://[^\s/:@]*):[^\s/@]+@", r"\1:REDACTED@", text)
    text = re.sub(r"(--[\w-]*(?:token|key|password|secret)[= ])\S+", r"\1REDACTED", text)
    text = re.sub(r"(\b[A-Z_]*(?:TOKEN|KEY|PASSWORD|SECRET)=)\S+", r"\1REDACTED", text)
    for name, value in os.environ.items():
        if re.search(r"(TOKEN|KEY|PASSWORD|SECRET)$", name) and len(value) >= 8:
            text = text.replace(value, "REDACTED")
    return text.replace(f"{Path.home()}/", "~/")


def _metadata(facts: CardFacts) -> str:
    """The front matter; a local base or dataset is left out, for the Hub takes only its own ids."""
    base = facts.base_model if is_hub_id(facts.base_model) else None
    dataset, _ = _dataset(facts)
    data = ModelCardData(
        license=facts.license,
        library_name="peft",
        pipeline_tag=PIPELINE_TAG,
        base_model=base,
        datasets=[dataset] if is_hub_id(dataset) else None,
        tags=["lora", "qlora", "hyperparameter-search", "peft"],
        model_name=_line(facts.sweep_name),
        eval_results=_results(facts),
    )
    if base:
        data["base_model_relation"] = "adapter"
    return data.to_yaml()


def _results(facts: CardFacts) -> list[EvalResult]:
    """The adapter's own finite scores; the untuned base's are not this model's results."""
    dataset, revision = _dataset(facts)
    return [
        EvalResult(
            task_type=PIPELINE_TAG,
            task_name=_line(facts.task),
            dataset_name=dataset,
            dataset_type=dataset if is_hub_id(dataset) else _slug(dataset),
            dataset_revision=revision,
            dataset_split=split,
            metric_type="rouge" if metric.startswith("rouge") else metric,
            metric_name=metric,
            metric_value=float(value),
        )
        for split, metrics in facts.scores.items()
        if not split.endswith("_base")
        for metric, value in metrics.items()
        if math.isfinite(value)
    ]


def _opening(facts: CardFacts) -> str:
    return (
        f"A QLoRA adapter for {_text(_shown(facts.base_model))}, finetuned on "
        f"{_text(_dataset(facts)[0])} (task {_text(facts.task)}): trial "
        f"{_text(facts.trial_id)}, the best of a hyperparameter sweep by {facts.metric.name}."
    )


def _usage(facts: CardFacts) -> str:
    return usage_code(
        base_model=facts.base_model,
        prompt_template=facts.prompt_template,
        compute_dtype=facts.settings.compute_dtype,
        max_new_tokens=facts.settings.max_new_tokens,
    )


def _scores(facts: CardFacts) -> str:
    rows = [
        (split, metric, value, facts.scores.get(f"{split}_base", {}).get(metric))
        for split, metrics in facts.scores.items()
        if not split.endswith("_base")
        for metric, value in metrics.items()
    ]
    return _table(("split", "metric", "this adapter", "untuned base"), rows)


def _confusion(table: Confusion | None) -> list[str]:
    """The section of a classifier's mistakes; a large table stays in its file."""
    if table is None:
        return []
    title = "## Confusion matrix\n\nOn test, targets in rows and predictions in columns"
    if len(table.labels) > MAX_SHOWN_LABELS:
        return [f"{title}: {CONFUSION_CSV}."]
    rows = [(label, *row) for label, row in zip(table.labels, table.counts, strict=True)]
    return [f"{title}.\n\n" + _table(("target", *table.labels), rows)]


def _data(facts: CardFacts) -> str:
    base = f"Base: {_text(_shown(facts.base_model))}"
    if not is_hub_id(facts.base_model):
        base += ", a local folder (adapter_config.json has its place on the machine of the sweep)"
    dataset, revision = _dataset(facts)
    data = f"Data: {_text(dataset)}"
    if revision:
        data += f" at revision {_text(revision)}"
    dropped = _counts(facts.dropped_rows) or "none"
    return (
        f"- {base}, quantised to NF4 and frozen.\n- {data}.\n"
        f"- Rows: {_counts(facts.dataset_rows)}. Rows left out: {dropped}."
    )


def _selection(facts: CardFacts) -> str:
    best = "highest" if facts.metric.mode == "max" else "lowest"
    looks = "then one look at test" if "test" in facts.scores else "the test split was not used"
    return (
        f"Sweep {_text(facts.sweep_name)}, {sum(facts.num_trials_by_status.values())} trials "
        f"({_counts(facts.num_trials_by_status)}). Rule: the {best} validation "
        f"{facts.metric.name} {_among(facts)}; {looks}.\n\n"
        + "".join(f"{part}\n\n" for part in _finals(facts.verdict))
        + _top_trials(facts.top_trials)
    )


def _among(facts: CardFacts) -> str:
    if facts.verdict is None:
        return f"among the trials that reached the last rung (step {facts.settings.rungs[-1]})"
    return "as a mean over the seeds with which the best trials were trained again"


def _finals(verdict: Verdict | None) -> list[str]:
    """How the finals ended, and their table."""
    if verdict is None:
        return []
    rows = make_table(verdict)
    told = "\n".join(f"- {_text(line)}" for line in write_sentences(verdict))
    return [told, _table(tuple(rows[0]), [tuple(row.values()) for row in rows])]


def _top_trials(trials: Sequence[Mapping[str, object]]) -> str:
    if not trials:
        return "No table of trials was kept."
    columns = tuple(trials[0])
    rows = ([trial.get(column) for column in columns] for trial in trials[:NUM_TOP_TRIALS])
    return _table(columns, rows)


def _fields_table(values: Hyperparameters | TrainingSettings, omit: Sequence[str] = ()) -> str:
    names = [f.name for f in fields(values) if f.name not in omit]
    rows = [(name, getattr(values, name)) for name in names]
    return _table(("name", "value"), [(n, repr(v) if isinstance(v, float) else v) for n, v in rows])


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [[_cell(column) for column in columns], ["---"] * len(columns)]
    lines += [[_cell(value) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.4g}"
        case tuple() | list():
            return ", ".join(_cell(item) for item in value)
    return _text(str(value))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {_text(name)}" for name, count in counts.items())


def _block(text: str, language: str) -> str:
    """A fenced block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _text(text: str) -> str:
    """One line in which no character is Markdown or HTML; underscores inside words stay plain."""
    escaped = re.sub(r"([\\`*\[\]<>#|~&$])", r"\\\1", _line(text))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)


def _line(text: str) -> str:
    return " ".join(text.split())


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "local"


def _dataset(facts: CardFacts) -> tuple[str, str | None]:
    """The dataset's name as the card shows it, and its revision on the Hub."""
    name, _, revision = facts.dataset.partition("@")
    if is_hub_id(name):
        return name, _line(revision) or None
    return _shown(facts.dataset), None


def _shown(name: str) -> str:
    """A Hub id whole; of a path only the last name, for folders tell about a machine's owner."""
    return _line(name if is_hub_id(name) else Path(name).name or name)
