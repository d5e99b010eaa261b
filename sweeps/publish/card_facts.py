"""What a model card says of an adapter, its base, its data and its sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sweeps.checks.commands import write_sweep_command
from sweeps.checks.environment import list_versions
from sweeps.config import SweepConfig
from sweeps.finals.outcome import Outcome
from sweeps.finals.verdict import Verdict
from sweeps.publish.license import read_license
from sweeps.publish.usage_code import is_hub_id
from sweeps.records.events import read_events
from sweeps.records.paths import RunPaths
from sweeps.records.redact import join_lines
from sweeps.records.run import read_record
from sweeps.records.trial_record import TrialRecord
from trainables.config import Language, Metric, TrainingSettings
from trainables.data.rows import SPLITS, Scoring, Splits, Task
from trainables.metrics.classification import Confusion
from trainables.tiny import find_name


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
    """All trials of the search."""
    verdict: Verdict | None = None
    """What the finals came to; None of a sweep without them."""
    confusion: Confusion | None = None
    """Which labels the adapter took for which on test; None of texts."""
    versions: dict[str, str]
    """Installed version by package."""
    command: str
    """Command line that repeats the sweep."""
    row_digests: Mapping[str, str]
    """SHA-256 of each split's rows."""
    language: Language | None = None
    """The targets' language; None where nobody has told it."""
    license: Mapping[str, str] = field(default_factory=dict)
    """What the base's own card says, as read_license gives it."""
    is_best: bool = True
    """Whether the sweep chose this adapter; if not, someone asked for it."""
    place: str = ""
    """Where an adapter stands that it did not choose; empty where nothing is known."""

    @property
    def dataset_name(self) -> str:
        """The dataset as the card's metadata has it; a name of the Hub without its revision."""
        name = self.dataset.partition("@")[0]
        return name if is_hub_id(name) else shorten(self.dataset)

    @property
    def described_dataset(self) -> str:
        """The dataset as the card's text has it."""
        return describe(self.dataset) if find_name(self.dataset) else self.dataset_name

    @property
    def dataset_revision(self) -> str | None:
        """On the Hub."""
        name, _, revision = self.dataset.partition("@")
        return (join_lines(revision) or None) if is_hub_id(name) else None


def make_facts(
    config: SweepConfig,
    task: Task,
    splits: Splits,
    paths: RunPaths,
    trials: Sequence[TrialRecord],
    outcome: Outcome,
) -> CardFacts:
    """What the card of the outcome's winner says."""
    run, digests = outcome.winner.run, read_record(paths)["digests"].get("rows", {})
    rows = {name: len(getattr(splits, name)) for name in SPLITS}
    language = config.task_options.language
    if config.task != "table":  # nobody has looked at a table's rows
        language = language or splits.scoring.language
    return CardFacts(
        sweep_name=config.name,
        task=config.task,
        base_model=config.model,
        dataset=shorten(config.data)
        if isinstance(config.data, tuple)
        else config.data or task.dataset,
        dataset_rows=rows,
        dropped_rows={k: n for k, n in splits.counts.items() if k not in rows and n},
        added_rows=splits.added,
        prompt_template=splits.prompt_template,
        source=splits.source,
        scoring=splits.scoring,
        settings=replace(config.settings, seed=config.seed if run.seed is None else run.seed),
        system_prompt=config.task_options.system_prompt,
        metric=task.metric,
        outcome=outcome,
        trials=trials,
        versions=list_versions(),
        command=write_sweep_command(config, read_events(paths.events)),
        row_digests={name: of["sha256"] for name, of in digests.items()},
        language=language,
        license=read_license(config.model),
    )


def shorten(data: object) -> str:
    """Hub ids whole; of paths the last names, for folders tell about a machine's owner; what is
    bundled by names of its own."""
    names = map(str, data if isinstance(data, list | tuple) else [data])
    return join_lines(", ".join(map(_shorten_name, names)))


def _shorten_name(name: str) -> str:
    if bundled := find_name(name):
        return bundled[0]
    return name if is_hub_id(name) else Path(name).name or name


def describe(data: object) -> str:
    """As shorten, and of what is bundled what it is."""
    bundled = find_name(str(data))
    return f"{bundled[0]} ({bundled[1]})" if bundled else shorten(data)
