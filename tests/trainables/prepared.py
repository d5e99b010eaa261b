"""Rows that a test's trials train on, prepared as a sweep's checks prepare them."""

from pathlib import Path

from trainables.config import TaskOptions
from trainables.data.prepared_rows import write_rows
from trainables.data.tasks import TASKS


def prepare_rows(
    folder: Path, data: Path, task: str = "samsum", options: TaskOptions | None = None
) -> Path:
    """Writes the task's rows of data into folder / "rows", unless they are there; returns it."""
    rows_dir = folder / "rows"
    if not rows_dir.exists():
        write_rows(rows_dir, TASKS[task](options or TaskOptions()).load(str(data)))
    return rows_dir
