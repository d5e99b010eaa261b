"""What a pack writes into its trials' folders, beside their scoring, and where it goes on from."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from trainables.checkpoint import (
    PACK_STATE_NAMES,
    WRITE_ERRORS,
    full_disk,
    keep_last,
    prune_to_adapter,
    resumable,
    write_report,
)
from trainables.config import TrialConfig, TrialReport
from trainables.data.rows import Row
from trainables.metrics.eval_result import EvalResult, write_answers
from trainables.packing.compute.pack import Pack
from trainables.packing.service.leases import Lease
from trainables.packing.service.tenant import Tenant
from trainables.packing.service.writers import MOST_WRITERS, Staging, Writers


class Saver:
    """Has threads write the checkpoints of a pack's trials. Used by one thread.

    A future that it gives says whether the trial is to be trained still, or raises SweepAborted
    where the disk is full.

    Args:
        pack: whose slots are saved.
    """

    def __init__(self, pack: Pack) -> None:
        self._pack = pack
        self._writers = Writers(pack.slot_bytes, pack.new_staging)
        self._completers = ThreadPoolExecutor(MOST_WRITERS, thread_name_prefix="completer")
        self._saving: dict[int, Future[bool]] = {}

    def begin_save(self, tenants: Sequence[Tenant]) -> dict[int, Future[bool]]:
        """Save the present steps of trials; the futures by slot."""
        self._saving = {
            tenant.slot: self._writers.begin(self._save_of(tenant)) for tenant in tenants
        }
        return self._saving

    def wait_saved(self, slot: int) -> None:
        """Until nothing of the slot is being saved: its trial must stay in it so long."""
        if slot in self._saving:
            wait([self._saving[slot]])

    def wait_all_saved(self) -> None:
        """The same of every slot."""
        wait(self._saving.values())

    def begin_completion(
        self, tenant: Tenant, report: TrialReport, rows: Sequence[Row], scored: EvalResult
    ) -> Future[bool]:
        """Make the checkpoint of a report count; at the trial's end, with the answers to rows."""
        is_at_end = tenant.is_at_end

        def write() -> None:
            if is_at_end:
                write_answers(report.checkpoint, rows, scored)
            write_report(report)
            keep_last(tenant.trial.folder)
            if is_at_end:
                prune_to_adapter(tenant.trial.folder)

        return self._completers.submit(while_live, tenant.lease, write)

    def _save_of(self, tenant: Tenant) -> Callable[[Staging], bool]:
        slot, folder = tenant.slot, tenant.checkpoint
        return lambda staging: while_live(
            tenant.lease, lambda: self._pack.save(slot, folder, staging)
        )


def while_live(lease: Lease, do: Callable[[], None]) -> bool:
    """Do something in the folder of a trial that is to be trained still; whether it is. In any
    thread.

    Raises:
        SweepAborted: the disk is full.
    """
    with lease.folder_lock:
        try:
            if lease.is_live:
                do()
        except WRITE_ERRORS as error:
            aborted = full_disk(lease.trial.folder, error)
            if aborted is None:
                raise
            raise aborted from error
        return lease.is_live


def last_report(trial: TrialConfig) -> TrialReport | None:
    """What the trial goes on from, or None; its folder holds nothing else then."""
    max_steps = trial.settings.max_steps
    last = resumable(trial.folder, max_steps, PACK_STATE_NAMES)
    if last is not None and last.step >= max_steps:
        prune_to_adapter(trial.folder)
    return last
