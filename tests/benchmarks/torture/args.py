"""What a torture is asked for, as flags of its command."""

from dataclasses import dataclass
from pathlib import Path

import tyro

LEAST_KILLS = 3
"""One of each kind."""


@dataclass(frozen=True, kw_only=True)
class TortureArgs:
    """Kills trial processes, packs and the driver of a tiny sweep, and checks what is left.

    The exit code is 0 if nothing was lost, 1 if anything was. Several may run at once: each has
    its own Ray session, and kills only descendants of its own driver.
    """

    seed: int = 0
    """Of kinds, moments and victims, and of the sweep."""
    kills: int = 20
    """SIGKILLs in all, one of each kind at least."""
    num_trials: int = 12
    """Trials that the sweep is asked for at first; more if it ends before all kills are done."""
    max_steps: int = 12
    """Steps of a trial."""
    finals: tyro.conf.FlagCreatePairsOff[bool] = True
    """Let the best meet in finals, which are killed too."""
    fill_disk: tyro.conf.FlagCreatePairsOff[bool] = False
    """Fill the disk once: RUNS_DIR is then a small tmpfs, mounted for this process alone."""
    runs_dir: Path | None = None
    """Where the sweep runs; None is a temporary folder. A faulty sweep is copied from there."""
    num_runs: int = 1
    """Sweeps to torture, with the seeds from seed on."""
    at_once: int = 1
    """Of them side by side, each on its own share of the cores."""
    results: Path | None = None
    """A file that gets a line of JSON a run; None writes none."""

    def __post_init__(self) -> None:
        if self.kills < LEAST_KILLS:
            raise ValueError(f"kills is {self.kills}; it must be at least {LEAST_KILLS}")
        if self.num_runs < 1 or self.at_once < 1:
            raise ValueError(
                f"num_runs is {self.num_runs} and at_once {self.at_once}; both must be at least 1"
            )
        if self.num_runs > 1 and self.runs_dir is not None:
            raise ValueError("runs_dir holds one sweep; with num_runs each has a temporary folder")
