"""What each configuration measured: the log that a killed run leaves, and the table's file."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tests.benchmarks.search_quality.grid import Configuration
from trainables.errors import SweepAborted
from trainables.files import DamagedLine, JsonLines, read_json_lines, write_atomic


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One evaluation of one training, at a rung; or the step at which it failed."""

    step: int
    """Optimizer steps done."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Validation scores by name; empty where the training failed."""
    eval_rows: int = 0
    """Validation rows that they are of."""
    tokens: int = 0
    """Real training tokens since the training began."""
    train_gpu_s: float = 0.0
    """Its share of the pack's seconds of training since it began."""
    eval_gpu_s: float = 0.0
    """Its share of the seconds of this evaluation."""
    wall_s: float = 0.0
    """Seconds since its pack began, neighbours and evaluations included."""
    failed: str | None = None
    """Why it could not go on."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of a configuration."""

    seed: int
    """Seeds the row order, the initial weights and the dropout."""
    measurements: tuple[Measurement, ...]
    """In order of steps; the last is at the full budget, or failed."""

    def is_complete(self, max_steps: int) -> bool:
        last = self.measurements[-1]
        return last.failed is not None or last.step == max_steps


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A configuration with all its runs."""

    configuration: Configuration
    runs: tuple[Run, ...]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a table's numbers are from; a log goes on only under an equal one."""

    settings: dict[str, Any]
    """TrainingSettings without the seed; model and data by their folders' names."""
    gpu: str
    torch: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Configurations that were trained to the end."""

    origin: Origin
    commands: tuple[str, ...]
    """That made it, one after another."""
    commits: tuple[str | None, ...]
    """The checkout's commits, one a command; None outside git."""
    trained: tuple[Trained, ...]

    @property
    def rungs(self) -> tuple[int, ...]:
        """Steps at which every run was evaluated, ascending."""
        return tuple(self.origin.settings["rungs"])


class Log:
    """An append-only file of JSON lines beside the table: one a measurement, flushed at once.

    Args:
        path: of the log; it is made with its first line, which says where the numbers are from.
        origin: what this process would measure.

    Raises:
        SweepAborted: the log there is of another origin, or damaged before its last line.
    """

    def __init__(self, path: Path, origin: Origin) -> None:
        self._path = path
        self._file: JsonLines | None = None
        self._origin = origin
        self._runs: dict[tuple[Configuration, int], dict[int, Measurement]] = {}
        self._calls: list[tuple[str, str | None]] = []
        try:
            lines = read_json_lines(path) if path.exists() else []
        except DamagedLine as damaged:
            raise SweepAborted(str(damaged), "give another --out") from None
        for line in lines:
            self._read_line(line)

    def begin(self, command: str, commit: str | None) -> None:
        """Notes that a command goes on with the log."""
        self._write({"origin": asdict(self._origin), "command": command, "commit": commit})

    def add(self, configuration: Configuration, seed: int, measurement: Measurement) -> None:
        """Appends one measurement; a later one of the same step replaces it."""
        self._write(
            {
                "configuration": asdict(configuration),
                "seed": seed,
                "measurement": asdict(measurement),
            }
        )

    def is_complete(self, configuration: Configuration, seed: int, max_steps: int) -> bool:
        run = self._find_run(configuration, seed)
        return run is not None and run.is_complete(max_steps)

    def make_table(self, seeds: Sequence[int], max_steps: int) -> Table:
        """The configurations whose runs are complete for every seed."""
        trained = []
        for configuration in sorted({one for one, _ in self._runs}):
            runs = [self._find_run(configuration, seed) for seed in seeds]
            complete = [run for run in runs if run is not None and run.is_complete(max_steps)]
            if len(complete) == len(seeds):
                trained.append(Trained(configuration=configuration, runs=tuple(complete)))
        commands, commits = zip(*self._calls, strict=True) if self._calls else ((), ())
        return Table(
            origin=self._origin, commands=commands, commits=commits, trained=tuple(trained)
        )

    def _find_run(self, configuration: Configuration, seed: int) -> Run | None:
        by_step = self._runs.get((configuration, seed))
        if not by_step:
            return None
        return Run(seed=seed, measurements=tuple(by_step[step] for step in sorted(by_step)))

    def _read_line(self, line: Mapping[str, Any]) -> None:
        if "origin" in line:
            difference = next(_list_differences(line["origin"], asdict(self._origin)), None)
            if difference is not None:
                name, logged, wanted = difference
                raise SweepAborted(
                    f"{self._path} has another {name}: {logged}, not {wanted}",
                    "give another --out, or the flags that the log began with",
                )
            self._calls.append((line["command"], line["commit"]))
        else:
            key = Configuration(**line["configuration"]), line["seed"]
            measurement = Measurement(**line["measurement"])
            self._runs.setdefault(key, {})[measurement.step] = measurement

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file = self._file or JsonLines(self._path)
        self._file.append(line)
        self._read_line(json.loads(json.dumps(line)))


def format_command(prog: str, argv: Sequence[str]) -> str:
    """The command line as it is kept: an absolute path by its name alone, for it is a machine's."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in argv]
    return f"{prog} {shlex.join(words)}"


def _list_differences(
    logged: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """What both name and give different values; a name that one lacks is a newer version's."""
    for name in logged.keys() & wanted.keys():
        one, other = logged[name], wanted[name]
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _list_differences(one, other)
        elif one != other:
            yield name, one, other


def write_table(path: Path, table: Table) -> None:
    """Writes the table, one configuration a line; what was there is replaced at once."""
    head = {
        "origin": asdict(table.origin),
        "commands": table.commands,
        "commits": table.commits,
    }
    rows = ",\n".join(json.dumps(asdict(one)) for one in table.trained)
    text = json.dumps(head, indent=1)[:-2] + f',\n "trained": [\n{rows}\n ]\n}}\n'
    write_atomic(path, text)


def read_table(path: Path) -> Table:
    """Reads what write_table wrote.

    Raises:
        SweepAborted: there is no such file, it is no table, or it holds no configuration.
    """
    try:
        table = TypeAdapter(Table).validate_json(path.read_bytes())
    except OSError as refused:
        raise SweepAborted(
            f"{path} cannot be read: {refused.strerror}",
            "python -m tests.benchmarks.search_quality table makes a table",
        ) from None
    except ValidationError as damaged:
        raise SweepAborted(
            f"{path} is no table: {damaged.errors()[0]['msg']}",
            "python -m tests.benchmarks.search_quality table makes one",
        ) from None
    if not table.trained:
        raise SweepAborted(
            f"{path} holds no configuration", "repeat the command that made it, with more time"
        )
    return table
