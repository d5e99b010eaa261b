"""One whole small sweep, which several tests look at."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import small_sweep


@dataclass(frozen=True)
class Finished:
    """A sweep that ended by itself."""

    runs_dir: Path
    name: str
    folder: Path
    num_trials: int
    code: int
    output: str


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Six trials of the bundled model, undisturbed."""
    runs_dir = tmp_path_factory.mktemp("runs")
    code, output = small_sweep.run(runs_dir, "whole", *small_sweep.FLAGS, "--num-trials", "6")
    return Finished(runs_dir, "whole", runs_dir / "whole", 6, code, output)
