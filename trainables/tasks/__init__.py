"""Tasks by their name on the command line; one file a dataset."""

from trainables.tasks.base import Task
from trainables.tasks.samsum import Samsum

TASKS: dict[str, Task] = {
    "samsum": Samsum(),
}
