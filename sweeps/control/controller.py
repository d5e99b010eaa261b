"""The book of trials: who is next, who goes on, who has ended; the log first, then all others."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from sweeps.config import SweepConfig
from sweeps.finals import finalists
from sweeps.finals.finalists import Finals
from sweeps.records.events import EventLog, Status, params_fields, read_events, report_fields
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord, replay, replay_finals
from sweeps.search.decisions import Decisions, Ends, as_told_by_each
from sweeps.search.study import Search, catch_up
from trainables.config import Hyperparameters, Metric, TrialConfig, TrialReport


class Listener(Protocol):
    """What the tuner tells while a sweep runs, in the driver process."""

    def trial_started(self, config: TrialConfig, number: int) -> None:
        """Trial number (from 0) begins, or goes on after a resume."""

    def reported(self, config: TrialConfig, report: TrialReport) -> None:
        """A report; each (trial, step) is told once."""

    def trial_ended(self, config: TrialConfig, status: Status, reason: str) -> None:
        """The trial is over; reason is empty where there is nothing to say."""

    def finals_started(self, runs: Sequence[TrialRecord]) -> None:
        """The search has ended, and these runs follow; trials to whoever is told of them."""

    def sweep_ended(self) -> None:
        """No call follows."""


class TrialController:
    """Keeps every trial's story in one order: event log, Optuna, ASHA, listeners.

    Once the search has ended it hands out the runs of the finals. Those are trials like others,
    but Optuna and ASHA are told nothing of them, and so nobody stops them.

    Whatever is in the log has happened; a driver that is killed between the log and the rest
    leaves a log from which `resume` brings the rest up to date.
    """

    def __init__(
        self,
        config: SweepConfig,
        paths: RunPaths,
        metric: Metric,
        search: Search,
        log: EventLog,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._config = config
        self._paths = paths
        self._metric = metric
        self._search = search
        self._log = log
        self._listeners = listeners
        self._decisions = Decisions(config.rungs, config.reduction_factor, metric)
        self._trials: dict[str, TrialConfig] = {}
        self._numbers: dict[str, int] = {}
        self._values: dict[str, dict[int, float]] = {}
        self._started: set[str] = set()
        self._ended: set[str] = set()
        self._waiting: deque[str] = deque()
        self._final_runs: dict[str, TrialRecord] = {}
        self._finals: Finals | None = None
        self._is_search_closed = False
        self._held: list[Callable[[], None]] | None = None

    def resume(self, histories: Sequence[TrialRecord]) -> None:
        """Takes over from a driver that died: its trials, its rungs, its unfinished trials.

        A trial that stands at a rung is decided again, with all that is known there by now. It
        would go on from there, so it loses nothing that was not lost already.

        Args:
            histories: of the search's trials.
        """
        for history in histories:
            self._search.require(history.number)
            self._numbers[history.trial_id] = history.number
            self._enter(history.trial_id, history.params, self._config.seed)
            values = {r.step: r.metrics[self._metric.name] for r in history.reports}
            self._values[history.trial_id] = values
            for step, value in values.items():
                self._decisions.record(history.trial_id, step, value)
        running = set(self._search.running())
        for history in histories:
            if history.number in running:
                self._search.adopt(history.number)
                values = self._values[history.trial_id]
                catch_up(self._search, history.number, values, history.status, history.reason)
            if history.status is None:
                self._waiting.append(history.trial_id)
            else:
                self._ended.add(history.trial_id)
        for number in sorted(running - set(self._numbers.values())):
            self._waiting.append(self._begin(number, self._search.adopt(number)))
        self._decide_again()
        self._start_finals_if_due()

    @property
    def num_left(self) -> int:
        """Trials and runs of the finals that have not ended yet, also those not proposed yet."""
        final_runs = self._finals.runs if self._finals else ()
        return self._num_search_left + sum(run.trial_id not in self._ended for run in final_runs)

    @property
    def is_in_finals(self) -> bool:
        """Whether the search has ended, and the runs of the finals are what is left."""
        return self._finals is not None

    def stop_search(self) -> None:
        """Has no new trial proposed; those that have begun go on, and then the finals follow."""
        self._is_search_closed = True
        self._start_finals_if_due()

    def next_trial(self) -> TrialConfig | None:
        """The next trial to run: unfinished ones of an earlier process first; None at the end."""
        if self._waiting:
            trial_id = self._waiting.popleft()
        elif self._num_to_propose > 0:
            trial_id = self._begin(*self._search.propose())
        else:
            return None
        self._tell_start(trial_id)
        return self._trials[trial_id]

    def hold(self) -> None:
        """Until `go`, the starts of trials are kept: their processes start, but none trains yet.

        A driver that is killed meanwhile leaves them in the study, from which `resume` takes them.
        """
        self._held = []

    def go(self) -> None:
        """The trials that were handed out since `hold` start now."""
        held, self._held = self._held or [], None
        for start in held:
            start()

    def put_back(self, trial_id: str) -> None:
        """Have a trial run again from its last report, after it lost its process."""
        if trial_id not in self._ended:
            self._waiting.append(trial_id)

    def report(
        self, report: TrialReport, announce: Callable[[dict[str, bool]], None] = lambda _: None
    ) -> dict[str, bool]:
        """Takes a report, with its cohort's; returns who goes on, of all that it is news of.

        All are noted before any is decided, so it does not matter which of a cohort comes first:
        the others find their decision made. It stands as long as this process lives: a trial that
        sends its last report again goes on as before, and nobody is told of it twice. A report
        without a finite score, or at a step that is no rung, ends its trial as failed.

        Args:
            announce: is told the same as soon as the log has it, before the study and the
                listeners, which take longer.
        """
        self.go()
        news = [one for one in as_told_by_each(report) if self._is_news(one)]
        faults = {one.trial_id: self._decisions.fault(one) for one in news}
        noted = [one for one in news if not faults[one.trial_id]]
        for one in noted:
            self._log.append("report", **report_fields(one))
            self._values[one.trial_id][one.step] = one.metrics[self._metric.name]
        ends: Ends = {trial_id: ("failed", fault) for trial_id, fault in faults.items() if fault}
        ends |= self._ends(report.step, [one.trial_id for one in noted])
        self._write_ends(ends)
        goes_on = {one.trial_id: one.trial_id not in self._ended for one in (*news, report)}
        announce(goes_on)
        for one in noted:
            self._tell_report(one)
        self._tell_ends(ends)
        return goes_on

    def end(self, trial_id: str, status: Status, reason: str) -> None:
        """Ends a trial; the first end counts."""
        self.go()
        if trial_id not in self._ended:
            self._write_ends({trial_id: (status, reason)})
            self._tell_ends({trial_id: (status, reason)})

    def _is_news(self, report: TrialReport) -> bool:
        values = self._values[report.trial_id]
        return report.trial_id not in self._ended and report.step > max(values, default=0)

    def _ends(self, step: int, cohort: Iterable[str]) -> Ends:
        """Those of a cohort whose reports are written down that do not go on after the step."""
        values = {trial_id: self._values[trial_id][step] for trial_id in cohort}
        return self._decisions.ends(step, values, self._final_runs)

    def _decide_again(self) -> None:
        """Decides all trials whose last report is that of an earlier process."""
        for step in self._config.rungs:
            cohort = [one for one in self._waiting if max(self._values[one], default=0) == step]
            ends = self._ends(step, cohort)
            self._write_ends(ends)
            for trial_id in ends:
                self._tell_start(trial_id)
            self._tell_ends(ends)

    def _write_ends(self, ends: Ends) -> None:
        for trial_id, (status, reason) in ends.items():
            self._log.append("trial_ended", trial_id=trial_id, status=status, reason=reason)
            self._ended.add(trial_id)
            if trial_id in self._waiting:
                self._waiting.remove(trial_id)

    def _tell_ends(self, ends: Ends) -> None:
        for trial_id, (status, reason) in ends.items():
            values = self._values[trial_id]
            if not self._is_final(trial_id):
                catch_up(self._search, self._numbers[trial_id], values, status, reason)
            for listener in self._listeners:
                listener.trial_ended(self._trials[trial_id], status, reason)
        self._start_finals_if_due()

    def _tell_report(self, report: TrialReport) -> None:
        trial_id, value = report.trial_id, report.metrics[self._metric.name]
        if not self._is_final(trial_id):
            self._search.report(self._numbers[trial_id], report.step, value)
        for listener in self._listeners:
            listener.reported(self._trials[trial_id], report)

    def _tell_start(self, trial_id: str) -> None:
        """Tells that a trial begins, or goes on after a resume, once."""
        if trial_id not in self._started:
            self._started.add(trial_id)
            self._now_or_later(partial(self._tell_listeners, trial_id))

    def _tell_listeners(self, trial_id: str) -> None:
        for listener in self._listeners:
            listener.trial_started(self._trials[trial_id], self._number(trial_id))

    def _now_or_later(self, start: Callable[[], None]) -> None:
        if self._held is None:
            start()
        else:
            self._held.append(start)

    def _is_final(self, trial_id: str) -> bool:
        return trial_id in self._final_runs

    def _number(self, trial_id: str) -> int:
        """Place in the order of proposal; of a run of the finals, that of its configuration."""
        if self._is_final(trial_id):
            return self._final_runs[trial_id].number
        return self._numbers[trial_id]

    @property
    def _num_to_propose(self) -> int:
        """Trials that the search has yet to propose."""
        return 0 if self._is_search_closed else max(0, self._config.num_trials - len(self._numbers))

    @property
    def _num_search_left(self) -> int:
        num_ended = sum(trial_id in self._ended for trial_id in self._numbers)
        return self._num_to_propose + len(self._numbers) - num_ended

    def _start_finals_if_due(self) -> None:
        """Once the search has ended: who meets in the finals is written down, and their runs wait.

        The log says how the search ended, so a driver that is killed here is followed by one that
        comes to the same finals. More trials, or other settings of the finals, make new ones, in
        which what was trained before counts.
        """
        if self._finals is not None or self._num_search_left > 0:
            return
        events = read_events(self._paths.events)
        found = finalists.choose_finals(self._config, replay(events), self._metric)
        if found is None:
            return
        if found != finalists.last_finals(events):
            self._log.append("finals_started", **finalists.to_fields(found))
            events = read_events(self._paths.events)
        self._finals = found
        known = {history.trial_id: history for history in replay_finals(events)}
        self._final_runs = {run.trial_id: known[run.trial_id] for run in found.runs}
        for run in found.runs:
            self._enter_final(self._final_runs[run.trial_id], run.seed)
        for listener in self._listeners:
            listener.finals_started(list(self._final_runs.values()))
        self._decide_again()

    def _enter_final(self, history: TrialRecord, seed: int) -> None:
        trial_id = history.trial_id
        self._enter(trial_id, history.params, seed)
        self._values[trial_id] = {r.step: r.metrics[self._metric.name] for r in history.reports}
        if history.status is None:
            self._waiting.append(trial_id)
        else:
            self._ended.add(trial_id)

    def _begin(self, number: int, params: Hyperparameters) -> str:
        trial_id = f"t{number:04d}"
        fields = {"trial_id": trial_id, "number": number, "params": params_fields(params)}
        self._now_or_later(partial(self._log.append, "trial_started", **fields))
        self._numbers[trial_id] = number
        self._enter(trial_id, params, self._config.seed)
        return trial_id

    def _enter(self, trial_id: str, params: Hyperparameters, seed: int) -> None:
        self._trials[trial_id] = TrialConfig(
            trial_id=trial_id,
            params=params,
            settings=replace(self._config.settings, seed=seed),
            folder=self._paths.trial(trial_id),
        )
        self._values[trial_id] = {}
