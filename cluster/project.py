"""Where this project's packages lie, so that other processes find them."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def python_path() -> str:
    """PYTHONPATH of processes that find these packages before installed ones of the same names."""
    return os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
