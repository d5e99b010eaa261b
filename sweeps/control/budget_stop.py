"""Keeps a running search to its budget: no new trial, and none that comes too late."""

from collections.abc import Sequence

from ray.actor import ActorHandle

from sweeps.control import pack_pool
from sweeps.control.controller import TrialController
from sweeps.cost.budget import Budget
from sweeps.records.trials_csv import BUDGET_REASON


class BudgetStop:
    """Ends the search when its budget says so, and what still trains then.

    Args:
        actors: the sweep's packs, which are told of trials that end. Trials without a pack end at
            their next report.
        budget: None without a limit.
    """

    def __init__(
        self, controller: TrialController, actors: Sequence[ActorHandle], budget: Budget | None
    ) -> None:
        self._controller = controller
        self._actors = actors
        self._budget = budget
        self._stopped: set[str] = set()

    @property
    def is_due(self) -> bool:
        """Whether it is time to look at the clock again."""
        return self._budget is not None and self._budget.is_check_due()

    def enforce(self, running: Sequence[str] = ()) -> None:
        """Looks at the clock.

        Args:
            running: trials that Tune runs. One that was stopped before it had a place in a pack
                is told again.
        """
        if self._budget is None:
            return
        if not self._budget.allows_new_trial:
            self._controller.stop_search()
        for trial_id in self._budget.late_trials():
            self._controller.end(trial_id, "stopped", BUDGET_REASON)
            self._stopped.add(trial_id)
        told = dict.fromkeys(self._stopped.intersection(running), False)
        if told:
            pack_pool.decide(self._actors, 0, told)

    def restrict(self, should_continue: dict[str, bool]) -> dict[str, bool]:
        """By trial whether it should continue, of those that the search would continue."""
        if self._budget is None:
            return should_continue
        self.enforce()
        return {
            name: continues and name not in self._stopped
            for name, continues in should_continue.items()
        }
