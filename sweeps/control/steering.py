"""Does what users ask of a running search, each request once, also after the driver was killed."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from sweeps.control.controller import TrialController
from sweeps.control.resolve_request import resolve
from sweeps.records.events import EventLog, list_waiting_points, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.request_file import Request, RequestReader
from sweeps.records.trials_csv import FINISH_REASON, STOP_REASON
from trainables.errors import SweepAborted, get_first_line

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
"""Between two looks into the file of requests."""


class Steering:
    """Takes up requests. The log has what one comes to before it is done.

    Args:
        log: of the sweep.
        events: of the sweep's earlier processes.
        reader: of the requests that these do not answer.
        pending: those of them that it has read already.
    """

    def __init__(
        self,
        controller: TrialController,
        paths: RunPaths,
        log: EventLog,
        events: Sequence[dict[str, Any]],
        reader: RequestReader,
        pending: Sequence[Request] = (),
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._controller = controller
        self._paths = paths
        self._log = log
        self._earlier = [e for e in events if e["kind"] == "asked" and not e["refused"]]
        self._waiting = list_waiting_points(events)
        self._pending = pending
        self._reader = reader
        self._now_s = now_s
        self._looked_s = -CHECK_INTERVAL_S

    @property
    def is_due(self) -> bool:
        """Whether it is time to look for requests again."""
        return self._now_s() - self._looked_s >= CHECK_INTERVAL_S

    def resume(self) -> None:
        """Completes what an earlier process has written down, and takes up what was asked since.

        The number of trials is the config's, since a resume may change it.
        """
        for point in self._waiting:
            self._controller.search.enqueue(point, is_asked=True)
        for event in self._earlier:
            self._stop(event["stop"], event["finish"])
        for request in self._pending:
            self._take_up(request)
        self.poll()

    def poll(self) -> None:
        """Takes up what is new."""
        self._looked_s = self._now_s()
        for request in self._reader.read_new():
            self._take_up(request)

    def _take_up(self, request: Request) -> None:
        self._controller.release_starts()
        words = request.describe()
        asked = {"id": request.id, "request": words, "finish": request.finish}
        events = read_events(self._paths.events)
        try:
            resolved = resolve(
                request, self._controller.config, events, is_open=self._controller.is_open
            )
        except Exception as error:  # whatever a request says, the sweep goes on without it
            refused = (
                error.error
                if isinstance(error, SweepAborted)
                else f"{type(error).__name__}: {get_first_line(error)}"
            )
            self._log.append("asked", **asked, stop=[], add=None, refused=refused)
            logger.warning("asked: %s; refused: %s", words, refused)
            return
        self._log.append("asked", **asked, **asdict(resolved), refused="")
        if resolved.add:
            self._controller.search.enqueue(resolved.add, is_asked=True)
        outcome = resolved.note or f"the search has {resolved.num_trials} trials now"
        self._controller.take_request(f"{words}; {outcome}", resolved.num_trials)
        if request.finish:
            self._controller.stop_search()
        self._stop(resolved.stop, request.finish)

    def _stop(self, trial_ids: Sequence[str], is_finish: bool) -> None:
        for trial_id in trial_ids:
            self._controller.end(trial_id, "stopped", FINISH_REASON if is_finish else STOP_REASON)
