"""From a command to a result: recipes, search, tracking, reports and export.

In Python: `from sweeps import SweepAborted, load_run, run_sweep`.
"""

import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.publish.load_run import load_run
    from sweeps.sweep import run_sweep
    from trainables.errors import SweepAborted

_MODULES = {
    "SweepAborted": "trainables.errors",
    "load_run": "sweeps.publish.load_run",
    "run_sweep": "sweeps.sweep",
}
__all__ = ["SweepAborted", "load_run", "run_sweep"]

if Path(__file__).with_name("config").is_dir():  # ours is a file
    from sweeps.checks.environment import refuse_other_package

    refuse_other_package()


def __getattr__(name: str) -> Any:
    """Each loads what it needs when it is asked for: neither torch nor Ray."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # tqdm's, which notebooks show
        return getattr(import_module(_MODULES[name]), name)
