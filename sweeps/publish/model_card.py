"""The model card of a sweep's best adapter: YAML for the Hub, Markdown for people."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from sweeps.finals.final_test import Outcome
from sweeps.finals.predictions import CONFUSION_CSV, LABEL_SCORES_CSV
from sweeps.finals.verdict import Verdict
from sweeps.finals.verdict_text import write_sentences
from sweeps.publish import tables
from sweeps.publish.tables import Table
from sweeps.publish.usage_code import is_hub_id, usage_code
from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import count_by_status
from trainables.config import Hyperparameters, Metric, TrainingSettings
from trainables.data.rows import Scoring
from trainables.metrics.classification import Confusion
from trainables.metrics.scales import format_score

PIPELINE_TAG = "text-generation"
MAX_SHOWN_LABELS = 20


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the card says; render adds no fact of its own."""

    sweep_name: str
    task: str
    """Name of the task, e.g. "samsum"."""
    base_model: str
    """Hub id or folder of the base; of a folder the card shows only the last name."""
    dataset: str
    """OWNER/NAME or OWNER/NAME@REVISION on the Hub, or a path; of that only the last name shows."""
    dataset_rows: dict[str, int]
    """Rows used, by split."""
    dropped_rows: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason or split."""
    added_rows: dict[str, int] = field(default_factory=dict)
    """Training rows that the data does not have, by how they came in."""
    prompt_template: str
    """The user's turn, with a {placeholder} for each column."""
    source: str
    """Which of these names is the text that a long prompt may lose the end of."""
    scoring: Scoring
    """How the answers were scored."""
    settings: TrainingSettings
    system_prompt: str | None = None
    """What stands before every prompt."""
    metric: Metric
    """What the sweep optimised."""
    outcome: Outcome
    """The adapter, and what it reaches beside the untuned base."""
    trials: Sequence[TrialRecord]
    """Of the search."""
    verdict: Verdict | None = None
    """Of the finals; None of a sweep without them."""
    confusion: Confusion | None = None
    """Of the adapter on test; None of texts."""
    versions: dict[str, str]
    """Installed version by package."""
    command: str
    """Command line that repeats the sweep."""
    row_digests: Mapping[str, str]
    """SHA-256 of each split's rows."""
    is_best: bool = True
    """Whether the sweep chose this adapter; if not, someone asked for it."""


def render(facts: CardFacts) -> str:
    """The whole README.md. Redacted last, so that no field can bring a secret in."""
    by_label = tables.list_label_scores(facts.outcome.scores.get("test", {}))
    adapter = "best adapter" if facts.is_best else "this adapter"
    sections = [
        f"# {_text(facts.sweep_name)}",
        _opening(facts),
        *(f"**Warning:** {_text(doubt)}." for doubt in facts.outcome.doubts),
        "## Use\n\n" + _block(_usage(facts), "python"),
        "## Scores\n\n" + _table(tables.list_scores(facts.outcome, facts.metric, adapter)),
        *([_table(by_label)] if by_label else []),
        *([_confusion(facts.confusion)] if facts.confusion else []),
        "## Base and data\n\n" + _data(facts),
        "## Prompt\n\nThe user's turn, before the chat template "
        f"(thinking {'on' if facts.settings.thinking else 'off'}):\n\n"
        + _block(facts.prompt_template, "text"),
        "## Hyperparameters\n\n" + _fields_table(facts.outcome.winner.run.params),
        "## Training\n\n" + _fields_table(facts.settings, omit=("model", "rows_dir")),
        "## How it was chosen\n\n" + _selection(facts),
        "## Reproduce\n\nFiles and folders are shown by their last names. The rows are the same if "
        "the new run's `sweep.json` has these digests.\n\n" + _block(facts.command, "sh"),
        _table(Table("", ("rows", "SHA-256"), list(facts.row_digests.items()))),
        _table(Table("", ("package", "version"), list(facts.versions.items()))),
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
    is_nf4 = facts.settings.base == "nf4"
    data = ModelCardData(
        library_name="peft",
        pipeline_tag=PIPELINE_TAG,
        base_model=base,
        datasets=[dataset] if is_hub_id(dataset) else None,
        tags=["lora", *(["qlora"] if is_nf4 else []), "hyperparameter-search", "peft"],
        model_name=_line(facts.sweep_name),
        eval_results=_results(facts),
    )
    if base:
        data["base_model_relation"] = "adapter"
    return data.to_yaml()


def _results(facts: CardFacts) -> list[EvalResult]:
    """The adapter's own finite scores; those of the untuned base and of baselines are not its."""
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
        for split, metrics in facts.outcome.scores.items()
        if split in ("validation", "test")
        for metric, value in metrics.items()
        if math.isfinite(value)
    ]


def _opening(facts: CardFacts) -> str:
    kind = "QLoRA" if facts.settings.base == "nf4" else "LoRA"
    return (
        f"A {kind} adapter for {_text(_shown(facts.base_model))}, finetuned on "
        f"{_text(_dataset(facts)[0])} (task {_text(facts.task)}): trial "
        f"{_text(facts.outcome.winner.run.trial_id)}{_describe_choice(facts)}"
    )


def _describe_choice(facts: CardFacts) -> str:
    run, name = facts.outcome.winner.run, facts.metric.name
    if facts.is_best or run.last is None:
        return f", the best of a hyperparameter sweep by {name}."
    return (
        f" of a hyperparameter sweep, which was asked for by its name and is not the sweep's own "
        f"choice: {name} {format_score(name, run.last.metrics[name])} on "
        f"{run.last.eval_rows} validation rows after {run.num_steps} of {facts.settings.max_steps} "
        f"steps ({run.status or 'running'})."
    )


def _usage(facts: CardFacts) -> str:
    return usage_code(
        base_model=facts.base_model,
        prompt_template=facts.prompt_template,
        source=facts.source,
        scoring=facts.scoring,
        options=facts.settings,
        system_prompt=facts.system_prompt,
    )


def _confusion(confusion: Confusion) -> str:
    """The section of a classifier's mistakes; a large table stays in its file."""
    title = "## Confusion matrix\n\nOn test, targets in rows and predictions in columns"
    if len(confusion.labels) > MAX_SHOWN_LABELS:
        return f"{title}: {CONFUSION_CSV}. The scores of each label: {LABEL_SCORES_CSV}."
    return f"{title}.\n\n{_table(tables.list_confusion(confusion))}"


def _data(facts: CardFacts) -> str:
    base = f"Base: {_text(_shown(facts.base_model))}"
    if not is_hub_id(facts.base_model):
        base += ", a local folder (adapter_config.json has its place on the machine of the sweep)"
    dataset, revision = _dataset(facts)
    data = f"Data: {_text(dataset)}"
    if revision:
        data += f" at revision {_text(revision)}"
    kept = f"in {facts.settings.compute_dtype}, not quantised (plain LoRA)"
    if facts.settings.base == "nf4":
        kept = "with its linear layers in NF4"
    dropped = _counts(facts.dropped_rows) or "none"
    added = _counts(facts.added_rows)
    about_added = f" Of the training rows augmentation has added: {added}." if added else ""
    return (
        f"- {base}, {kept} and frozen.\n- {data}.\n"
        f"- Rows: {_counts(facts.dataset_rows)}. Rows left out: {dropped}."
        f"{about_added}"
    )


def _selection(facts: CardFacts) -> str:
    best = "highest" if facts.metric.mode == "max" else "lowest"
    looks = (
        "then one look at test" if "test" in facts.outcome.scores else "the test split was not used"
    )
    among = f"among the trials that reached the last rung (step {facts.settings.rungs[-1]})"
    rule = f"Rule: the {best} validation {facts.metric.name} "
    finals: list[str] = []
    if not facts.is_best:
        rule, among = "This trial was asked for by its name", ", whatever the sweep has chosen"
    if facts.verdict is not None:
        among = "as a mean over the seeds with which the best trials were trained again"
        told = "\n".join(f"- {_text(line)}" for line in write_sentences(facts.verdict))
        finals = [told, _table(tables.list_finalists(facts.verdict))]
    rule = (
        f"Sweep {_text(facts.sweep_name)}, {len(facts.trials)} trials "
        f"({_counts(count_by_status(facts.trials))}). {rule}{among}; {looks}."
    )
    return "\n\n".join([rule, *finals, _table(tables.list_trials(facts.trials, facts.metric))])


def _fields_table(values: Hyperparameters | TrainingSettings, omit: Sequence[str] = ()) -> str:
    pairs = [(f.name, getattr(values, f.name)) for f in fields(values) if f.name not in omit]
    rows = [
        (name, ", ".join(map(str, value)) if isinstance(value, tuple) else str(value))
        for name, value in pairs
    ]
    return _table(Table("", ("name", "value"), rows))


def _table(table: Table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(map(_text, row))} |" for row in rows)


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
