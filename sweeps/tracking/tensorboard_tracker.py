"""TensorBoard: a log folder a trial with its curves, and the HParams tab over all of them."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.summary.writer.record_writer import RecordWriter

from sweeps.config import SweepConfig
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.tracking import run_values
from trainables.config import Metric

FILE = "events.out.tfevents.0.sweep"
"""TensorBoard reads all files with tfevents in their names. A name that stays the same lets a
replay go on with the file of an earlier one."""

_STATUSES = {"failed": api_pb2.STATUS_FAILURE, None: api_pb2.STATUS_RUNNING}


class TensorboardTracker:
    """A Tracker that writes RUN/tensorboard.

    What a file holds depends on the log alone, to the byte: so a replay appends what it lacks, and
    writes a file again that is torn.

    Args:
        metric: what the HParams tab compares, with its best value.
    """

    name = "tensorboard"

    def __init__(
        self, config: SweepConfig, paths: RunPaths, metric: Metric, name: str, sweep_id: str
    ) -> None:
        self._folder = paths.tensorboard
        self._metric = metric
        self._sweep_name = name
        self._written: dict[str, tuple[object, ...]] = {}
        """By folder, what was written last of what changes."""

    def replay(self, events: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]) -> None:
        """Appends what the files lack."""
        times = run_values.list_times(events)
        for trial in trials:
            state = (len(trial.reports), trial.status)
            if self._written.get(trial.trial_id) != state:
                self._write(trial.trial_id, self._list_trial(trial, times))
                self._written[trial.trial_id] = state
        if trials and "" not in self._written:
            self._write("", self._list_experiment(trials[0], events[0]))
            self._written[""] = ()
        end = run_values.find_end(events)
        if end is not None and self._written.get("summary") != (end["time"],):
            time_s = run_values.read_time_ms(end) / 1000
            numbers, _ = run_values.split_numbers(end["values"])
            self._write("summary", [_make_scalars(numbers, 0, time_s)])
            self._written["summary"] = (end["time"],)

    def close(self, *, is_disk_trusted: bool) -> None:
        """Nothing is open; a file that lacks its end is found by the next replay."""

    def _list_experiment(self, trial: TrialRecord, first: dict[str, Any]) -> list[Event]:
        """What the HParams tab has columns for."""
        kinds = {bool: api_pb2.DATA_TYPE_BOOL, str: api_pb2.DATA_TYPE_STRING}
        metrics = (self._metric.name, f"best_{self._metric.name}")
        experiment = api_pb2.Experiment(
            name=self._sweep_name,
            hparam_infos=[
                api_pb2.HParamInfo(name=name, type=kinds.get(type(v), api_pb2.DATA_TYPE_FLOAT64))
                for name, v in _list_hparams(trial).items()
            ],
            metric_infos=[
                api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name)) for name in metrics
            ],
        )
        time_s = run_values.read_time_ms(first) / 1000
        data = HParamsPluginData(experiment=experiment)
        return [_make_hparams_event(metadata.EXPERIMENT_TAG, data, time_s)]

    def _list_trial(
        self, trial: TrialRecord, times: dict[tuple[str, str, int], int]
    ) -> list[Event]:
        """Seeds of one finalist are sessions of one group, which the HParams tab averages."""
        name = trial.trial_id
        began_s = times.get(("trial_started", name, 0), 0) / 1000
        start = SessionStartInfo(
            group_name=f"finals of {trial.final_of}" if trial.final_of else name,
            start_time_secs=began_s,
        )
        for key, value in _list_hparams(trial).items():
            kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
            setattr(start.hparams[key], kind, value)
        data = HParamsPluginData(session_start_info=start)
        events = [_make_hparams_event(metadata.SESSION_START_INFO_TAG, data, began_s)]
        for step, numbers in run_values.list_curve(trial, self._metric):
            events.append(_make_scalars(numbers, step, times["report", name, step] / 1000))
        if trial.status is not None:
            ended_s = times["trial_ended", name, 0] / 1000
            status = _STATUSES.get(trial.status, api_pb2.STATUS_SUCCESS)
            end = SessionEndInfo(status=status, end_time_secs=ended_s)
            data = HParamsPluginData(session_end_info=end)
            events.append(_make_hparams_event(metadata.SESSION_END_INFO_TAG, data, ended_s))
        return events

    def _write(self, name: str, events: Sequence[Event]) -> None:
        buffer = BytesIO()
        writer = RecordWriter(buffer)
        for event in (Event(file_version="brain.Event:2"), *events):
            writer.write(event.SerializeToString(deterministic=True))
        _append_missing(self._folder / name / FILE, buffer.getvalue())


def _append_missing(path: Path, content: bytes) -> None:
    """Makes content the file's, by appending where that will do: TensorBoard may be reading it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    there = path.read_bytes() if path.exists() else b""
    is_begun = content.startswith(there)
    with path.open("ab" if is_begun else "wb") as file:
        file.write(content[len(there) :] if is_begun else content)


def _list_hparams(trial: TrialRecord) -> dict[str, Any]:
    values = run_values.list_trial_values(trial)
    return {k: v for k, v in values.items() if k not in ("number", "final_of", "seed")}


def _make_scalars(numbers: dict[str, float], step: int, time_s: float) -> Event:
    values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
    return Event(wall_time=time_s, step=step, summary=Summary(value=values))


def _make_hparams_event(tag: str, data: HParamsPluginData, time_s: float) -> Event:
    value = Summary.Value(
        tag=tag,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return Event(wall_time=time_s, summary=Summary(value=[value]))
