"""Tasks by their name on the command line; one file a dataset."""

from collections.abc import Callable

from trainables.config import TaskOptions
from trainables.tasks.base import Task
from trainables.tasks.samsum import Samsum
from trainables.tasks.table import Table
from trainables.tasks.turkish_tweets import TurkishTweets
from trainables.tasks.turkish_youtube import TurkishYoutube
from trainables.tasks.wikipedia_pt.task import WikipediaPt

TASKS: dict[str, Callable[[TaskOptions], Task]] = {
    "samsum": Samsum,
    "turkish_youtube": TurkishYoutube,
    "wikipedia_pt": WikipediaPt,
    "turkish_tweets": TurkishTweets,
    "table": Table,
}
