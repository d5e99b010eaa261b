"""The trackers that --track names: what can be found wrong with them, and how each is made."""

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sweeps.config import SweepConfig
from sweeps.records.paths import RunPaths
from sweeps.records.redact import hide_secrets, redact
from sweeps.records.trial_record import TrialRecord
from sweeps.search.study_writer import StudyWriter
from sweeps.tracking.follow_log import Tracker, describe_error
from sweeps.tracking.run_values import TrackedSweep
from sweeps.tracking.wandb_tracker import WandbTracker
from trainables.errors import SweepAborted
from trainables.shell import write_command

CLASSES = {
    "mlflow": "MlflowTracker",
    "trackio": "TrackioTracker",
    "tensorboard": "TensorboardTracker",
}
"""By package, which is also the name of the extra and of the file; wandb is always there."""
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # its own 7 would take minutes
}
"""What the libraries read when they are loaded, unless the user has set it."""


def check_trackers(config: SweepConfig, paths: RunPaths) -> None:
    """Refuses trackers that are not installed, and a server that does not answer."""
    for name in config.trackers:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a mere folder of that name
            raise SweepAborted(
                f"--track {name} needs the package {name}, which is not installed",
                f"pip install '.[{name}]'; or leave it out of --track",
            )
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if "mlflow" in config.trackers and uri and not uri.startswith("sqlite:"):
        try:
            _load_tracker("mlflow").open_client(paths).search_experiments(max_results=1)
        except Exception as refused:  # MLflow, requests and SQLAlchemy raise many kinds
            raise SweepAborted(
                f"MLflow cannot be reached at {redact(uri)}: {describe_error(refused)}",
                "check MLFLOW_TRACKING_URI and that its server runs, unset it to write "
                "RUN/mlruns, or leave mlflow out of --track",
            ) from None


def make_trackers(
    sweep: TrackedSweep, stop: Callable[[str], None] = lambda name: None
) -> list[Tracker]:
    """The trackers of a sweep; what takes time to load is loaded in the threads that follow.

    Args:
        stop: told the name of a trial whose Stop button was pressed where it is shown.
    """
    trackers: list[Tracker] = []
    for name in sweep.config.trackers:
        if name in CLASSES:
            trackers.append(_LazyTracker(name, sweep))
        elif name == "optuna":
            url = sweep.config.study_storage or sweep.paths.study_url
            trackers.append(StudyWriter(url, sweep.name, sweep.config.space, sweep.metric))
        elif sweep.wandb_mode != "disabled":
            trackers.append(WandbTracker(sweep, stop))
    return trackers


def describe_places(sweep: TrackedSweep) -> dict[str, str]:
    """Where each tracker of a sweep is opened: a command to paste, a server, or W&B's project."""
    config, paths = sweep.config, sweep.paths
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or paths.mlflow_url
    trackio = Path(os.environ.get("TRACKIO_DIR") or paths.trackio)
    places = {
        "wandb": f"wandb sync {write_command(paths.folder / 'wandb')}/offline-run-*"
        if sweep.wandb_mode == "offline"
        else f"the project {config.wandb_project} of W&B",
        "mlflow": hide_secrets(uri)
        if uri.startswith("http")
        else f"mlflow ui --backend-store-uri {write_command(hide_secrets(uri))}",
        "trackio": f"TRACKIO_DIR={write_command(trackio)} trackio show",
        "tensorboard": f"tensorboard --logdir {write_command(paths.tensorboard)}",
        "optuna": "optuna-dashboard "
        + write_command(hide_secrets(config.study_storage or paths.study_url)),
    }
    return {name: places[name] for name in config.trackers}


def load_libraries(names: Sequence[str]) -> None:
    """Loads what takes seconds; what cannot be loaded is told when there is something to show."""
    for name in CLASSES.keys() & set(names):
        with contextlib.suppress(Exception):
            _load_tracker(name)


class _LazyTracker:
    """A Tracker whose library is loaded when there is something to show."""

    def __init__(self, name: str, sweep: TrackedSweep) -> None:
        self.name = name
        self._sweep = sweep
        self._tracker: Tracker | None = None

    def replay(self, events: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]) -> None:
        if self._tracker is None:
            self._tracker = getattr(_load_tracker(self.name), CLASSES[self.name])(self._sweep)
        self._tracker.replay(events, trials)

    def close(self, *, is_disk_trusted: bool) -> None:
        if self._tracker is not None:
            self._tracker.close(is_disk_trusted=is_disk_trusted)


def _load_tracker(name: str) -> Any:
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    # That MLflow's client asks again is no second warning, and no third line of an error.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return import_module(f"sweeps.tracking.{name}_tracker")
