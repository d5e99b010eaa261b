"""Tasks by their name on the command line; one file a dataset."""

from collections.abc import Callable

from trainables.config import TaskOptions
from trainables.data.rows import Task
from trainables.data.tasks.samsum import Samsum
from trainables.data.tasks.table import TableTask
from trainables.data.tasks.turkish_tweets import TurkishTweets
from trainables.data.tasks.turkish_youtube import TurkishYoutube
from trainables.data.tasks.wikipedia_pt import WikipediaPt

TASKS: dict[str, Callable[[TaskOptions], Task]] = {
    "samsum": Samsum,
    "turkish_youtube": TurkishYoutube,
    "wikipedia_pt": WikipediaPt,
    "turkish_tweets": TurkishTweets,
    "table": TableTask,
}
