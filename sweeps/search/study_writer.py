"""The Optuna study in its database: a replay of the event log, for dashboards and for its users."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.lora import LoraSpace
from sweeps.records.schemas import Status
from sweeps.records.trial_record import TrialRecord
from sweeps.search.report_sampler import OUTSIDE
from sweeps.search.storage import open_storage
from sweeps.search.study import STATES
from trainables.config import Metric


class StudyWriter:
    """A Tracker: whatever becomes of the database, it holds up nothing, and is brought up to date
    by a later replay. The search asks a study of its own, in memory.

    Args:
        url: of the database, in which open_storage has made the study of this name.
    """

    name = "optuna"

    def __init__(self, url: str, name: str, space: LoraSpace, metric: Metric) -> None:
        self._url = url
        self._study = name
        self._space = space
        self._metric = metric
        self._written: dict[int, tuple[int, Status | None]] = {}
        """Reports and status of trials by number, as the study has them."""

    def replay(self, events: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]) -> None:
        """Writes what the study lacks of the search's trials."""
        storage = self._storage
        try:
            for record in trials:
                now = (len(record.reports), record.status)
                if record.final_of is None and self._written.get(record.number) != now:
                    self._write(record)
                    self._written[record.number] = now
        finally:
            storage.remove_session()  # it belongs to this thread

    @cached_property
    def _storage(self) -> RDBStorage:
        return open_storage(self._url, self._study, self._metric, is_resumed=True)

    @cached_property
    def _study_id(self) -> int:
        return self._storage.get_study_id_from_name(self._study)

    def close(self, *, is_disk_trusted: bool) -> None:
        """Does nothing: each trial is written at once."""

    def _write(self, record: TrialRecord) -> None:
        trial = freeze_trial(record, self._space, self._metric)
        trial_id = self._find_id(record.number)
        if trial_id is None:
            if record.number and self._find_id(record.number - 1) is None:  # the log has lost lines
                for _ in range(self._storage.get_n_trials(self._study_id), record.number):
                    failed = create_trial(state=TrialState.FAIL)
                    self._storage.create_new_trial(self._study_id, failed)
            self._storage.create_new_trial(self._study_id, trial)
            return
        stored = self._storage.get_trial(trial_id)
        if not stored.params.items() <= trial.params.items():
            raise ValueError(
                f"the study's trial {record.number} has other values than that of the event log"
            )
        if stored.state.is_finished():
            return
        for name in trial.params.keys() - stored.params.keys():  # by a version that drew here
            distribution = trial.distributions[name]
            value = distribution.to_internal_repr(trial.params[name])
            self._storage.set_trial_param(trial_id, name, value, distribution)
        for step in sorted(trial.intermediate_values.keys() - stored.intermediate_values.keys()):
            value = trial.intermediate_values[step]
            self._storage.set_trial_intermediate_value(trial_id, step, value)
        for key in trial.user_attrs.keys() - stored.user_attrs.keys():
            self._storage.set_trial_user_attr(trial_id, key, trial.user_attrs[key])
        if stored.state != trial.state:
            self._storage.set_trial_state_values(trial_id, trial.state, trial.values)

    def _find_id(self, number: int) -> int | None:
        try:
            return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        except KeyError:  # to ask how many there are would read all of them
            return None


def freeze_trial(record: TrialRecord, space: LoraSpace, metric: Metric) -> FrozenTrial:
    """What Optuna has of a trial: COMPLETE, PRUNED with its last value, FAIL without one."""
    inside, outside = space.split_inside(space.find_point(vars(record.params)))
    attributes = {"reason": record.reason, OUTSIDE: outside}
    state = STATES[record.status] if record.status else TrialState.RUNNING
    has_value = state in (TrialState.COMPLETE, TrialState.PRUNED)
    return create_trial(
        state=state,
        value=record.get_value(metric) if has_value else None,
        params=inside,
        distributions={name: one for name, one in space.distributions.items() if name in inside},
        user_attrs={"lora_alpha": record.params.lora_alpha}
        | {name: value for name, value in attributes.items() if value},
        intermediate_values=record.get_values(metric),
    )
