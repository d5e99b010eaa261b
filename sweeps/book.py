"""The book of trials: who is next, who goes on, who has ended; the log first, then all others."""

import math
from collections import deque
from collections.abc import Sequence

from sweeps.config import SweepConfig
from sweeps.events import EventLog, Listener, Status, TrialHistory, params_fields, report_fields
from sweeps.paths import RunPaths
from sweeps.scheduler import Asha
from sweeps.search import Search, catch_up
from trainables.config import Hyperparameters, Metric, TrialConfig, TrialReport


class TrialBook:
    """Keeps every trial's story in one order: event log, Optuna, ASHA, listeners.

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
        self._asha = Asha(config.rungs, config.reduction_factor, metric)
        self._trials: dict[str, TrialConfig] = {}
        self._numbers: dict[str, int] = {}
        self._values: dict[str, dict[int, float]] = {}
        self._started: set[str] = set()
        self._ended: set[str] = set()
        self._waiting: deque[str] = deque()

    def resume(self, histories: Sequence[TrialHistory]) -> None:
        """Takes over from a driver that died: its trials, its rungs, its unfinished trials."""
        for history in histories:
            self._search.require(history.number)
            self._enter(history.trial_id, history.number, history.params)
            values = {r.step: r.metrics[self._metric.name] for r in history.reports}
            self._values[history.trial_id] = values
            for step, value in values.items():
                self._asha.record(history.trial_id, step, value)
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

    @property
    def num_left(self) -> int:
        """Trials that have not ended yet, those not proposed yet included."""
        return max(self._config.num_trials, len(self._trials)) - len(self._ended)

    def next_trial(self) -> TrialConfig | None:
        """The next trial to run: unfinished ones of an earlier process first; None at the end."""
        if self._waiting:
            trial_id = self._waiting.popleft()
        elif len(self._trials) < self._config.num_trials:
            trial_id = self._begin(*self._search.propose())
        else:
            return None
        if trial_id not in self._started:
            self._started.add(trial_id)
            for listener in self._listeners:
                listener.trial_started(self._trials[trial_id], self._numbers[trial_id])
        return self._trials[trial_id]

    def put_back(self, trial_id: str) -> None:
        """Have a trial run again from its last report, after it lost its process."""
        if trial_id not in self._ended:
            self._waiting.append(trial_id)

    def report(self, report: TrialReport) -> bool:
        """Takes a report; returns whether the trial goes on.

        A trial that resumes sends its last report again: it is decided again, and told to
        nobody twice. A non-finite score ends the trial as failed.
        """
        trial_id, step = report.trial_id, report.step
        if trial_id in self._ended:
            return False
        value = report.metrics[self._metric.name]
        if not math.isfinite(value):
            self.end(trial_id, "failed", f"{self._metric.name} is {value} at step {step}")
            return False
        if step not in self._values[trial_id]:
            self._log.append("report", **report_fields(report))
            self._values[trial_id][step] = value
            self._search.report(self._numbers[trial_id], step, value)
            self._asha.record(trial_id, step, value)
            for listener in self._listeners:
                listener.reported(self._trials[trial_id], report)
        if step == self._config.max_steps:
            self.end(trial_id, "completed", "")
        elif not self._asha.keeps(trial_id, step):
            self.end(trial_id, "stopped", self._asha.standing(trial_id, step))
        return trial_id not in self._ended

    def end(self, trial_id: str, status: Status, reason: str) -> None:
        """Ends a trial; the first end counts."""
        if trial_id in self._ended:
            return
        self._log.append("trial_ended", trial_id=trial_id, status=status, reason=reason)
        self._ended.add(trial_id)
        catch_up(self._search, self._numbers[trial_id], self._values[trial_id], status, reason)
        for listener in self._listeners:
            listener.trial_ended(self._trials[trial_id], status, reason)

    def _begin(self, number: int, params: Hyperparameters) -> str:
        trial_id = f"t{number:04d}"
        self._log.append(
            "trial_started", trial_id=trial_id, number=number, params=params_fields(params)
        )
        self._enter(trial_id, number, params)
        return trial_id

    def _enter(self, trial_id: str, number: int, params: Hyperparameters) -> None:
        self._trials[trial_id] = TrialConfig(
            trial_id=trial_id,
            params=params,
            settings=self._config.settings,
            folder=self._paths.trial(trial_id),
        )
        self._numbers[trial_id] = number
        self._values[trial_id] = {}
