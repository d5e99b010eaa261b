"""The trial controller: each change of a trial goes to the log first, then to all others."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from sweeps.config import SweepConfig
from sweeps.finals.finalists import Finals, choose_finals, find_last_finals
from sweeps.records.events import (
    EventLog,
    find_since_search,
    make_params_fields,
    make_report_fields,
    read_events,
)
from sweeps.records.paths import RunPaths
from sweeps.records.redact import redact
from sweeps.records.schemas import Status
from sweeps.records.trial_record import TrialRecord, replay, replay_finals
from sweeps.search.asha import Asha, Ends, decide_ends, find_fault, list_cohort
from sweeps.search.study import Search
from trainables.config import Metric, TrialConfig, TrialReport


class Listener(Protocol):
    """Whom the controller notifies while a sweep runs, in the driver process."""

    def on_trial_start(self, config: TrialConfig, number: int) -> None:
        """Trial number (from 0) begins, or goes on after a resume."""

    def on_report(self, config: TrialConfig, report: TrialReport) -> None:
        """A trial has reported; called once for each trial and step."""

    def on_trial_end(self, config: TrialConfig, status: Status, reason: str) -> None:
        """The trial is over; reason is empty where there is nothing to say."""

    def on_finals_start(self, runs: Sequence[TrialRecord]) -> None:
        """The search has ended, and these runs follow, which start, report and end like trials."""

    def on_request(self, request: str, num_trials: int) -> None:
        """A user has asked for something, in words; the search has so many trials from now on."""


@dataclass(kw_only=True, eq=False)
class _Trial:
    """A trial of the search, or a run of the finals, in this process."""

    config: TrialConfig
    number: int
    """Position in the order of proposal; a run of the finals has that of its configuration."""
    is_final: bool
    """Optuna and ASHA are told nothing of a run of the finals, so nobody stops it."""
    values: dict[int, float]
    """The metric by step, as far as the log has it."""
    status: Status | None
    """None until the log says that the trial has ended."""
    is_logged: bool
    """Whether the log knows that it has started."""
    is_announced: bool = False
    """Whether the listeners know that it has started."""

    @property
    def last_step(self) -> int:
        return max(self.values, default=0)


class TrialController:
    """Runs every trial's state machine: proposed, started, reported at each rung, ended.

    Whatever is in the log has happened. A driver that is killed between the log and the rest
    leaves a log from which `resume` brings the rest up to date.

    Once the search has ended, the controller hands out the runs of the finals.
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
        self.config = config
        """With the number of trials that the search is asked for by now."""
        self._settings = config.settings
        self._paths = paths
        self.metric = metric
        self.search = search
        self._log = log
        self._listeners = listeners
        self._asha = Asha(config.rungs, config.reduction_factor, metric)
        self._trials: dict[str, _Trial] = {}
        self._num_open = 0
        """Of these, those that have not ended."""
        self._waiting: deque[_Trial] = deque()
        self._finals: Finals | None = None
        self._is_search_closed = False
        self.ended_between_reports: set[str] = set()
        """Trials that users or the budget stopped: no answer to a report tells their packs."""
        self._held: list[_Trial] | None = None
        """Trials that were handed out and have not started yet; None while starts are not held."""

    def resume(
        self, records: Sequence[TrialRecord], take_requests: Callable[[], None] = lambda: None
    ) -> None:
        """Takes over from a driver that died: its trials, its rungs, its unfinished trials.

        A trial that stands at a rung is decided again, with all that is known there by now. It
        would go on from there, so it loses nothing that was not lost already.

        Args:
            records: of the search's trials, which the search has restored.
            take_requests: is called when all trials are known, and before the finals follow.
        """
        for record in records:
            for step, value in self._add_trial(record).values.items():
                self._asha.record(record.trial_id, step, value)
        self._decide_again()
        take_requests()
        self._start_finals_if_due()

    @property
    def num_left(self) -> int:
        """Trials and runs of the finals that have not ended yet, also those not proposed yet."""
        return self._num_to_propose + self._num_open

    @property
    def is_in_finals(self) -> bool:
        """Whether the search has ended, and the runs of the finals are what is left."""
        return self._finals is not None

    @property
    def is_open(self) -> bool:
        """Whether the search may have new trials."""
        return self._finals is None and not self._is_search_closed

    def is_running(self, trial_id: str) -> bool:
        """Whether the log does not say yet that a trial, or a run of the finals, has ended."""
        return self._trials[trial_id].status is None

    def take_request(self, request: str, num_trials: int) -> None:
        """Has a user's request told in words, and the search have so many trials; those that have
        begun go on."""
        for listener in self._listeners:
            listener.on_request(request, num_trials)
        if num_trials != self.config.num_trials:
            self.config = replace(self.config, num_trials=num_trials)
            self._start_finals_if_due()

    def stop_search(self) -> None:
        """Has no new trial proposed; those that have begun go on, and then the finals follow."""
        self._is_search_closed = True
        self._start_finals_if_due()

    def next_trial(self) -> TrialConfig | None:
        """The next trial to run: unfinished ones of an earlier process first; None at the end."""
        if self._waiting:
            trial = self._waiting.popleft()
        elif self._num_to_propose > 0:
            number, params = self.search.propose(self._num_to_propose)
            record = TrialRecord(trial_id=f"t{number:04d}", number=number, params=params)
            trial = self._add_trial(record, is_logged=False)
        else:
            return None
        if self._held is None:
            self._start_trials([trial])
        else:
            self._held.append(trial)
        return trial.config

    def hold_starts(self) -> None:
        """Until `release_starts`, trials are handed out and their processes start, but none trains.

        A driver that is killed meanwhile has the next one propose them again.
        """
        self._held = []

    def release_starts(self) -> None:
        """The trials that were handed out since `hold_starts` start now."""
        held, self._held = self._held or [], None
        self._start_trials(held)

    def put_back(self, trial_id: str) -> None:
        """Has a trial run again from its last report, after it lost its process."""
        if self.is_running(trial_id):
            self._waiting.append(self._trials[trial_id])

    def report(
        self,
        report: TrialReport,
        tell_packs: Callable[[dict[str, bool]], None] = lambda should_continue: None,
    ) -> dict[str, bool]:
        """Takes a report with its cohort's; returns by trial whether it should continue.

        All are written down before any is decided, so it does not matter which of a cohort comes
        first: the others find their decision made. It stands as long as this process lives. A
        trial that sends its last report again gets the same answer, and nobody is told twice. A
        report without a finite score, or at a step that is no rung, ends its trial as failed.

        Args:
            tell_packs: takes what is decided as soon as the log has it, because slots wait for it;
                the study and the listeners take longer.
        """
        self.release_starts()
        step = report.step
        new = [
            r
            for r in list_cohort(report)
            if self.is_running(r.trial_id) and step > self._trials[r.trial_id].last_step
        ]
        faults = {r.trial_id: find_fault(r, self.config.rungs, self.metric) for r in new}
        valid = [r for r in new if not faults[r.trial_id]]
        # 1. The log has every report of the cohort.
        self._log.append_all("report", map(make_report_fields, valid))
        for r in valid:
            self._trials[r.trial_id].values[step] = r.metrics[self.metric.name]
        # 2. ASHA decides them together, and the log has who ends.
        ends: Ends = {name: ("failed", fault) for name, fault in faults.items() if fault}
        ends |= self._decide_ends(step, [self._trials[r.trial_id] for r in valid])
        self._write_ends(ends)
        # 3. The packs give the slots of those that stop to others.
        should_continue = {r.trial_id: self.is_running(r.trial_id) for r in (*new, report)}
        if new:
            tell_packs(should_continue)
        # 4. Optuna and the listeners learn the reports, and then the ends.
        for r in valid:
            trial = self._trials[r.trial_id]
            if not trial.is_final:
                self.search.report(trial.number, step, trial.values[step])
            for listener in self._listeners:
                listener.on_report(trial.config, r)
        self._notify_ends(ends)
        # 5. The last end of the search calls for the finals.
        self._start_finals_if_due()
        return should_continue

    def end(self, trial_id: str, status: Status, reason: str) -> None:
        """Ends a trial; the first end counts."""
        self.release_starts()
        if self.is_running(trial_id):
            self._end_all({trial_id: (status, redact(reason))})  # perhaps of a library's error
            self.ended_between_reports.add(trial_id)
            self._start_finals_if_due()

    def _decide_ends(self, step: int, trials: Sequence[_Trial]) -> Ends:
        """How those trials end that do not go on after a step that the log has for all of them."""
        values = {trial.config.trial_id: trial.values[step] for trial in trials}
        unranked = [trial.config.trial_id for trial in trials if trial.is_final]
        return decide_ends(self._asha, step, values, unranked)

    def _decide_again(self) -> None:
        """Decides all trials whose last report is that of an earlier process."""
        for step in self.config.rungs:
            self._end_all(
                self._decide_ends(step, [t for t in self._waiting if t.last_step == step])
            )

    def _end_all(self, ends: Ends) -> None:
        self._start_trials(self._trials[trial_id] for trial_id in ends)
        self._write_ends(ends)
        self._notify_ends(ends)

    def _start_trials(self, trials: Iterable[_Trial]) -> None:
        """Writes that trials begin, and tells that they do, or go on after a resume; once each."""
        trials = list(dict.fromkeys(trials))  # one that lost its process may be held twice
        new = [trial for trial in trials if not trial.is_logged]
        self._log.append_all("trial_started", map(self._make_start_fields, new))
        for trial in trials:
            trial.is_logged = True
            if not trial.is_announced:
                trial.is_announced = True
                for listener in self._listeners:
                    listener.on_trial_start(trial.config, trial.number)

    def _make_start_fields(self, trial: _Trial) -> dict[str, Any]:
        facts = {"trial_id": trial.config.trial_id, "number": trial.number}
        is_asked = {"is_asked": True} if trial.number in self.search.asked else {}
        return facts | {"params": make_params_fields(trial.config.params)} | is_asked

    def _write_ends(self, ends: Ends) -> None:
        self._log.append_all(
            "trial_ended",
            [
                {"trial_id": name, "status": status, "reason": why}
                for name, (status, why) in ends.items()
            ],
        )
        for trial_id, (status, _) in ends.items():
            trial = self._trials[trial_id]
            trial.status = status
            self._num_open -= 1
            if trial in self._waiting:
                self._waiting.remove(trial)

    def _notify_ends(self, ends: Ends) -> None:
        for trial_id, (status, reason) in ends.items():
            trial = self._trials[trial_id]
            if not trial.is_final:
                self.search.finish(trial.number, status, trial.values.get(trial.last_step))
            for listener in self._listeners:
                listener.on_trial_end(trial.config, status, reason)

    @property
    def _num_to_propose(self) -> int:
        """Trials that the search has yet to propose."""
        num_begun = len(self._trials) - (len(self._finals.runs) if self._finals else 0)
        return 0 if self._is_search_closed else max(0, self.config.num_trials - num_begun)

    def _start_finals_if_due(self) -> None:
        """Once the search has ended: who meets in the finals is written down, and their runs wait.

        The log says how the search ended, so a driver that is killed here is followed by one that
        comes to the same finals. More trials, or other settings of the finals, make new ones, in
        which what was trained before counts.
        """
        if self._finals is not None or self.num_left > 0:
            return
        events = read_events(self._paths.events)
        finals = choose_finals(self.config, replay(events), self.metric)
        if finals is None:
            return
        is_known = finals == find_last_finals(events)
        if not is_known or find_since_search(events, "finals_started") is None:
            self._log.append("finals_started", **asdict(finals))
            events = read_events(self._paths.events)
        self._finals = finals
        by_id = {record.trial_id: record for record in replay_finals(events)}
        records = [by_id[run.trial_id] for run in finals.runs]
        for record in records:
            self._add_trial(record)
        for listener in self._listeners:
            listener.on_finals_start(records)
        self._decide_again()

    def _add_trial(self, record: TrialRecord, *, is_logged: bool = True) -> _Trial:
        """Adds a trial; one that an earlier process has written down waits if it has not ended."""
        seed = self.config.seed if record.seed is None else record.seed
        trial = _Trial(
            config=TrialConfig(
                trial_id=record.trial_id,
                params=record.params,
                settings=replace(self._settings, seed=seed),
                folder=self._paths.get_trial_folder(record.trial_id),
            ),
            number=record.number,
            is_final=record.final_of is not None,
            values=record.get_values(self.metric),
            status=record.status,
            is_logged=is_logged,
        )
        self._trials[record.trial_id] = trial
        self._num_open += trial.status is None
        if is_logged and trial.status is None:
            self._waiting.append(trial)
        return trial
