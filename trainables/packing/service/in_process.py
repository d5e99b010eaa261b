"""One trial as a pack of one, in this process: the packed engine behind solo's contract."""

import math
from collections.abc import Callable

from trainables.config import TrialConfig, TrialReport
from trainables.errors import SweepAborted, TrialFailed
from trainables.models.memory import free_memory
from trainables.models.model_facts import read_model_facts
from trainables.packing.service.events import (
    Aborted,
    Failed,
    Finished,
    LeaseLost,
    Reported,
    Stopped,
)
from trainables.packing.service.host import PackHost
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.memory_model import count_eval_positions

_EVENT_WAIT_S = 60.0


def train(config: TrialConfig, report: Callable[[TrialReport], None]) -> None:
    """Train one trial to its end, reporting at every rung; as solo.train does.

    A trial that has a checkpoint resumes from it: its last report is sent again. report may raise
    SystemExit to stop the trial.

    Raises:
        TrialFailed: the loss or gradient is not finite, or a single row does not fit.
        SweepAborted: the disk is full, or the data cannot be read.
    """
    settings = config.settings
    facts = read_model_facts(settings.model)
    capacity = Capacity(  # one trial, with the batches that solo would use
        num_slots=1,
        max_rank=config.params.lora_rank,
        max_tokens=settings.micro_batch_size * settings.max_length_tokens,
        eval_tokens=settings.eval_batch_size * count_eval_positions(facts, settings),
        is_dequantised=False,
        predicted_gib=0.0,
    )
    free_memory()
    # nobody waits for the slot, so the lease never expires, however long a report takes
    host = PackHost(settings, capacity, math.inf, admit_wait_s=0.0, decision_wait_s=math.inf)
    lease = host.join(config)
    try:
        with host.run_in_thread():
            try:
                _forward_events(host, lease, report)
            finally:
                host.leave(lease)
    finally:
        free_memory()


def _forward_events(host: PackHost, lease: int, report: Callable[[TrialReport], None]) -> None:
    """Pass the trial's reports on until it ends, or until the host does."""
    while True:
        match host.take_event(lease, _EVENT_WAIT_S):
            case Reported(trial_report):
                report(trial_report)
            case Failed(reason):
                raise TrialFailed(reason)
            case Aborted(error, fix):
                raise SweepAborted(error, fix)
            case Finished() | Stopped() | LeaseLost():
                return
