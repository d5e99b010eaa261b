"""W&B: one run a trial, online, offline or disabled, and never in the sweep's way.

wandb is used from one thread of its own, so that a slow server slows no trial. Whatever the
tracker is told it holds, so that a run can be written again as a whole: after the driver was
killed, and when the server cannot be reached.
"""

import hashlib
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from sweeps.records.events import Status, params_fields, report_fields
from sweeps.records.trial_record import TrialRecord
from sweeps.tracking.wandb_log import is_intact
from trainables.config import Hyperparameters, Metric, TrialConfig, TrialReport
from trainables.errors import SweepAborted

Mode = Literal["online", "offline", "disabled"]
Request = Literal["auto", "online", "offline", "disabled"]

WHOLE = "whole"
"""File in the folder of a finished run: the server has it all, or else the folder has."""

_log = logging.getLogger(__name__)


def resolve_mode(requested: Request, is_tiny: bool) -> Mode:
    """The mode to track in. auto asks WANDB_MODE, then whether wandb finds a login.

    With is_tiny auto is offline (WANDB_MODE=disabled is still honoured), so that a first try
    sends nothing anywhere.

    Raises:
        SweepAborted: online is asked for without a login, or the login or WANDB_MODE is invalid.
    """
    mode = requested if requested != "auto" else _environment_mode()
    if requested == "auto" and is_tiny and mode != "disabled":
        return "offline"
    if mode == "auto":
        return "online" if _session().has_login() else "offline"
    if mode == "online" and not _session().has_login():
        raise SweepAborted(
            "W&B online needs a login, and none was found",
            "run `wandb login`, or add --wandb offline",
        )
    return mode


class WandbTracker:
    """A Listener that writes one W&B run a trial, grouped by sweep, under folder/wandb.

    Offline, there is one `offline-run-*` folder a trial. wandb cannot resume those, so at a resume
    each that lacks the file `whole` is removed and written again from the histories; sweep_ended
    puts that file there, and a killed driver does not. Online, a run goes on under its id.

    If wandb fails, one warning is logged and tracking goes on offline, and if it fails there
    too (say the disk is full), not at all.

    Args:
        folder: the sweep's folder.
        sweep_id: unique to the sweep; makes the run ids unique in the project.
        metric: whose best value each run's summary shows.
        shared_config: what all trials share; the value of "recipe", if there, is the run's tag.
        histories: trials of a sweep that is being resumed.
    """

    def __init__(
        self,
        mode: Mode,
        folder: Path,
        sweep_name: str,
        sweep_id: str,
        project: str,
        entity: str | None,
        metric: Metric,
        shared_config: dict[str, object],
        histories: Sequence[TrialRecord] = (),
    ) -> None:
        self._mode = mode
        self._folder = folder
        self._metric = metric
        self._config = shared_config
        self._run_id_format = _run_id_format(sweep_name, sweep_id)
        self._project, self._entity, self._group = project, entity, sweep_name
        self._trials = {h.trial_id: _from_history(h) for h in histories}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="wandb")
        self._futures: list[Future[None]] = []
        self._finished_folders: list[Path] = []
        if mode != "disabled":
            self._submit(self._attempt, lambda: _session().prepare(folder))
        for trial in self._trials.values():
            if trial.status is not None and not self._is_whole(trial):
                self._submit(self._attempt, self._write_again, trial)

    def trial_started(self, config: TrialConfig, number: int) -> None:
        """Open the trial's run, with the reports that it made before."""
        self._submit(self._start, config.trial_id, number, config.params)

    def reported(self, config: TrialConfig, report: TrialReport) -> None:
        """Log the report at its optimizer step."""
        self._submit(self._add_report, config.trial_id, report)

    def trial_ended(self, config: TrialConfig, status: Status, reason: str) -> None:
        """Finish the trial's run with its status."""
        self._submit(self._end, config.trial_id, status, reason)

    def finals_started(self, runs: Sequence[TrialRecord]) -> None:
        """Know which of the trials that follow are runs of the finals."""
        for run in runs:
            self._submit(self._expect, _from_history(run))

    def sweep_ended(self) -> None:
        """Wait until all is written. Runs of trials that go on at a resume stay unfinished."""
        self._submit(self._attempt, self._mark_whole_folders)
        self._worker.shutdown(wait=True)
        for future in self._futures:
            future.result()  # raises what is not wandb's error, but ours

    def add_run(self, name: str, write: Callable[[Any], None]) -> None:
        """One more run in the sweep's group, for what is known only once the sweep has ended.

        It takes as long as wandb does: some seconds at most where a server does not answer.

        Args:
            name: of the run, unlike any trial's. A run of that name is written anew.
            write: is given the run, and logs to it.
        """
        tried: Mode = "disabled"
        while self._mode != tried:
            tried = self._mode
            self._attempt(self._write_run, name, write)

    def _write_run(self, name: str, write: Callable[[Any], None]) -> None:
        run_id = self._run_id_format.format(name)
        self._remove_offline_folders(run_id)
        run = self._new_run(id=run_id, name=name, job_type=name, config=self._config, tags=[])
        write(run)
        run.finish(exit_code=0)
        if self._mode == "online":
            _session().raise_if_refused(run)
        if _session().stop():
            _mark_whole(Path(run.settings.sync_dir))

    def _submit(self, action: Callable[..., None], *args: object) -> None:
        if self._mode != "disabled":
            self._futures.append(self._worker.submit(action, *args))

    def _expect(self, trial: "_Trial") -> None:
        self._trials.setdefault(trial.trial_id, trial)

    def _start(self, trial_id: str, number: int, params: Hyperparameters) -> None:
        trial = self._trials.setdefault(trial_id, _Trial(trial_id, number, params))
        trial.status = None
        self._attempt(self._open, trial)

    def _add_report(self, trial_id: str, report: TrialReport) -> None:
        trial = self._trials[trial_id]
        trial.reports[report.step] = report
        self._attempt(self._log, trial, report)

    def _end(self, trial_id: str, status: Status, reason: str) -> None:
        trial = self._trials[trial_id]
        trial.status, trial.reason = status, reason
        self._attempt(self._finish, trial)

    def _attempt(self, action: Callable[..., None], *args: object) -> None:
        """Do action; if wandb fails, step down and write all unfinished runs again."""
        if self._mode == "disabled":
            return
        try:
            action(*args)
        except _session().ERRORS as error:
            self._step_down(error)

    def _step_down(self, error: Exception) -> None:
        lower: Mode = "offline" if self._mode == "online" else "disabled"
        _log.warning(
            "W&B failed in mode %s, %s from now on (%s). %s", self._mode, lower,
            str(error).splitlines()[0] if str(error) else type(error).__name__,
            f"Upload later: wandb sync {self._folder}/wandb/offline-run-*"
            if lower == "offline" else "No report is lost: events.jsonl has them all.",
        )  # fmt: skip
        self._mode = lower
        unfinished = [trial for trial in self._trials.values() if trial.is_open]
        self._leave_open_runs()
        _session().stop()
        for trial in unfinished:
            self._attempt(self._write_again, trial)

    def _write_again(self, trial: "_Trial") -> None:
        self._open(trial)
        if trial.status is not None:
            self._finish(trial)

    def _open(self, trial: "_Trial") -> None:
        if trial.run is not None:
            return
        trial.is_open = True
        self._remove_offline_folders(self._run_id(trial))
        trial.run = self._new_run(
            id=self._run_id(trial),
            name=trial.trial_id,
            job_type="final" if trial.final_of else "trial",
            config=self._config | trial.own_config,
            tags=["final"] if trial.final_of else [],
        )
        for _, report in sorted(trial.reports.items()):
            self._log(trial, report)

    def _new_run(self, tags: Sequence[str], **facts: object) -> Any:
        """A run in the sweep's group, tagged with the recipe."""
        recipe = [str(self._config["recipe"])[:64]] if "recipe" in self._config else []
        return _session().open_run(
            self._mode,
            self._folder,
            project=self._project,
            entity=self._entity,
            group=self._group,
            tags=[*recipe, *tags],
            **facts,
        )

    def _log(self, trial: "_Trial", report: TrialReport) -> None:
        if report.step < trial.run.starting_step:
            return  # a resumed online run has it; wandb would drop it, but write a warning
        facts = report_fields(report)
        facts |= facts.pop("metrics")
        for name in ("trial_id", "step", "checkpoint", "cohort"):
            del facts[name]
        trial.run.log(facts, step=report.step)
        trial.run.summary.update(_best(trial.reports.values(), self._metric))

    def _finish(self, trial: "_Trial") -> None:
        trial.run.summary.update({"status": trial.status, "reason": trial.reason})
        trial.run.finish(exit_code=1 if trial.status == "failed" else 0)
        folder = Path(trial.run.settings.sync_dir)
        if self._mode == "online":
            _session().raise_if_refused(trial.run)
            (folder / WHOLE).touch()
        else:
            self._finished_folders.append(folder)
        trial.run, trial.is_open = None, False

    def _leave_open_runs(self) -> None:
        """Give up the open runs, together: each may take as long as the finish timeout."""
        trials = [trial for trial in self._trials.values() if trial.run is not None]
        with ThreadPoolExecutor(len(trials) + 1) as pool:
            list(pool.map(_session().abandon, [trial.run for trial in trials]))
        for trial in trials:
            trial.run = None

    def _mark_whole_folders(self) -> None:
        self._leave_open_runs()
        if _session().stop():
            for folder in self._finished_folders:
                _mark_whole(folder)

    def _run_id(self, trial: "_Trial") -> str:
        return self._run_id_format.format(trial.trial_id)

    def _is_whole(self, trial: "_Trial") -> bool:
        pattern = f"*run-????????_??????-{self._run_id(trial)}*/{WHOLE}"
        return any((self._folder / "wandb").glob(pattern))

    def _remove_offline_folders(self, run_id: str) -> None:
        pattern = f"offline-run-????????_??????-{run_id}*"
        for path in (self._folder / "wandb").glob(pattern):
            shutil.rmtree(path)
            self._finished_folders = [kept for kept in self._finished_folders if kept != path]


def _mark_whole(folder: Path) -> None:
    """Of a run that is finished, once wandb's process has ended well."""
    files = [path for path in folder.iterdir() if path.suffix == ".wandb"]
    if files and all(map(is_intact, files)):
        (folder / WHOLE).touch()
    else:
        _log.warning("W&B's run in %s is damaged; --resume writes it again", folder)


@dataclass
class _Trial:
    """What the tracker was told of a trial, and its W&B run while that is open."""

    trial_id: str
    number: int
    params: Hyperparameters
    reports: dict[int, TrialReport] = field(default_factory=dict)
    status: Status | None = None
    reason: str = ""
    final_of: str | None = None
    """Of a run of the finals: the search's trial."""
    seed: int | None = None
    is_open: bool = False
    """Whether its run is begun and not finished, in whichever mode."""
    run: Any = None

    @property
    def own_config(self) -> dict[str, object]:
        """What the run's config says of this trial alone."""
        own = {"number": self.number} | params_fields(self.params)
        return own | ({"final_of": self.final_of, "seed": self.seed} if self.final_of else {})


def _from_history(history: TrialRecord) -> _Trial:
    reports = {report.step: report for report in history.reports}
    return _Trial(
        history.trial_id, history.number, history.params, reports, history.status, history.reason,
        history.final_of, history.seed,
    )  # fmt: skip


def _run_id_format(sweep_name: str, sweep_id: str) -> str:
    """One id a trial, the same at every resume, of letters that W&B and folder names allow."""
    clean_name = re.sub(r"[^A-Za-z0-9_-]", "-", sweep_name)[:64]
    return f"{clean_name}-{{}}-{hashlib.sha256(sweep_id.encode()).hexdigest()[:8]}"


def _best(reports: Any, metric: Metric) -> dict[str, float]:
    values = [report.metrics.get(metric.name, math.nan) for report in reports]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return {}
    return {f"best_{metric.name}": max(finite) if metric.mode == "max" else min(finite)}


def _environment_mode() -> Request:
    named = os.environ.get("WANDB_MODE", "")
    modes: dict[str, Request] = {
        "": "auto", "online": "online", "run": "online", "offline": "offline",
        "dryrun": "offline", "disabled": "disabled",
    }  # fmt: skip
    if named not in modes:
        raise SweepAborted(
            f"WANDB_MODE is {named!r}; it must be online, offline or disabled",
            "unset WANDB_MODE, or give --wandb",
        )
    return modes[named]


def _session() -> ModuleType:
    # Loads wandb, which takes half a second: not for --help.
    from sweeps.tracking import wandb_session

    return wandb_session
