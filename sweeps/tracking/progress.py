"""How far the sweep is: a live table in a terminal, one plain line an event anywhere else."""

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import RLock
from types import TracebackType
from typing import Self

from rich.console import Console, Group, OverflowMethod, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from sweeps.command_line.consoles import NotebookLive, SafeConsole
from sweeps.command_line.durations import format_clock
from sweeps.cost.allocation import describe_packs
from sweeps.records.redact import join_lines
from sweeps.records.schemas import Status
from sweeps.records.trial_record import TrialRecord
from trainables.config import Hyperparameters, Metric, TrialConfig, TrialReport

MAX_ROWS = 20
MAX_SHOWN_PACKS = 8
"""Of more packs, the fullest and the emptiest are told."""
MIN_REASON_WIDTH = 12
MAX_COLUMN_WIDTH = 20
"""Of a metric's long name."""
REFRESHES_PER_S = 2
UNKNOWN = "–"  # noqa: RUF001

_STYLES = {"running": "bold cyan", "waiting": "dim", "failed": "bold yellow", "stopped": "dim"}
"""Cyan and yellow stay apart for every colour vision; each status is also spelled out."""
_LEFT_OUT_FIRST = ("dropout", "alpha", "best", "rank", "learning rate", "step", "status")
"""Columns that a narrow terminal does without."""


class ProgressTable:
    """A Listener that shows the sweep. Use it as a context manager, so that the cursor and the
    terminal are given back whatever happens.

    Args:
        num_trials: trials that the sweep will have in the end.
        max_steps: full budget of a trial, in optimizer steps.
        histories: trials of a sweep that is being resumed.
        left_s: seconds until the sweep has ended, None while that is not known; it is asked
            whenever the table is drawn.
        place: where the sweep runs, in words.
        slots: of each pack; none where trials train alone.
        console: where to write; standard output if not given.
    """

    def __init__(
        self,
        metric: Metric,
        num_trials: int,
        max_steps: int,
        histories: Sequence[TrialRecord] = (),
        left_s: Callable[[], float | None] = lambda: None,
        place: str = "",
        slots: Sequence[int] = (),
        console: Console | None = None,
    ) -> None:
        self._metric = metric
        self._num_trials = num_trials
        self._max_steps = max_steps
        self._left_s = left_s
        self._records = {history.trial_id: history for history in histories}
        self._best: TrialRecord | None = None
        """The best of the search's trials that have come furthest: only those are comparable."""
        self._take_best(histories)
        self._packs: dict[str, str] = {}
        """The pack of each running trial; empty until it has reported from there."""
        self._place, self._slots = place, slots
        self._console = console = console or SafeConsole(sys.stdout)
        self._is_live = console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)
        is_unicode = console.encoding.startswith("utf")
        self._unknown = UNKNOWN if is_unicode else "-"
        self._overflow: OverflowMethod = "ellipsis" if is_unicode else "crop"
        self._began_s = time.monotonic()
        self._lock = RLock()
        self._width = console.width
        self._live = (
            NotebookLive(get_renderable=self.render, refresh_per_second=REFRESHES_PER_S)
            if console.is_jupyter
            else Live(
                get_renderable=self.render,
                console=console,
                refresh_per_second=REFRESHES_PER_S,
            )
        )

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        elif self._place:
            parts = filter(None, (self._place, describe_packs(self._slots)))
            self._console.print(Text(", ".join(parts)), soft_wrap=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._live.stop()

    def on_trial_start(self, config: TrialConfig, number: int) -> None:
        """Show the trial as running."""
        new = TrialRecord(trial_id=config.trial_id, number=number, params=config.params)
        with self._lock:
            record = self._records.get(config.trial_id, new)
            self._records[config.trial_id] = replace(record, status=None, reason="")
            self._packs[config.trial_id] = ""
            self._print_line(f"{config.trial_id} started: {_format_params(config.params)}")

    def on_report(self, config: TrialConfig, report: TrialReport) -> None:
        """Show the trial's new score."""
        with self._lock:
            record = self._records[config.trial_id]
            record = replace(record, reports=[*record.reports, report])
            self._records[config.trial_id] = record
            self._take_best([record])
            self._packs[config.trial_id] = report.pack
            value = self._format_number(record.get_value(self._metric))
            best = self._format_number(record.find_best_value(self._metric))
            score = f"{self._metric.name} {value} (best {best})"
            self._print_line(f"{config.trial_id} step {report.step}/{self._max_steps}: {score}")

    def on_trial_end(self, config: TrialConfig, status: Status, reason: str) -> None:
        """Show how the trial ended; a failure also stays above the table."""
        with self._lock:
            record = replace(self._records[config.trial_id], status=status, reason=reason)
            self._records[config.trial_id] = record
            self._packs.pop(config.trial_id, None)
            line = f"{config.trial_id} {status} at step {record.num_steps}/{self._max_steps}"
            line += f": {join_lines(reason)}" if reason else ""
            self._print_line(line)
        if status == "failed" and self._is_live:
            # Without the lock: printing waits for rich's lock, whose holder may wait for ours.
            with suppress(OSError):
                self._console.print(Text(line, style=_STYLES["failed"]))

    def on_finals_start(self, runs: Sequence[TrialRecord]) -> None:
        """Show the runs of the finals too."""
        with self._lock:
            self._records |= {r.trial_id: r for r in runs if r.trial_id not in self._records}
            self._num_trials = len(self._records)  # a budget may have ended the search early
            if num_left := sum(run.status is None for run in runs):
                of = "" if num_left == len(runs) else f" of {len(runs)}"
                self._print_line(f"finals started: {num_left}{of} runs to train")

    def on_request(self, request: str, num_trials: int) -> None:
        """Show what was asked for, and of how many trials these are."""
        with self._lock:
            self._num_trials = num_trials
            self._print_line(f"asked: {join_lines(request)}")

    def render(self) -> RenderableType:
        """The header, and as many trials as fit on the screen, MAX_ROWS at most: running ones, then
        the best ended ones."""
        width, self._width = self._width, self._console.width
        if self._width < width and self._live.is_started:
            self._console.clear()  # a narrower terminal has wrapped what was drawn
        with self._lock:
            header = self._list_header_parts()
            if self._place:
                header += [self._place, *self._describe_packs()]
            records = sorted(self._records.values(), key=self._make_sort_key)
            num_around = len(header) + 3  # the columns' names, those left out, and the cursor
            shown = records[: max(1, min(MAX_ROWS, self._console.height - num_around))]
            left_out = len(records) - len(shown)
            lines = [Text(line, no_wrap=True, overflow=self._overflow) for line in header]
            footer = [Text(f"and {left_out} more trials", style="dim")] if left_out else []
            return Group(*lines, self._make_table(shown), *footer)

    def _print_line(self, line: str) -> None:
        if not self._is_live:
            text = Text(f"{line} | {', '.join(self._list_header_parts())}")
            with suppress(OSError):  # a terminal that is gone, or a log's full disk
                self._console.print(text, soft_wrap=True)

    def _list_header_parts(self) -> list[str]:
        statuses = [record.status for record in self._records.values()]
        left_s = self._left_s()
        return [
            f"{len(statuses) - statuses.count(None)}/{self._num_trials} done, "
            f"{len(self._packs)} running, {statuses.count('failed')} failed",
            f"best {self._metric.name} {self._describe_best()}",
            f"elapsed {format_clock(time.monotonic() - self._began_s)}, "
            f"left {self._unknown if left_s is None else format_clock(left_s)}",
        ]

    def _describe_packs(self) -> list[str]:
        """How many trials train in each pack, as far as their last reports tell."""
        packs = describe_packs(self._slots)
        if not packs:
            return []
        counts = sorted(Counter(filter(None, self._packs.values())).values(), reverse=True)
        if not counts or len(self._slots) == 1:
            return [f"{packs}: {len(self._packs)} training"]
        num_new = len(self._packs) - sum(counts)
        counts += [0] * (len(self._slots) - len(counts))
        shown = ", ".join(map(str, counts))
        if len(counts) > MAX_SHOWN_PACKS:
            shown = f"{counts[-1]} to {counts[0]}"
        return [f"{packs}: {shown} training" + f", {num_new} not reported yet" * bool(num_new)]

    def _describe_best(self) -> str:
        best = self._best
        if best is None or not math.isfinite(best.get_worth(self._metric)):
            return self._unknown
        value = self._format_number(best.get_value(self._metric))
        return f"{value} at step {best.num_steps} ({best.trial_id})"

    def _take_best(self, records: Iterable[TrialRecord]) -> None:
        known = [self._best] if self._best else []
        known += (record for record in records if record.reports and record.final_of is None)
        self._best = max(known, key=self._measure_progress, default=None)

    def _measure_progress(self, record: TrialRecord) -> tuple[int, float]:
        return record.num_steps, record.get_worth(self._metric)

    def _get_status(self, record: TrialRecord) -> str:
        is_running = record.trial_id in self._packs
        return record.status or ("running" if is_running else "waiting")

    def _make_sort_key(self, record: TrialRecord) -> tuple[float, ...]:
        """Sorts running trials first, then waiting ones, the best ended ones, and failed ones."""
        ranks = {"running": 0, "waiting": 1, "completed": 2, "stopped": 2, "failed": 3}
        num_steps, worth = self._measure_progress(record)
        return (ranks[self._get_status(record)], -num_steps, -worth)

    def _make_table(self, records: Sequence[TrialRecord]) -> Table:
        """The trials with all columns that fit beside each other, and their reasons if these do."""
        columns = {
            "trial": [record.trial_id for record in records],
            "status": [self._get_status(record) for record in records],
            "step": [f"{record.num_steps}/{self._max_steps}" for record in records],
            "rank": [str(record.params.lora_rank) for record in records],
            "alpha": [f"{record.params.lora_alpha:g}" for record in records],
            "dropout": [f"{record.params.lora_dropout:g}" for record in records],
            "learning rate": [f"{record.params.learning_rate:.2e}" for record in records],
            self._metric.name: [self._format_number(r.get_value(self._metric)) for r in records],
            "best": [self._format_number(r.find_best_value(self._metric)) for r in records],
        }
        reasons = [join_lines(record.reason) for record in records]
        styles = [_STYLES.get(self._get_status(record), "") for record in records]
        for name in ("", *_LEFT_OUT_FIRST):
            columns.pop(name, None)
            left = self._console.width - self._measure_width(self._lay_out_table(columns, styles))
            if left >= 0:
                break
        if any(reasons) and left > MIN_REASON_WIDTH + 1:
            return self._lay_out_table(columns | {"reason": reasons}, styles, left - 1)
        return self._lay_out_table(columns, styles)

    def _lay_out_table(
        self, columns: Mapping[str, Sequence[str]], styles: Sequence[str], reason_width: int = 0
    ) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name in columns:
            table.add_column(
                Text(name),
                justify="left" if name in ("trial", "status", "reason") else "right",
                no_wrap=True,
                overflow=self._overflow,
                max_width=reason_width if name == "reason" else MAX_COLUMN_WIDTH,
            )
        for cells, style in zip(zip(*columns.values(), strict=True), styles, strict=True):
            table.add_row(*map(Text, cells), style=style)
        return table

    def _measure_width(self, table: Table) -> int:
        """The table's width where there is room enough."""
        wide = self._console.options.update(width=1000)
        return Measurement.get(self._console, wide, table).maximum

    def _format_number(self, value: float | None) -> str:
        return self._unknown if value is None or not math.isfinite(value) else f"{value:.4g}"


def _format_params(params: Hyperparameters) -> str:
    text = (
        f"lora_rank {params.lora_rank}, lora_alpha {params.lora_alpha:g}, "
        f"lora_dropout {params.lora_dropout:g}, learning_rate {params.learning_rate:.2e}"
    )
    names = ",".join(params.target_modules)
    return text if names == "all" else f"{text}, target_modules {names}"
