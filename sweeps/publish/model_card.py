"""The model card of a sweep's best adapter: YAML for the Hub, Markdown for people."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields

from sweeps.finals.predictions import CONFUSION_CSV, LABEL_SCORES_CSV
from sweeps.finals.verdict_text import write_sentences
from sweeps.publish import tables
from sweeps.publish.card_facts import CardFacts, shorten
from sweeps.publish.card_metadata import make_metadata
from sweeps.publish.license import describe_base_license
from sweeps.publish.search_picture import PICTURE_FILE
from sweeps.publish.tables import Table
from sweeps.publish.usage_code import is_hub_id, usage_code
from sweeps.records.redact import join_lines, redact
from sweeps.records.trials_csv import count_by_status
from trainables.config import Hyperparameters, TrainingSettings
from trainables.data.tokens import prompt_limit
from trainables.metrics.classification import Confusion
from trainables.metrics.scales import format_score

MAX_SHOWN_LABELS = 20


def render(facts: CardFacts, has_picture: bool = False) -> str:
    """The whole README.md. Redacted last, so that no field can bring a secret in.

    Args:
        has_picture: whether PICTURE_FILE lies beside it.
    """
    by_label = tables.list_label_scores(facts.outcome.scores.get("test", {}))
    adapter = "best adapter" if facts.is_best else "this adapter"
    sections = [
        f"# {_text(facts.sweep_name)}",
        _opening(facts),
        *(f"**Warning:** {_text(doubt)}." for doubt in facts.outcome.doubts),
        "## Use\n\n" + _block(_usage(facts), "python"),
        "## Scores\n\n" + _table(tables.list_scores(facts.outcome, facts.metric, adapter)),
        *_leads(facts),
        *([_table(by_label)] if by_label else []),
        *([_confusion(facts.confusion)] if facts.confusion else []),
        "## Limits\n\n" + _limits(facts),
        "## Base and data\n\n" + _data(facts),
        "## Prompt\n\nThe user's turn, before the chat template "
        f"(thinking {'on' if facts.settings.thinking else 'off'}):\n\n"
        + _block(facts.prompt_template, "text"),
        "## Hyperparameters\n\n" + _fields_table(facts.outcome.winner.run.params),
        "## Training\n\n" + _fields_table(facts.settings, omit=("model", "rows_dir")),
        "## How it was chosen\n\n" + _selection(facts, has_picture),
        "## Reproduce\n\nFiles and folders are shown by their last names. The rows are the same if "
        "the new run's `sweep.json` has these digests.\n\n" + _block(facts.command, "sh"),
        _table(Table("", ("rows", "SHA-256"), list(facts.row_digests.items()))),
        _table(Table("", ("package", "version"), list(facts.versions.items()))),
    ]
    return redact(f"---\n{make_metadata(facts)}\n---\n\n" + "\n\n".join(sections) + "\n")


def _opening(facts: CardFacts) -> str:
    kind = "QLoRA" if facts.settings.base == "nf4" else "LoRA"
    return (
        f"A {kind} adapter for {_text(shorten(facts.base_model))}, finetuned on "
        f"{_text(facts.dataset_name)} (task {_text(facts.task)}): trial "
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


def _leads(facts: CardFacts) -> list[str]:
    """How sure it is that the adapter beats what needs no training, where that was resampled."""
    table = tables.list_leads(facts.outcome, facts.metric)
    if not table.rows:
        return []
    about = "The lead of the adapter over what needs no training"
    return [f"{about}, with a 95% interval (paired bootstrap over rows):\n\n{_table(table)}"]


def _limits(facts: CardFacts) -> str:
    settings, tested = facts.settings, facts.dataset_rows.get("test")
    limit = prompt_limit(settings.max_length_tokens, settings.max_new_tokens)
    lines = [
        f"The scores are of rows of {facts.dataset_name} alone, asked by the prompt below and "
        "answered by the likeliest tokens; other data and prompts were not tried.",
        f"Prompts lose what is beyond {limit:,} tokens, and answers end after "
        f"{settings.max_new_tokens:,}.",
        "Validation chose among the trials, so its scores flatter; "
        + (
            f"test's {tested} rows were looked at once."
            if "test" in facts.outcome.scores
            else "there is no score on test."
        ),
        "Whatever is wrong or unfair in the base's answers may be in this adapter's; nobody has "
        "examined them for safety.",
    ]
    if facts.verdict is None:
        once = "Each configuration was trained once, so the lead of the best one may be chance."
        lines.insert(3, once)
    return "\n".join(f"- {_text(line)}" for line in lines)


def _confusion(confusion: Confusion) -> str:
    """The section of a classifier's mistakes; a large table stays in its file."""
    title = "## Confusion matrix\n\nOn test, targets in rows and predictions in columns"
    if len(confusion.labels) > MAX_SHOWN_LABELS:
        return f"{title}: {CONFUSION_CSV}. The scores of each label: {LABEL_SCORES_CSV}."
    return f"{title}.\n\n{_table(tables.list_confusion(confusion))}"


def _data(facts: CardFacts) -> str:
    base = f"Base: {_text(shorten(facts.base_model))}"
    if not is_hub_id(facts.base_model):
        base += ", a local folder (adapter_config.json has its place on the machine of the sweep)"
    data = f"Data: {_text(facts.dataset_name)}"
    if facts.dataset_revision:
        data += f" at revision {_text(facts.dataset_revision)}"
    kept = f"in {facts.settings.compute_dtype}, not quantised (plain LoRA)"
    if facts.settings.base == "nf4":
        kept = "with its linear layers in NF4"
    dropped = _counts(facts.dropped_rows) or "none"
    added = _counts(facts.added_rows)
    about_added = f" Of the training rows augmentation has added: {added}." if added else ""
    return (
        f"- {base}, {kept} and frozen.\n- {data}.\n"
        f"- Rows: {_counts(facts.dataset_rows)}. Rows left out: {dropped}."
        f"{about_added}\n- {_text(describe_base_license(facts.license))}"
    )


def _selection(facts: CardFacts, has_picture: bool) -> str:
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
    search = _table(tables.list_rungs(facts.trials, facts.metric))
    best = _table(tables.list_trials(facts.trials, facts.metric))
    about = _text(f"Scores of the trials from rung to rung by {facts.metric.name}")
    picture = [f"![{about}]({PICTURE_FILE})"] if has_picture else []
    return "\n\n".join([rule, *finals, *picture, search, best])


def _fields_table(values: Hyperparameters | TrainingSettings, omit: Sequence[str] = ()) -> str:
    """A row a field; those that are off have none."""
    pairs = [(f.name, getattr(values, f.name)) for f in fields(values) if f.name not in omit]
    rows = [(name, tables.show_value(value)) for name, value in pairs if value is not None]
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
    escaped = re.sub(r"([\\`*\[\]<>#|~&$])", r"\\\1", join_lines(text))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)
