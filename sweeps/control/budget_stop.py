"""Keeps a running search to its budget: no new trial, and none that comes too late."""

import logging
import time
from collections.abc import Callable

from sweeps.control.controller import TrialController
from sweeps.cost.eta import Eta
from sweeps.records.request_file import write_point
from sweeps.records.trials_csv import BUDGET_REASON

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
"""Between two looks at the clock."""


class BudgetStop:
    """Ends the search when its budget says so, and what still trains then; finals that have begun
    run to their end.
    """

    def __init__(
        self,
        controller: TrialController,
        eta: Eta,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._controller = controller
        self._eta = eta
        self._now_s = now_s
        self._looked_s = -CHECK_INTERVAL_S
        self._stopped: set[str] = set()

    @property
    def is_due(self) -> bool:
        """Whether it is time to look at the clock again."""
        return self._now_s() - self._looked_s >= CHECK_INTERVAL_S

    def enforce(self) -> None:
        """Looks at the clock, if there is a budget."""
        self._looked_s = self._now_s()
        if self._eta.budget_s is None:
            return
        if self._controller.is_open and not self._eta.allows_new_trial():
            if added := "; ".join(map(write_point, self._controller.search.added)):
                logger.warning("added, and left by the budget to a resume with more: %s", added)
            self._controller.stop_search()
        for trial_id in self._eta.find_late_trials():
            self._controller.end(trial_id, "stopped", BUDGET_REASON)
            self._stopped.add(trial_id)

    def restrict(self, should_continue: dict[str, bool]) -> dict[str, bool]:
        """By trial whether it should continue, of those that the search would continue."""
        self.enforce()
        return {
            name: continues and name not in self._stopped
            for name, continues in should_continue.items()
        }
