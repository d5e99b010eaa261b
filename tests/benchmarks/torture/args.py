"""What a torture is asked for, as flags of its command."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from trainables.config import require

SHARES = {"trial": 0.5, "pack": 0.3, "driver": 0.2}
"""Kinds of kills on this machine alone, and how often each is drawn. A driver's costs most: Ray
starts again, and the pack with it."""
NODES_SHARES = {
    "trial": 0.25,
    "pack": 0.2,
    "node": 0.2,
    "raylet": 0.1,
    "leaving node": 0.1,
    "head": 0.05,
    "driver": 0.1,
}
"""On a cluster; a leaving node gets SIGTERM, all others SIGKILL."""


@dataclass(frozen=True, kw_only=True)
class TortureArgs:
    """Kills trial processes, packs and the driver of a tiny sweep, and checks what is left.

    The exit code is 0 if nothing was lost, 1 if anything was. Several may run at once: each has
    its own Ray session, and kills only what it has started.
    """

    seed: int = 0
    """Seeds kinds, moments and victims, and the sweep."""
    kills: int = 20
    """Kills in all, one of each kind at least."""
    num_trials: int = 12
    """Trials that the sweep is asked for at first; more if it ends before all kills are done."""
    max_steps: int = 12
    """Steps of a trial."""
    finals: tyro.conf.FlagCreatePairsOff[bool] = True
    """Let the best meet in finals, which are killed too."""
    fill_disk: tyro.conf.FlagCreatePairsOff[bool] = False
    """Fill the disk once: RUNS_DIR is then a small tmpfs, mounted for this process alone. Without
    root or user namespaces it is left out, and so is the cut of the network."""
    nodes: int = 0
    """Nodes of a Ray cluster on this machine, with its head; 0 is a sweep's own Ray. They are
    killed too, leave and come late; all but the head have a GPU in name."""
    cut_s: float = 0.0
    """For how long a node's network is cut once; 0 leaves it whole."""
    runs_dir: Path | None = None
    """Where the sweep runs; None is a temporary folder. A faulty sweep is copied from there."""
    num_runs: int = 1
    """Sweeps to torture, with the seeds from seed on; those that the results have are passed
    over."""
    at_once: int = 1
    """Sweeps side by side, each on its own share of the cores."""
    results: Path | None = None
    """A file that gets a line of JSON a run; None writes none."""

    def __post_init__(self) -> None:
        require(self.nodes == 0 or self.nodes >= 2, "nodes", self.nodes, "0, or at least 2")
        if self.cut_s and not self.nodes:
            raise ValueError(f"cut_s is {self.cut_s:g} without nodes; add --nodes 3")
        least = {"kills": len(self.shares), "num_runs": 1, "at_once": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            require(value >= bound, name, value, f"at least {bound}")
        if self.num_runs > 1 and self.runs_dir is not None:
            raise ValueError("runs_dir holds one sweep; with num_runs each has a temporary folder")

    @property
    def shares(self) -> dict[str, float]:
        return NODES_SHARES if self.nodes else SHARES
