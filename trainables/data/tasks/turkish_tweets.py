"""turkish_tweets: whether a Turkish tweet is neutral, negative or positive (three labels)."""
# ruff: noqa: RUF001 - Turkish has a dotless i

from dataclasses import dataclass

from trainables.config import Data, Metric, TaskOptions
from trainables.data.labels import read_names
from trainables.data.reading import TableSpec, read_data, read_splits
from trainables.data.rows import Splits, refuse_unused
from trainables.data.stratified import fold_case
from trainables.metrics.registry import rank_by

TEXT, LABEL = "Tweets", "Duygu"
LABEL_NAMES = ("0=nötr", "1=olumsuz", "2=olumlu")
WORDS = {
    "0": ("nötr", "notr", "tarafsız", "neutral"),
    "1": ("olumsuz", "negatif", "negative"),
    "2": ("olumlu", "pozitif", "positive"),
}
"""How else the values are written; case does not matter."""
USED = (
    *("input", "target", "prompt", "label_names", "balance", "metric", "metric_mode"),
    *("sheet", "columns", "encoding", "skip_rows", "max_rows"),
)
"""Options that are heeded."""
QUESTION = "Aşağıdaki tweetin duygusu nedir? Yalnızca şunlardan biriyle yanıtla: {labels}."


@dataclass(frozen=True)
class TurkishTweets:
    """A table of tweets and sentiments; there is no dataset of this kind under a free licence."""

    options: TaskOptions
    name: str = "turkish_tweets"
    dataset: str = ""

    def __post_init__(self) -> None:
        refuse_unused(self.options, self.name, USED)
        _ = self._label_names, self.metric

    @property
    def metric(self) -> Metric:
        """The accuracy, or what the options say."""
        return rank_by(self.options, "accuracy")

    def load(self, data: Data) -> Splits:
        """Read, clean and split the tweets of a table with the columns Tweets and Duygu.

        Raises:
            SweepAborted: no data is named, it cannot be read, or its rows do not do.
        """
        names = self._label_names
        spec = TableSpec(
            input=self.options.input or TEXT,
            target=self.options.target or LABEL,
            kind="classify",
            prompt=self.options.prompt,
            question=QUESTION,
            language="turkish",
            label_names=names,
            label_words={fold_case(word): v for v in names for word in WORDS.get(v, ())},
        )
        return read_splits(self.name, read_data(self.name, data, self.options), spec)

    @property
    def _label_names(self) -> dict[str, str]:
        return read_names(self.options.label_names or LABEL_NAMES)
