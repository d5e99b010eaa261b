"""A trial's training rows in the common order, laid out for a sequential sampler."""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from trainables.config import TrainingSettings
from trainables.data.order import training_order
from trainables.data.tokens import Example

if TYPE_CHECKING:
    import datasets


class Batches:
    """The examples of every step of a trial; which they are depends on the sweep alone."""

    def __init__(self, examples: Sequence[Example], settings: TrainingSettings) -> None:
        lengths = [len(example.input_ids) for example in examples]
        num_rows = settings.max_steps * settings.batch_size
        self.order = training_order(lengths, settings.batch_size, num_rows, settings.seed)
        self.longest = max(lengths)
        """Tokens of the longest row."""
        self._examples = examples
        self._batch_size = settings.batch_size
        self._tokens = [0, *accumulate(lengths[row] for row in self.order)]

    def step_rows(self, step: int) -> list[Example]:
        """Examples of the step-th optimizer step, counted from 1."""
        end = step * self._batch_size
        return [self._examples[row] for row in self.order[end - self._batch_size : end]]

    def tokens(self, step: int) -> int:
        """Real tokens of the first step steps."""
        return self._tokens[step * self._batch_size]

    def epoch(self, step: int) -> float:
        """Passes over the rows after the first step steps."""
        return step * self._batch_size / len(self._examples)

    def dataset(self) -> "datasets.Dataset":
        """All steps' rows in order, as token columns that SFTTrainer takes as they are."""
        import datasets  # half a second to load, and a pack does without

        columns = {
            "input_ids": [example.input_ids for example in self._examples],
            "labels": [example.labels for example in self._examples],
        }
        return datasets.Dataset.from_dict(columns).select(self.order)
