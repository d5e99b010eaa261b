"""ASHA: which trials go on at a rung (arXiv 1810.05934, the variant that stops)."""

from collections.abc import Sequence

from trainables.config import Metric


class Asha:
    """Compares each report with those that other trials made at the same rung.

    A trial goes on when it is among the best 1 / reduction_factor of the trials that have
    reached the rung, itself included, and at least the best one always does. Values of
    different rungs are never compared.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: int, metric: Metric) -> None:
        self._metric = metric
        self._reduction_factor = reduction_factor
        self._last_rung = rungs[-1]
        self._values: dict[int, dict[str, float]] = {rung: {} for rung in rungs}

    def record(self, trial_id: str, step: int, value: float) -> None:
        """Notes a trial's value at a rung; a later value for the same rung replaces it.

        Raises:
            KeyError: step is not a rung.
        """
        self._values[step][trial_id] = value

    def keeps(self, trial_id: str, step: int) -> bool:
        """Whether a trial whose value at this rung is recorded goes on."""
        if step == self._last_rung:
            return True
        values = self._values[step]
        num_better = sum(self._metric.is_better(v, values[trial_id]) for v in values.values())
        return num_better < max(1, len(values) // self._reduction_factor)

    def standing(self, trial_id: str, step: int) -> str:
        """The trial's place at a rung in words, e.g. "place 3 of 5 at step 30"."""
        values = self._values[step]
        num_better = sum(self._metric.is_better(v, values[trial_id]) for v in values.values())
        return f"place {num_better + 1} of {len(values)} at step {step}"
