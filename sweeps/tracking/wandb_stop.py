"""W&B's Stop button: whose run it was pressed for, seen within seconds.

wandb itself tells of it through Settings.stop_fn, but late: its process hears of it with the next
rows, or every 30 s, and is asked every 15 s. So the server is asked for all open runs at once.
"""

import base64
import json
import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from sweeps.tracking.follow_log import describe_error
from trainables.errors import SweepAborted

POLL_INTERVAL_S = 4.0
COALESCE_S = 0.5
TIMEOUT_S = 5.0
MAX_FAILURES = 5
"""Polls in a row without an answer, until that is told."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """Where W&B has a run."""

    server: str
    """URL of its API."""
    api_key: str
    entity: str
    project: str
    run_id: str


def list_stopped(runs: Mapping[str, OpenRun]) -> set[str]:
    """Names of the runs whose Stop button was pressed.

    Args:
        runs: by name, all of one project.

    Raises:
        OSError, ValueError, HTTPException: the server does not answer, or not this.
    """
    (place, *_) = runs.values()
    variables = {f"r{n}": run.run_id for n, run in enumerate(runs.values())}
    declared = "".join(f", ${key}: String!" for key in variables)
    asked = " ".join(f"{key}: run(name: ${key}) {{ stopped }}" for key in variables)
    query = (
        f"query StoppedRuns($entity: String!, $project: String!{declared}) "
        f"{{ project(name: $project, entityName: $entity) {{ {asked} }} }}"
    )
    variables |= {"entity": place.entity, "project": place.project}
    answer = ask_server(place.server, place.api_key, query, variables)
    try:
        by_key = answer["data"]["project"]
        return {name for n, name in enumerate(runs) if (by_key[f"r{n}"] or {}).get("stopped")}
    except (AttributeError, KeyError, TypeError):
        raise ValueError(f"the server says {str(answer)[:200]}") from None


def ask_server(server: str, api_key: str, query: str, variables: Mapping[str, str]) -> Any:
    """What the server answers to a GraphQL query.

    Raises:
        OSError, ValueError, HTTPException: it does not answer, or refuses.
    """
    token = base64.b64encode(f"api:{api_key}".encode()).decode()
    request = urllib.request.Request(
        f"{server.rstrip('/')}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {token}"},
    )
    with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
        return json.load(answer)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an HTTPError: urllib would give the key to whatever host it names."""

    def redirect_request(self, *_: object) -> None:
        """Follows none."""


_OPENER = urllib.request.build_opener(_NoRedirect)


class StopButtons:
    """Watches open runs, in a thread of its own, and tells the names of those whose button was
    pressed, once."""

    def __init__(self, stop: Callable[[str], None]) -> None:
        self._stop = stop
        self._runs: dict[str, OpenRun] = {}
        self._pressed: set[str] = set()
        self._lock = threading.Lock()
        self._is_due = threading.Event()
        self._thread: threading.Thread | None = None
        self._num_failures = 0
        """Polls in a row without an answer."""
        self._has_warned = False

    def watch(self, name: str, run: OpenRun) -> None:
        """Adds an open run."""
        with self._lock:
            self._runs[name] = run
            self._is_due.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._poll, name="wandb stop", daemon=True)
                self._thread.start()

    def forget(self, name: str) -> None:
        """Leaves out a run that has ended."""
        with self._lock:
            self._runs.pop(name, None)

    def press(self, name: str) -> None:
        """Takes up that the button of a run was pressed, from wherever that is known."""
        with self._lock:
            if name in self._pressed:
                return
            self._pressed.add(name)
        self._stop(name)

    def clear(self) -> None:
        """Leaves out all runs; the thread ends, until another run is watched."""
        with self._lock:
            self._runs.clear()

    def _poll(self) -> None:
        while True:
            time.sleep(COALESCE_S)  # runs are opened together
            self._is_due.clear()
            with self._lock:
                if not self._runs:
                    self._thread = None
                    return
                runs = {name: self._runs[name] for name in self._runs.keys() - self._pressed}
            try:
                for name in list_stopped(runs) if runs else ():
                    self.press(name)
                self._num_failures = 0
            except (OSError, ValueError, HTTPException, SweepAborted) as error:
                # wandb tells later what is missed here. A disk that is full ends the sweep.
                self._num_failures += 1
                if self._num_failures == MAX_FAILURES and not self._has_warned:
                    self._has_warned = True
                    _log.warning(
                        "W&B does not say which runs to stop (%s): its Stop button may take a "
                        "minute; python -m sweeps.ask RUN --stop TRIAL does not",
                        describe_error(error),
                    )
            self._is_due.wait(POLL_INTERVAL_S)
