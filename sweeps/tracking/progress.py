"""How far the sweep is: a live table in a terminal, one plain line an event anywhere else."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import RLock
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sweeps.cli import join_lines
from sweeps.command_line.durations import format_clock
from sweeps.records.events import Status
from sweeps.records.trial_record import TrialRecord
from sweeps.tracking.notebook import NotebookLive
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
        self._records = {history.trial_id: history for history in histories}
        self._running: set[str] = set()
        self._console = console or Console()
        self._began_s = time.monotonic()
        self._lock = RLock()
        self._is_live = self._console.is_terminal or self._console.is_jupyter
        self._live = (
            NotebookLive(get_renderable=self.render, refresh_per_second=REFRESHES_PER_S)
            if self._console.is_jupyter
            else Live(
                get_renderable=self.render,
                console=self._console,
                refresh_per_second=REFRESHES_PER_S,
            )
        )

    def __enter__(self) -> Self:
        if self._is_live:
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
        new = TrialRecord(trial_id=config.trial_id, number=number, params=config.params)
        with self._lock:
            record = self._records.get(config.trial_id, new)
            self._records[config.trial_id] = replace(record, status=None, reason="")
            self._running.add(config.trial_id)
            self._print_line(f"{config.trial_id} started: {_format_params(config.params)}")

    def reported(self, config: TrialConfig, report: TrialReport) -> None:
        """Show the trial's new score."""
        with self._lock:
            record = self._records[config.trial_id]
            record = replace(record, reports=[*record.reports, report])
            self._records[config.trial_id] = record
            value = _format_number(record.value(self._metric))
            score = (
                f"{self._metric.name} {value} (best {_format_number(record.best(self._metric))})"
            )
            self._print_line(f"{config.trial_id} step {report.step}/{self._max_steps}: {score}")

    def trial_ended(self, config: TrialConfig, status: Status, reason: str) -> None:
        """Show how the trial ended; a failure also stays above the table."""
        with self._lock:
            record = replace(self._records[config.trial_id], status=status, reason=reason)
            self._records[config.trial_id] = record
            self._running.discard(config.trial_id)
            line = f"{config.trial_id} {status} at step {record.num_steps}/{self._max_steps}"
            line += f": {join_lines(reason)}" if reason else ""
            self._print_line(line)
        if status == "failed" and self._console.is_terminal:
            # Without the lock: printing waits for rich's lock, whose holder may wait for ours.
            self._console.print(Text(line, style=_STYLES["failed"]))

    def finals_started(self, runs: Sequence[TrialRecord]) -> None:
        """Show the runs of the finals too."""
        with self._lock:
            self._records |= {r.trial_id: r for r in runs if r.trial_id not in self._records}
            self._num_trials = len(self._records)  # a budget may have ended the search early
            self._print_line(f"finals started: {len(runs)} runs to train")

    def num_trials_changed(self, num_trials: int) -> None:
        """Show of how many trials these are."""
        with self._lock:
            self._num_trials = num_trials
            self._print_line(f"asked for {num_trials} trials")

    def render(self) -> RenderableType:
        """The header, and at most MAX_ROWS trials: running ones, then the best ended ones."""
        with self._lock:
            records = sorted(self._records.values(), key=self._rank)
            shown = records[: max(1, min(MAX_ROWS, self._console.height - 7))]
            left_out = len(records) - len(shown)
            header = Text("\n".join(self._header_parts()))
            footer = [Text(f"and {left_out} more trials", style="dim")] if left_out else []
            return Group(header, self._table(shown), *footer)

    def _print_line(self, line: str) -> None:
        if not self._is_live:
            self._console.print(Text(f"{line} | {', '.join(self._header_parts())}"), soft_wrap=True)

    def _header_parts(self) -> list[str]:
        statuses = Counter(map(self._status, self._records.values()))
        num_done = sum(statuses[name] for name in ("completed", "stopped", "failed"))
        left_s = self._left_s()
        return [
            f"{num_done}/{self._num_trials} done, {statuses['running']} running, "
            f"{statuses['failed']} failed",
            f"best {self._metric.name} {self._describe_best()}",
            f"elapsed {format_clock(time.monotonic() - self._began_s)}, "
            f"left {UNKNOWN if left_s is None else format_clock(left_s)}",
        ]

    def _describe_best(self) -> str:
        """The best of the trials that reached the furthest step: only those are comparable."""
        last_step = max((record.num_steps for record in self._records.values()), default=0)
        values = {
            record.trial_id: record.values(self._metric).get(last_step, math.nan)
            for record in self._records.values()
        }
        finite = {trial_id: value for trial_id, value in values.items() if math.isfinite(value)}
        if not finite:
            return UNKNOWN
        choose = max if self._metric.mode == "max" else min
        best = choose(finite, key=finite.__getitem__)
        return f"{_format_number(finite[best])} at step {last_step} ({best})"

    def _status(self, record: TrialRecord) -> str:
        is_running = record.trial_id in self._running
        return record.status or ("running" if is_running else "waiting")

    def _rank(self, record: TrialRecord) -> tuple[float, ...]:
        """Sorts running trials first, then waiting ones, the best ended ones, and failed ones."""
        ranks = {"running": 0, "waiting": 1, "completed": 2, "stopped": 2, "failed": 3}
        return (ranks[self._status(record)], -record.num_steps, -record.worth(self._metric))

    def _table(self, records: Sequence[TrialRecord]) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("trial", no_wrap=True)
        table.add_column("status", no_wrap=True)
        names = ("step", "rank", "alpha", "dropout", "learning rate", self._metric.name, "best")
        for name in names:
            table.add_column(Text(name), justify="right", no_wrap=True)
        table.add_column("reason", no_wrap=True, overflow="ellipsis")
        for record in records:
            params, status = record.params, self._status(record)
            cells = [
                *(record.trial_id, status, f"{record.num_steps}/{self._max_steps}"),
                *(str(params.lora_rank), f"{params.lora_alpha:g}", f"{params.lora_dropout:g}"),
                f"{params.learning_rate:.2e}",
                _format_number(record.value(self._metric)),
                _format_number(record.best(self._metric)),
                join_lines(record.reason),
            ]
            table.add_row(*map(Text, cells), style=_STYLES.get(status, ""))
        return table


def _format_params(params: Hyperparameters) -> str:
    text = (
        f"lora_rank {params.lora_rank}, lora_alpha {params.lora_alpha:g}, "
        f"lora_dropout {params.lora_dropout:g}, learning_rate {params.learning_rate:.2e}"
    )
    names = ",".join(params.target_modules)
    return text if names == "all" else f"{text}, target_modules {names}"


def _format_number(value: float | None) -> str:
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.4g}"
