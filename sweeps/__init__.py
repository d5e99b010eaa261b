"""From a command to a result: recipes, search, tracking, reports and export.

In Python: `from sweeps import load_run, run_sweep`.
"""

import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.publish.load_run import load_run
    from sweeps.sweep import run_sweep

__all__ = ["load_run", "run_sweep"]

if Path(__file__).with_name("config").is_dir():  # ours is a file
    from sweeps.checks.environment import refuse_other_package

    refuse_other_package()


def __getattr__(name: str) -> Any:
    """The two load what they need when they are asked for: neither torch nor Ray."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "sweeps.sweep" if name == "run_sweep" else "sweeps.publish.load_run"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # tqdm's, which notebooks show
        return getattr(import_module(module), name)
