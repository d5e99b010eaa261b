"""Every file that a sweep writes, each an attribute of one object."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from trainables.errors import REPEAT, SweepAborted, find_disk_fault


class RunPaths:
    """The files of one sweep, under its own folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sweep_json = folder / "sweep.json"
        """Resolved config, seed, versions, commit and hardware; written before the first trial."""
        self.rows = folder / "rows"
        """The prepared rows, which all that train and score read."""
        self.events = folder / "events.jsonl"
        """Append-only log: one line a report or status change."""
        self.requests = folder / "requests.jsonl"
        """Append-only: one line a request of a user to the sweep that runs."""
        self.heartbeat = folder / "heartbeat.json"
        """Written every few seconds while the sweep runs: the time left, GPUs and packs."""
        self.trials_csv = folder / "trials.csv"
        """A row a trial."""
        self.finals_csv = folder / "finals.csv"
        """A row a run of the finals."""
        self.finals_json = folder / "finals.json"
        """Who won the finals, and how sure that is."""
        self.optuna_db = folder / "optuna.db"
        """The study, as optuna-dashboard opens it."""
        self.report = folder / "report.html"
        """What was found, for people: one file that opens without a network."""
        self.best = folder / "best"
        """PEFT folder of the best adapter, with tokenizer and model card."""
        self.answers = folder / "answers"
        """A folder a model that was tested, with what it said to each row."""
        self.checkpoints = folder / "checkpoints"
        """A folder a trial, with its last reports' adapters."""
        self.mlruns = folder / "mlruns"
        """MLflow's database and artifacts, unless it has a server."""
        self.tensorboard = folder / "tensorboard"
        """TensorBoard's log folders."""
        self.trackio = folder / "trackio"
        """Trackio's database, unless TRACKIO_DIR names another folder."""
        self.lock = folder / ".lock"
        """Held by the process that runs the sweep, so that no second one resumes it."""

    @classmethod
    def from_name(cls, runs_dir: str, name: str) -> "RunPaths":
        """The run called name; the folder is made absolute, because workers have other cwds."""
        return cls(Path(runs_dir).absolute() / name)

    @property
    def study_url(self) -> str:
        """The study's database, for SQLAlchemy and optuna-dashboard."""
        return f"sqlite:///{quote(str(self.optuna_db))}"

    @property
    def mlflow_url(self) -> str:
        """The database of MLflow, unless it has a server."""
        return f"sqlite:///{quote(str(self.mlruns / 'mlflow.db'))}"

    def get_trial_folder(self, trial_id: str) -> Path:
        """Where one trial keeps its checkpoints."""
        return self.checkpoints / trial_id


OF_TRACKERS = ("wandb", "tune", "mlruns", "trackio", "tensorboard")
"""Folders whose content is written and read by others; W&B keeps links in its own."""


def find_run(folder: Path, *, has_checkpoints: bool = True) -> RunPaths:
    """The files of a run that the user names; it may have come from anywhere.

    Args:
        has_checkpoints: whether they are looked at too; of a large sweep they are thousands.

    Raises:
        SweepAborted: a link leads out of it. Any file of this user could be sent, overwritten or
            deleted in the run's name.
    """
    folder = folder.expanduser().absolute()
    top = os.path.realpath(folder)
    left_out = OF_TRACKERS if has_checkpoints else (*OF_TRACKERS, "checkpoints")
    unseen = [top]
    while unseen:
        place = unseen.pop()
        entries: list[os.DirEntry[str]] = []
        with suppress(OSError), os.scandir(place) as listed:  # a sweep that runs deletes some
            entries = list(listed)
        for entry in entries:  # each knows its type, so that NFS is asked once a folder
            with suppress(OSError):  # what a lost disk does not show, nobody can follow
                if entry.is_symlink():
                    _check_link(entry.path, top)
                is_left_out = place == top and entry.name in left_out
                if entry.is_dir(follow_symlinks=False) and not is_left_out:
                    unseen.append(entry.path)
    return RunPaths(folder)


def _check_link(link: str, top: str) -> None:
    target = os.path.realpath(link)
    if not Path(target).is_relative_to(top):
        raise SweepAborted(
            f"{link} is a link to {target}, which is not in the run",
            "put the file or folder itself there; links out of a run are not followed",
        )


@contextmanager
def abort_if_unwritable(path: Path) -> Iterator[None]:
    """What keeps a file or folder of the run from being written ends the sweep.

    Raises:
        SweepAborted: the disk is full or gone, or the file is another user's.
    """
    try:
        yield
    except OSError as refused:
        error = f"cannot write {path}: {refused.strerror}; what was written before is kept"
        fix = "make it a file that this user may write"
        if fault := find_disk_fault(refused):
            fix = fault.remedy
        elif refused.errno == errno.ENOENT:
            fix = "put its folder there"
        raise SweepAborted(error, f"{fix}, {REPEAT}") from refused
