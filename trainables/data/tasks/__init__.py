"""Tasks by their name on the command line; one file a dataset."""

from collections.abc import Callable

from trainables.config import TaskOptions
from trainables.data.rows import Task
from trainables.data.tasks.samsum import samsum
from trainables.data.tasks.table import TableTask
from trainables.data.tasks.turkish_tweets import TurkishTweets
from trainables.data.tasks.turkish_youtube import turkish_youtube
from trainables.data.tasks.wikipedia_pt import wikipedia_pt

TASKS: dict[str, Callable[[TaskOptions], Task]] = {
    "samsum": samsum,
    "turkish_youtube": turkish_youtube,
    "wikipedia_pt": wikipedia_pt,
    "turkish_tweets": TurkishTweets,
    "table": TableTask,
}
