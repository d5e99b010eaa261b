"""table: your own rows from a file, a folder or the Hub, to summarise or to classify; no code."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields

from trainables.config import Metric, TaskOptions
from trainables.data.files import Table, cell_text, require_columns
from trainables.data.labels import read_names
from trainables.data.reading import TableSpec, read_data, read_splits
from trainables.data.rows import Splits, refuse_unused
from trainables.errors import SweepAborted

MAX_SUGGESTED_LABELS = 20
"""A column of at most so many different values is suggested as one of labels."""


@dataclass(frozen=True)
class TableTask:
    """Any table with a column to read and a column to answer."""

    options: TaskOptions
    name: str = "table"
    dataset: str = ""

    def __post_init__(self) -> None:
        labels_only = {"label_names", "balance", "metric"}
        if self.options.kind != "classify":
            used = {f.name for f in fields(TaskOptions)} - labels_only
            refuse_unused(self.options, "table without --kind classify", used)
        read_names(self.options.label_names or ())

    @property
    def metric(self) -> Metric:
        """rougeLsum for texts; for labels the accuracy, or what the options say."""
        if self.options.kind == "classify":
            return Metric(name=self.options.metric or "accuracy")
        return Metric(name="rougeLsum")

    def load(self, data: str | None) -> Splits:
        """Read and clean the rows of a file, a folder or the Hub, and make the splits it lacks.

        Raises:
            SweepAborted: options are missing, the data cannot be read, or its rows do not do.
        """
        files = read_data(self.name, data, self.options.sheet)
        options = self.options
        columns = _columns(files)
        _check_known(options, columns)
        if options.input is None or options.target is None or options.kind is None:
            raise _missing(options, columns)
        spec = TableSpec(
            input=options.input,
            target=options.target,
            kind=options.kind,
            prompt=options.prompt,
            language=options.language or "english",
            label_names=read_names(options.label_names or ()),
            balance=options.balance,
        )
        return read_splits(self.name, files, spec)


def _columns(files: Mapping[str, Table]) -> dict[str, list[str]]:
    """The texts of each column, blank ones left out."""
    frame = next(iter(files.values())).frame
    texts = {str(name): map(cell_text, frame.iloc[:, i]) for i, name in enumerate(frame.columns)}
    return {name: [text for text in some if text] for name, some in texts.items()}


def _check_known(options: TaskOptions, columns: Mapping[str, list[str]]) -> None:
    """The columns that the options name are there."""
    require_columns(
        list(columns),
        [name for name in (options.input, options.target) if name is not None],
        "the table",
        shown=_described(columns),
        fix=_suggestion(TaskOptions(), columns),
    )


def _missing(options: TaskOptions, columns: Mapping[str, list[str]]) -> SweepAborted:
    """What the columns hold, so that the flags that lack can be written at once."""
    lacking = [f"--{name}" for name in ("input", "target", "kind") if not getattr(options, name)]
    return SweepAborted(
        f"table needs {', '.join(lacking)}; the columns found are {_described(columns)}",
        _suggestion(options, columns),
    )


def _described(columns: Mapping[str, list[str]]) -> str:
    return ", ".join(
        f"{name} ({len(set(texts)):,} different values)" for name, texts in columns.items()
    )


def _suggestion(options: TaskOptions, columns: Mapping[str, list[str]]) -> str:
    """The column of the longest texts as input; of few values, or else the next, as target."""
    mean = {name: sum(map(len, texts)) / len(texts) for name, texts in columns.items() if texts}
    by_length = sorted(mean, key=lambda name: -mean[name])
    source = options.input or next((n for n in by_length if n != options.target), "COLUMN")
    rest = [name for name in by_length if name != source]
    few = [name for name in rest if 2 <= len(set(columns[name])) <= MAX_SUGGESTED_LABELS]
    if options.kind == "summarize":
        few = []
    target = options.target or next(iter([*few, *rest]), "COLUMN")
    kind = options.kind or ("classify" if target in few else "summarize")
    return f"try --input {shlex.quote(source)} --target {shlex.quote(target)} --kind {kind}"
