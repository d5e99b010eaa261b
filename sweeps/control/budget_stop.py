"""Keeps a running search to its budget: no new trial, and none that comes too late."""

import time
from collections.abc import Callable, Sequence

from ray.actor import ActorHandle

from sweeps.control import pack_pool
from sweeps.control.controller import TrialController
from sweeps.cost.eta import Eta
from sweeps.records.trials_csv import BUDGET_REASON

CHECK_INTERVAL_S = 1.0
"""Between two looks at the clock."""


class BudgetStop:
    """Ends the search when its budget says so, and what still trains then; finals that have begun
    run to their end.

    Args:
        actors: the sweep's packs, which are told of trials that end. Trials without a pack end at
            their next report.
        eta: knows who comes too late.
    """

    def __init__(
        self,
        controller: TrialController,
        actors: Sequence[ActorHandle],
        eta: Eta,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._controller = controller
        self._actors = actors
        self._eta = eta
        self._now_s = now_s
        self._looked_s = -CHECK_INTERVAL_S
        self._stopped: set[str] = set()

    @property
    def is_due(self) -> bool:
        """Whether it is time to look at the clock again."""
        return self._eta.budget_s is not None and self._now_s() - self._looked_s >= CHECK_INTERVAL_S

    def enforce(self, running: Sequence[str] = ()) -> None:
        """Looks at the clock.

        Args:
            running: trials that Tune runs. One that was stopped before it had a place in a pack
                is told again.
        """
        self._looked_s = self._now_s()
        if not self._eta.allows_new_trial():
            self._controller.stop_search()
        for trial_id in self._eta.late_trials():
            self._controller.end(trial_id, "stopped", BUDGET_REASON)
            self._stopped.add(trial_id)
        told = dict.fromkeys(self._stopped.intersection(running), False)
        if told:
            pack_pool.decide(self._actors, 0, told)

    def restrict(self, should_continue: dict[str, bool]) -> dict[str, bool]:
        """By trial whether it should continue, of those that the search would continue."""
        self.enforce()
        return {
            name: continues and name not in self._stopped
            for name, continues in should_continue.items()
        }
