"""table: your own rows from a file, a folder or the Hub, to summarise or to classify; no code."""

from dataclasses import dataclass, fields, replace

from trainables.config import Data, Metric, TaskOptions
from trainables.data.hints import Columns
from trainables.data.labels import read_names
from trainables.data.reading import TableSpec, read_data, read_splits
from trainables.data.rows import Splits, refuse_unused
from trainables.data.tables.table import Table, require_columns
from trainables.errors import SweepAborted
from trainables.metrics.registry import rank_by


@dataclass(frozen=True)
class TableTask:
    """Any table with a column to read and a column to answer."""

    options: TaskOptions
    name: str = "table"
    dataset: str = ""

    def __post_init__(self) -> None:
        kind = self.options.kind
        unused = set() if kind == "classify" else {"label_names", "balance"}
        unused |= {"target", "prompt"} if kind == "chat" else {"train_on"}
        used = {f.name for f in fields(TaskOptions)} - unused
        refuse_unused(self.options, f"table with --kind {kind}" if kind else self.name, used)
        _ = read_names(self.options.label_names or ()), self.metric

    @property
    def metric(self) -> Metric:
        """rougeLsum for texts, the accuracy for labels, or what the options say."""
        if self.options.kind == "classify":
            return rank_by(self.options, "accuracy")
        return rank_by(self.options, "rougeLsum")

    def load(self, data: Data) -> Splits:
        """Read and clean the rows of files, a folder or the Hub, and make the splits they lack.

        Raises:
            SweepAborted: options are missing, the data cannot be read, or its rows do not do.
        """
        options = self.options
        tables = read_data(self.name, data, options)
        is_chat = options.kind == "chat"
        if options.input is None or (options.target is None and not is_chat) or not options.kind:
            raise _suggest_flags(options, next(iter(tables.values())))
        _check_columns(options, next(iter(tables.values())))
        spec = TableSpec(
            input=options.input,
            target=options.target or "",
            kind=options.kind,
            prompt=options.prompt,
            language=options.language or "english",
            label_names=read_names(options.label_names or ()),
            system_prompt=options.system_prompt,
            train_on=options.train_on or "all",
        )
        return read_splits(self.name, tables, spec)


def _check_columns(options: TaskOptions, table: Table) -> None:
    """The columns that the options name are there, or those that are get suggested."""
    named = [name for name in (options.input, options.target) if name is not None]
    if not set(named) <= set(table.columns):
        columns = Columns(table)
        shown, fix = columns.describe(), columns.suggest(replace(options, input=None, target=None))
        require_columns(table.columns, named, "the table", shown=shown, fix=fix)


def _suggest_flags(options: TaskOptions, table: Table) -> SweepAborted:
    """What the columns hold, so that the flags that lack can be written at once."""
    _check_columns(options, table)
    needed = ("input", "kind") if options.kind == "chat" else ("input", "target", "kind")
    lacking = [f"--{name}" for name in needed if not getattr(options, name)]
    columns = Columns(table)
    return SweepAborted(
        f"table needs {', '.join(lacking)}; the columns found are {columns.describe()}",
        columns.suggest(options),
    )
