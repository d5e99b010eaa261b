"""The model card of a sweep's best adapter: YAML for the Hub, Markdown for people."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields

from markupsafe import Markup

from sweeps.finals.predictions import CONFUSION_CSV, LABEL_SCORES_CSV
from sweeps.finals.verdict_text import write_sentences
from sweeps.publish import tables
from sweeps.publish.card_facts import CardFacts, describe
from sweeps.publish.card_metadata import make_metadata
from sweeps.publish.license import describe_base_license
from sweeps.publish.search_picture import PICTURE_FILE
from sweeps.publish.tables import Table
from sweeps.publish.templates import load_template
from sweeps.publish.usage_code import is_hub_id, write_usage_script
from sweeps.records.redact import join_lines, redact
from sweeps.records.trials_csv import count_by_status
from trainables.config import Hyperparameters, TrainingSettings
from trainables.data.tokens import compute_prompt_limit
from trainables.metrics.registry import format_score

MAX_SHOWN_LABELS = 20


def render(facts: CardFacts, has_picture: bool = False) -> str:
    """The whole README.md. Redacted last, so that no field can bring a secret in.

    Args:
        has_picture: whether PICTURE_FILE lies beside it.
    """
    settings = facts.settings
    template = load_template(
        "model_card.md.j2",
        finalize=_escape_markdown,
        table=_write_table,
        code=_write_code,
        counts=_list_counts,
    )
    body = template.render(
        facts=facts,
        tables=tables,
        format_score=format_score,
        base=describe(facts.base_model),
        is_hub_base=is_hub_id(facts.base_model),
        is_nf4=settings.base == "nf4",
        script=write_usage_script(
            base_model=facts.base_model,
            prompt_template=facts.prompt_template,
            source=facts.source,
            scoring=facts.scoring,
            options=settings,
            system_prompt=facts.system_prompt,
        ),
        limit=compute_prompt_limit(settings.max_length_tokens, settings.max_new_tokens),
        license=describe_base_license(facts.license),
        hyperparameters=_list_fields(facts.outcome.winner.run.params),
        training=_list_fields(settings, omit=("model", "rows_dir")),
        statuses=count_by_status(facts.trials),
        sentences=write_sentences(facts.verdict) if facts.verdict else (),
        digests=Table("", ("rows", "SHA-256"), list(facts.row_digests.items())),
        versions=Table("", ("package", "version"), list(facts.versions.items())),
        picture=PICTURE_FILE if has_picture else "",
        max_shown_labels=MAX_SHOWN_LABELS,
        confusion_csv=CONFUSION_CSV,
        label_scores_csv=LABEL_SCORES_CSV,
    )
    return redact(f"---\n{make_metadata(facts)}\n---\n\n{body}")


def _list_fields(values: Hyperparameters | TrainingSettings, omit: Sequence[str] = ()) -> Table:
    """A row a field; those that are off have none."""
    pairs = [(f.name, getattr(values, f.name)) for f in fields(values) if f.name not in omit]
    rows = [(name, tables.show_value(value)) for name, value in pairs if value is not None]
    return Table("", ("name", "value"), rows)


def _write_table(table: Table) -> Markup:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return Markup("\n".join(f"| {' | '.join(map(_escape_markdown, row))} |" for row in rows))


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _write_code(text: str, language: str) -> Markup:
    """A fenced block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def _escape_markdown(value: object) -> str:
    """One line in which no character is Markdown or HTML; underscores inside words stay plain."""
    if isinstance(value, Markup):
        return value
    escaped = re.sub(r"([\\`*\[\]<>#|~&$])", r"\\\1", join_lines(str(value)))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)
