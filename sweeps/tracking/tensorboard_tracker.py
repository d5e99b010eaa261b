"""TensorBoard: a log folder a trial with its curves, and the HParams tab over all of them."""

from collections.abc import Sequence
from io import BytesIO
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

from sweeps.records.trial_record import TrialRecord
from sweeps.tracking.run_values import (
    SUMMARY,
    TrackedRun,
    TrackedSweep,
    list_changed_runs,
    read_time_ms,
)

FILE = "events.out.tfevents.0.sweep"
"""TensorBoard reads all files with tfevents in their names. A name that stays the same lets a
replay go on with the file of an earlier one."""


class TensorboardTracker:
    """A Tracker that writes RUN/tensorboard.

    What a file holds depends on the log alone, to the byte: so a replay appends what it lacks, and
    writes a file again that is torn.
    """

    name = "tensorboard"

    def __init__(self, sweep: TrackedSweep) -> None:
        self._sweep = sweep
        self._written: dict[str, str] = {}
        self._has_columns = False

    def replay(self, events: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]) -> None:
        """Appends what the files lack."""
        for run in list_changed_runs(self._sweep, events, trials, self._written):
            if not self._has_columns and run.job_type != SUMMARY:
                self._write("", [self._make_columns(run, read_time_ms(events[0]))])
                self._has_columns = True
            self._write(run.name, _list_events(run))

    def close(self, *, is_disk_trusted: bool) -> None:
        """Nothing is open; a file that lacks its end is found by the next replay."""

    def _make_columns(self, run: TrackedRun, time_ms: int) -> Event:
        """What the HParams tab has columns for: any run has the same hyperparameters."""
        kinds = {bool: api_pb2.DATA_TYPE_BOOL, str: api_pb2.DATA_TYPE_STRING}
        metric = self._sweep.metric.name
        experiment = api_pb2.Experiment(
            name=self._sweep.name,
            hparam_infos=[
                api_pb2.HParamInfo(name=name, type=kinds.get(type(v), api_pb2.DATA_TYPE_FLOAT64))
                for name, v in _list_hparams(run).items()
            ],
            metric_infos=[
                api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name))
                for name in (metric, f"best_{metric}")
            ],
        )
        data = HParamsPluginData(experiment=experiment)
        return _make_hparams_event(metadata.EXPERIMENT_TAG, data, time_ms)

    def _write(self, name: str, events: Sequence[Event]) -> None:
        """Makes the events the file's, by appending where that will do: TensorBoard may be reading
        it."""
        buffer = BytesIO()
        writer = RecordWriter(buffer)
        for event in (Event(file_version="brain.Event:2"), *events):
            writer.write(event.SerializeToString(deterministic=True))
        path, content = self._sweep.paths.tensorboard / name / FILE, buffer.getvalue()
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.read_bytes() if path.exists() else b""
        is_begun = content.startswith(there)
        with path.open("ab" if is_begun else "wb") as file:
            file.write(content[len(there) :] if is_begun else content)


def _list_events(run: TrackedRun) -> list[Event]:
    """Curves, and of a trial its session: those of one finalist are a group, which the HParams tab
    averages."""
    events = []
    for step, time_ms, numbers in run.points:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        events.append(Event(wall_time=time_ms / 1000, step=step, summary=Summary(value=values)))
    if run.job_type == SUMMARY:
        return events
    of = run.values.get("final_of")
    start = SessionStartInfo(
        group_name=f"finals of {of}" if of else run.name, start_time_secs=run.began_ms / 1000
    )
    for key, value in _list_hparams(run).items():
        kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
        setattr(start.hparams[key], kind, value)
    data = HParamsPluginData(session_start_info=start)
    events.insert(0, _make_hparams_event(metadata.SESSION_START_INFO_TAG, data, run.began_ms))
    if run.ended_ms is not None:
        is_failed = run.status == "failed"
        status = api_pb2.STATUS_FAILURE if is_failed else api_pb2.STATUS_SUCCESS
        end = SessionEndInfo(status=status, end_time_secs=run.ended_ms / 1000)
        data = HParamsPluginData(session_end_info=end)
        events.append(_make_hparams_event(metadata.SESSION_END_INFO_TAG, data, run.ended_ms))
    return events


def _list_hparams(run: TrackedRun) -> dict[str, Any]:
    return {k: v for k, v in run.values.items() if k not in ("number", "final_of", "seed")}


def _make_hparams_event(tag: str, data: HParamsPluginData, time_ms: int) -> Event:
    value = Summary.Value(
        tag=tag,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return Event(wall_time=time_ms / 1000, summary=Summary(value=[value]))
