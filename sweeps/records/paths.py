"""Every file that a sweep writes, each a property of one object."""

from dataclasses import dataclass
from pathlib import Path

from trainables.errors import REPEAT, SweepAborted
from trainables.files import write_atomic


@dataclass(frozen=True)
class RunPaths:
    """The files of one sweep, under its own folder."""

    folder: Path

    @classmethod
    def of(cls, runs_dir: str, name: str) -> "RunPaths":
        """The run called name; the folder is made absolute, because workers have other cwds."""
        return cls(Path(runs_dir).absolute() / name)

    @property
    def sweep_json(self) -> Path:
        """Resolved config, seed, versions, commit and hardware; written before the first trial."""
        return self.folder / "sweep.json"

    @property
    def rows(self) -> Path:
        """The prepared rows, which all that train and score read."""
        return self.folder / "rows"

    @property
    def events(self) -> Path:
        """Append-only log: one line a report or status change."""
        return self.folder / "events.jsonl"

    @property
    def trials_csv(self) -> Path:
        """A row a trial."""
        return self.folder / "trials.csv"

    @property
    def finals_csv(self) -> Path:
        """A row a run of the finals, those of the search that count there included."""
        return self.folder / "finals.csv"

    @property
    def finals_json(self) -> Path:
        """Who won the finals, and how sure that is."""
        return self.folder / "finals.json"

    @property
    def optuna_db(self) -> Path:
        """The study, as optuna-dashboard opens it."""
        return self.folder / "optuna.db"

    @property
    def best(self) -> Path:
        """PEFT folder of the best adapter, with tokenizer and model card."""
        return self.folder / "best"

    @property
    def answers(self) -> Path:
        """A folder a model that was tested, with what it said to each row."""
        return self.folder / "answers"

    @property
    def checkpoints(self) -> Path:
        """A folder a trial, with its last reports' adapters."""
        return self.folder / "checkpoints"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the sweep, so that no second one resumes it."""
        return self.folder / ".lock"

    def trial(self, trial_id: str) -> Path:
        """Where one trial keeps its checkpoints."""
        return self.checkpoints / trial_id


def write_file(path: Path, content: str) -> None:
    """Writes a file of the run atomically.

    Raises:
        SweepAborted: the disk is full or gone; an older file stays.
    """
    try:
        write_atomic(path, content)
    except OSError as refused:
        raise SweepAborted(
            f"{path} cannot be written: {refused.strerror}",
            f"free space there, {REPEAT}",
        ) from None
