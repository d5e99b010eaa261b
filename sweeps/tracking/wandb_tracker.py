"""W&B: one run a trial, replayed from events.jsonl; what is missing or damaged is written again."""

import logging
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.records.trial_record import TrialRecord
from sweeps.tracking.follow_log import describe_error
from sweeps.tracking.run_values import (
    SUMMARY,
    TrackedRun,
    TrackedSweep,
    find_end,
    list_changed_runs,
)
from sweeps.tracking.wandb_mode import Mode, load_session
from sweeps.tracking.wandb_stop import StopButtons
from sweeps.tracking.wandb_sweep import SweepRefused, describe_sweep, find_sweep, make_sweep
from trainables.files import DamagedLine, JsonLines, read_json_lines
from trainables.shell import write_command

COMPLETE_FILE = "complete.jsonl"
"""Beside W&B's own files, a line for each run that was replayed to its end."""
UPLOAD_BYTES_PER_S = 2**20
"""The slowest upload that the end of a sweep waits for."""
_log = logging.getLogger(__name__)


@dataclass
class _OpenRun:
    run: Any
    num_reports: int = 0
    """Reports that were logged."""


class WandbTracker:
    """A Tracker that writes one W&B run a trial and one named `summary`.

    Offline, there is one `offline-run-*` folder a run. wandb cannot append to those, so an
    incomplete one is removed and written anew. Online, a run is resumed under its id.

    Online, the runs are those of one W&B sweep, whose id stays in the run folder.

    If wandb fails, one warning is logged and tracking continues offline, and if it fails there
    too, it ends.

    Args:
        stop: told the name of each run whose Stop button in W&B was pressed while it was open.
    """

    name = "wandb"

    def __init__(
        self, sweep: TrackedSweep, stop: Callable[[str], None] = lambda name: None
    ) -> None:
        self.mode = sweep.wandb_mode
        self._sweep = sweep
        self._folder = sweep.paths.folder / "wandb"
        self._config = sweep.values
        self._wandb_sweep_id: str | None = None
        self.has_refused_sweep = False
        """Whether W&B has taken runs, but made no sweep of them."""
        self._buttons = StopButtons(stop)
        self._open: dict[str, _OpenRun] = {}
        self._written: dict[str, str] = {}
        """What each run shows that is open or complete; see list_changed_runs."""
        self._has_read_complete = False
        self._unrecorded: dict[str, dict[str, object]] = {}
        """By name, lines of COMPLETE_FILE that wait for wandb's process to end."""
        self._are_files_trusted = True

    def replay(self, events: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]) -> None:
        """Brings every run to what the log says of it; if wandb fails, steps down and repeats."""
        while self.mode != "disabled":
            try:
                return self._replay(events, trials)
            except Exception as error:  # wandb raises many kinds, some of them private
                self._step_down(error)

    def close(self, *, is_disk_trusted: bool) -> None:
        """Ends wandb's process. Runs of trials that have not ended are left incomplete, and the
        next replay writes them again; so are all files of this process if the disk is not trusted:
        wandb does not tell of a full one."""
        self._are_files_trusted &= is_disk_trusted
        self._stop_wandb()
        self._record_complete()

    def _step_down(self, error: Exception) -> None:
        lower: Mode = "offline" if self.mode == "online" else "disabled"
        _log.warning(
            "W&B failed in mode %s, %s from now on (%s). %s",
            self.mode,
            lower,
            describe_error(error),
            f"Upload later: python -m sweeps.sync {write_command(self._sweep.paths.folder)}"
            if lower == "offline"
            else "No report is lost: events.jsonl has them all.",
        )
        self._stop_wandb()
        self.mode = lower

    def _replay(self, events: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]) -> None:
        if not self._has_read_complete:
            self._written = _read_complete(self._folder, self.mode)
            self._has_read_complete = True
        names = [trial.trial_id for trial in trials] + [SUMMARY] * (find_end(events) is not None)
        refusal = self._join_sweep(names) if names else None
        for run in list_changed_runs(self._sweep, events, trials, self._written):
            if run.job_type == SUMMARY:
                self._replay_summary(run)
            else:
                self._replay_trial(run)
        if refusal is not None:  # by a server that takes runs
            _log.warning(
                "W&B makes no sweep of the runs (%s), which it shows as the group %s. Try later: "
                "python -m sweeps.sync %s --wandb online",
                describe_error(refusal),
                self._sweep.name,
                write_command(self._sweep.paths.folder),
            )

    def _join_sweep(self, names: Sequence[str]) -> SweepRefused | None:
        """Finds the W&B sweep, or makes it.

        Args:
            names: of runs; those that are online already become part of it.

        Returns:
            Why W&B has made none.
        """
        if self._wandb_sweep_id is not None or self.has_refused_sweep:
            return None
        sweep = self._sweep
        place = {"project": sweep.config.wandb_project, "entity": sweep.config.wandb_entity}
        if self.mode == "online":
            place["server"] = load_session().find_server(sweep.paths.folder)
        self._wandb_sweep_id = find_sweep(self._folder, place)
        if self._wandb_sweep_id is None and self.mode == "online":
            described = describe_sweep(sweep.config, sweep.metric, sweep.name)
            ids = list(map(sweep.make_run_id, names))
            try:
                self._wandb_sweep_id = make_sweep(self._folder, place, described, ids)
            except SweepRefused as refused:
                self.has_refused_sweep = True
                return refused
        return None

    def _replay_summary(self, summary: TrackedRun) -> None:
        from sweeps.tracking import wandb_summary  # loads wandb

        run = self._start_run(summary)
        about = {name: self._config[name] for name in ("model", "task", "recipe")}
        about |= {"metric": self._sweep.metric.name}
        about |= {"trained_by": self._sweep.make_run_id(str(summary.values.get("adapter", "")))}
        wandb_summary.log_summary(run, summary, self._sweep.paths.best, about)
        self._finish_run(summary, run)

    def _replay_trial(self, trial: TrackedRun) -> None:
        if trial.name not in self._open:
            run = self._start_run(trial)
            self._open[trial.name] = _OpenRun(run)
            if self.mode == "online" and (place := load_session().find_open_run(run)) is not None:
                self._buttons.watch(trial.name, place)
        entry = self._open[trial.name]
        for step, _, numbers in trial.points[entry.num_reports :]:
            # wandb drops what the server has of a resumed run, but with a warning.
            if step >= entry.run.starting_step:
                entry.run.log(numbers, step=step)
        entry.num_reports = len(trial.points)
        if trial.place.get("pack"):
            entry.run.config.update(dict(trial.place), allow_val_change=True)
        if trial.status != "running":
            entry.run.summary.update({"status": trial.status, "reason": trial.reason})
            self._buttons.forget(trial.name)
            self._finish_run(trial, entry.run)
            del self._open[trial.name]

    def _start_run(self, tracked: TrackedRun) -> Any:
        run_id, swept = self._sweep.make_run_id(tracked.name), self._sweep.config
        num_bytes = sum(path.stat().st_size for path in tracked.files)
        for path in self._folder.glob(f"offline-run-????????_??????-{run_id}*"):
            shutil.rmtree(path)
        return load_session().open_run(
            self.mode,
            self._sweep.paths.folder,
            project=swept.wandb_project,
            entity=swept.wandb_entity,
            group=self._sweep.name,
            sweep_id=self._wandb_sweep_id,
            finish_timeout_s=num_bytes / UPLOAD_BYTES_PER_S,
            # wandb copies settings, which no partial likes
            stop=lambda: self._buttons.press(tracked.name),
            id=run_id,
            name=tracked.name,
            job_type=tracked.job_type,
            config=self._config | (dict(tracked.values) if tracked.name != SUMMARY else {}),
            tags=[swept.recipe[:64], *(["final"] if tracked.job_type == "final" else [])],
        )

    def _finish_run(self, tracked: TrackedRun, run: Any) -> None:
        run.finish(exit_code=1 if tracked.status == "failed" else 0)
        if self.mode == "online":
            load_session().raise_if_refused()  # finish() succeeds where the login is refused
        folder = Path(run.settings.sync_dir).name
        facts = {"mode": self.mode, "shows": tracked.version, "folder": folder}
        self._unrecorded[tracked.name] = {"name": tracked.name, **facts}

    def _stop_wandb(self) -> None:
        """Gives up the open runs, together because each may wait for its timeout, and ends
        wandb's process, before which the files of finished runs are not complete."""
        if self.mode == "disabled":
            return
        session = load_session()
        self._buttons.clear()
        with ThreadPoolExecutor(len(self._open) + 1) as pool:
            list(pool.map(session.abandon, [entry.run for entry in self._open.values()]))
        for name in self._open:  # the next replay writes them again
            self._written.pop(name, None)
        self._open.clear()
        if not session.stop():
            self._are_files_trusted = False

    def _record_complete(self) -> None:
        """Writes down which runs are complete, now that their files are."""
        lines = [
            line | {"num_bytes": _count_bytes(self._folder / str(line["folder"]))}
            for line in self._unrecorded.values()
            if line["mode"] == "online" or self._are_files_trusted
        ]
        self._unrecorded = {}
        if not lines:
            return
        try:
            with closing(JsonLines(self._folder / COMPLETE_FILE)) as file:
                for line in lines:
                    file.append(line)
        except OSError as error:
            if self.mode != "disabled":  # else the user knows
                _log.warning("W&B's files may be incomplete (%s); --resume mends them", error)


def _read_complete(folder: Path, mode: Mode) -> dict[str, str]:
    """What each complete run shows, by the run's name.

    A run whose file is gone or has another size is not complete, and where online is asked for,
    neither is one that was only written offline.
    """
    path = folder / COMPLETE_FILE
    if mode == "disabled" or not path.exists():
        return {}
    try:
        lines = {line["name"]: line for line in read_json_lines(path)}
        return {
            name: line["shows"]
            for name, line in lines.items()
            if line["mode"] == "online"
            or (mode == "offline" and _count_bytes(folder / line["folder"]) == line["num_bytes"])
        }
    except (DamagedLine, TypeError, KeyError):
        path.unlink()
        return {}


def _count_bytes(run_folder: Path) -> int:
    return sum(path.stat().st_size for path in run_folder.glob("*.wandb"))
