"""How far the sweep is: a live table in a terminal, one plain line an event anywhere else."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import RLock
from types import TracebackType
from typing import Literal, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps.durations import format_clock
from sweeps.records.events import Status
from sweeps.records.trial_record import TrialRecord
from trainables.config import Hyperparameters, Metric, TrialConfig, TrialReport

MAX_ROWS = 20
REFRESHES_PER_S = 2
UNKNOWN = "–"  # noqa: RUF001

_STYLES = {"running": "bold cyan", "waiting": "dim", "failed": "bold yellow", "stopped": "dim"}
"""Cyan and yellow stay apart for every colour vision; each status is also spelled out."""


class ProgressTable:
    """A Listener that shows the sweep. Use it as a context manager, so that the cursor and the
    terminal are given back whatever happens.

    Args:
        num_trials: trials that the sweep will have in the end.
        max_steps: full budget of a trial, in optimizer steps.
        histories: trials of a sweep that is being resumed.
        left_s: seconds until the sweep has ended, None while that is not known; it is asked
            whenever the table is drawn.
        console: where to write; standard output if not given.
    """

    def __init__(
        self,
        metric: Metric,
        num_trials: int,
        max_steps: int,
        histories: Sequence[TrialRecord] = (),
        left_s: Callable[[], float | None] = lambda: None,
        console: Console | None = None,
    ) -> None:
        self._metric = metric
        self._num_trials = num_trials
        self._max_steps = max_steps
        self._left_s = left_s
        self._rows = {history.trial_id: _from_history(history, metric) for history in histories}
        self._console = console or Console()
        self._began_s = time.monotonic()
        self._lock = RLock()
        self._live = Live(
            get_renderable=self.render,
            console=self._console,
            refresh_per_second=REFRESHES_PER_S,
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def trial_started(self, config: TrialConfig, number: int) -> None:
        """Show the trial as running."""
        with self._lock:
            row = self._rows.setdefault(config.trial_id, _Row(config.trial_id, config.params))
            row.status, row.reason = "running", ""
            self._print_line(f"{row.trial_id} started: {_format_params(row.params)}")

    def reported(self, config: TrialConfig, report: TrialReport) -> None:
        """Show the trial's new score."""
        with self._lock:
            row = self._rows[config.trial_id]
            row.add(report, self._metric)
            value, best = _format_number(row.value), _format_number(row.best(self._metric))
            score = f"{self._metric.name} {value} (best {best})"
            self._print_line(f"{row.trial_id} step {row.step}/{self._max_steps}: {score}")

    def trial_ended(self, config: TrialConfig, status: Status, reason: str) -> None:
        """Show how the trial ended; a failure also stays above the table."""
        with self._lock:
            row = self._rows[config.trial_id]
            row.status, row.reason = status, _join_lines(reason)
            line = f"{row.trial_id} {status} at step {row.step}/{self._max_steps}"
            line += f": {row.reason}" if row.reason else ""
            self._print_line(line)
        if status == "failed" and self._console.is_terminal:
            # Without the lock: printing waits for rich's lock, whose holder may wait for ours.
            self._console.print(Text(line, style=_STYLES["failed"]))

    def finals_started(self, runs: Sequence[TrialRecord]) -> None:
        """Show the runs of the finals too."""
        with self._lock:
            for run in runs:
                self._rows.setdefault(run.trial_id, _from_history(run, self._metric))
            self._num_trials = len(self._rows)  # a budget may have ended the search early
            self._print_line(f"finals started: {len(runs)} runs to train")

    def render(self) -> RenderableType:
        """The header, and at most MAX_ROWS trials: running ones, then the best ended ones."""
        with self._lock:
            rows = self._ordered_rows()
            shown = rows[: max(1, min(MAX_ROWS, self._console.height - 7))]
            left_out = len(rows) - len(shown)
            header = Text("\n".join(self._header_parts()))
            footer = [Text(f"and {left_out} more trials", style="dim")] if left_out else []
            return Group(header, self._table(shown), *footer)

    def _print_line(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(Text(f"{line} | {', '.join(self._header_parts())}"), soft_wrap=True)

    def _header_parts(self) -> list[str]:
        statuses = [row.status for row in self._rows.values()]
        num_done = sum(row.is_ended for row in self._rows.values())
        left_s = self._left_s()
        return [
            f"{num_done}/{self._num_trials} done, {statuses.count('running')} running, "
            f"{statuses.count('failed')} failed",
            f"best {self._metric.name} {self._describe_best()}",
            f"elapsed {format_clock(time.monotonic() - self._began_s)}, "
            f"left {UNKNOWN if left_s is None else format_clock(left_s)}",
        ]

    def _describe_best(self) -> str:
        """The best of the trials that reached the furthest step: only those are comparable."""
        last_step = max((step for row in self._rows.values() for step in row.scores), default=0)
        scored = [row for row in self._rows.values() if math.isfinite(row.score(last_step))]
        if not scored:
            return UNKNOWN
        sign = 1 if self._metric.mode == "max" else -1
        best = max(scored, key=lambda row: sign * row.score(last_step))
        return f"{_format_number(best.score(last_step))} at step {last_step} ({best.trial_id})"

    def _ordered_rows(self) -> list["_Row"]:
        ranks = {"running": 0, "waiting": 1, "completed": 2, "stopped": 2, "failed": 3}
        sign = -1 if self._metric.mode == "max" else 1

        def key(row: "_Row") -> tuple[float, ...]:
            value = sign * row.value if math.isfinite(row.value) else math.inf
            return (ranks[row.status], -row.step, value)

        return sorted(self._rows.values(), key=key)

    def _table(self, rows: list["_Row"]) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("trial", no_wrap=True)
        table.add_column("status", no_wrap=True)
        for name in (
            "step",
            "rank",
            "alpha",
            "dropout",
            "learning rate",
            self._metric.name,
            "best",
        ):
            table.add_column(Text(name), justify="right", no_wrap=True)
        table.add_column("reason", no_wrap=True, overflow="ellipsis")
        for row in rows:
            params = row.params
            cells = [
                row.trial_id,
                row.status,
                f"{row.step}/{self._max_steps}",
                str(params.lora_rank),
                f"{params.lora_alpha:g}",
                f"{params.lora_dropout:g}",
                f"{params.learning_rate:.2e}",
                _format_number(row.value),
                _format_number(row.best(self._metric)),
                row.reason,
            ]
            table.add_row(*map(Text, cells), style=_STYLES.get(row.status, ""))
        return table


@dataclass
class _Row:
    """What is shown of one trial."""

    trial_id: str
    params: Hyperparameters
    status: Literal["waiting", "running", "completed", "stopped", "failed"] = "waiting"
    reason: str = ""
    scores: dict[int, float] = field(default_factory=dict)
    """By step."""

    @property
    def is_ended(self) -> bool:
        return self.status in ("completed", "stopped", "failed")

    @property
    def step(self) -> int:
        return max(self.scores, default=0)

    @property
    def value(self) -> float:
        return self.score(self.step)

    def score(self, step: int) -> float:
        """The score at a step, NaN if it has none."""
        return self.scores.get(step, math.nan)

    def best(self, metric: Metric) -> float:
        """The best score at any step, NaN if there is none."""
        finite = [value for value in self.scores.values() if math.isfinite(value)]
        if not finite:
            return math.nan
        return max(finite) if metric.mode == "max" else min(finite)

    def add(self, report: TrialReport, metric: Metric) -> None:
        """Take in a report."""
        self.scores[report.step] = report.metrics.get(metric.name, math.nan)


def _from_history(history: TrialRecord, metric: Metric) -> _Row:
    row = _Row(history.trial_id, history.params, history.status or "waiting")
    row.reason = _join_lines(history.reason)
    for report in history.reports:
        row.add(report, metric)
    return row


def _format_params(params: Hyperparameters) -> str:
    return (
        f"lora_rank {params.lora_rank}, lora_alpha {params.lora_alpha:g}, "
        f"lora_dropout {params.lora_dropout:g}, learning_rate {params.learning_rate:.2e}"
    )


def _format_number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else UNKNOWN


def _join_lines(text: str) -> str:
    """Text without line breaks and terminal escapes: it may come from any exception."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
