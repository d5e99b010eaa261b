"""Tasks by their name on the command line; one file a dataset."""

from collections.abc import Callable

from trainables.config import TaskOptions
from trainables.tasks.base import Task
from trainables.tasks.samsum import Samsum

TASKS: dict[str, Callable[[TaskOptions], Task]] = {
    "samsum": Samsum,
}
