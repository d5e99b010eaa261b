"""A sweep that is started again and again, and what was done to it so far."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sweeps.cli import EXIT_DONE
from tests.benchmarks.torture.args import TortureArgs
from tests.benchmarks.torture.nodes import HEAD, Nodes
from tests.sweeps import small_sweep

STALL_S = 180.0
"""A sweep that says nothing for so long, on a busy machine, hangs."""
MORE_TRIALS = 4
"""Asked for whenever the sweep ends before all kills are done."""
NEWS = ("trial_started", "report", "trial_ended")
"""Events that tell of progress."""


class Fault(Exception):
    """The sweep did what no sweep may; the message says what."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One thing that was done to the sweep, and how far it was then."""

    kind: str
    """A kind of kill, disk or cut."""
    at_s: float
    """Since the torture began."""
    after: str
    """Kind of the last event in the log; "" before the first."""
    num_reports: int
    num_ended: int
    """Trials and runs of the finals that had ended."""


@dataclass(kw_only=True)
class TorturedSweep:
    """A sweep with its present driver."""

    args: TortureArgs
    runs_dir: Path
    scratch: Path
    """Off the disk that fills, with a short name, as Ray's sockets need it: Ray's session and the
    drivers' output."""
    num_trials: int
    random: random.Random
    nodes: Nodes | None = None
    driver: subprocess.Popen[bytes] | None = None
    num_drivers: int = 0
    hits: list[Hit] = field(default_factory=list)
    began_s: float = field(default_factory=time.monotonic)
    name: str = "tortured"

    @property
    def folder(self) -> Path:
        return self.runs_dir / self.name

    def say(self, text: str) -> None:
        print(f"seed {self.args.seed} {self.seconds:7.1f} s  {text}", flush=True)

    @property
    def seconds(self) -> float:
        """Since the torture began."""
        return time.monotonic() - self.began_s

    def start(self) -> None:
        """Starts the next driver; it resumes what the one before left."""
        is_begun = (self.folder / "sweep.json").exists()
        begin = [*small_sweep.WITH_FINALS, "--max-steps", str(self.args.max_steps)]
        begin += ["--no-estimate", "--seed", str(self.args.seed)]
        begin += ["--max-failures", "1000"]  # nobody gives a trial up: each has to end by itself
        begin += ["--data", str(small_sweep.write_few_rows(self.scratch))]
        begin += [] if self.args.finals else ["--no-finals"]
        flags = ["--tiny", "--resume"] if is_begun else begin
        flags += ["--num-trials", str(self.num_trials)]
        command = self.nodes.enter(HEAD) if self.nodes else []
        command += [sys.executable, "-m", "sweeps.run", "samsum", "--runs-dir", str(self.runs_dir)]
        self.num_drivers += 1
        with self._output_path.open("wb") as output:
            self.driver = subprocess.Popen(
                [*command, "--name", self.name, *flags],
                cwd=small_sweep.PROJECT,
                env=self._make_environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ask_for_more(self) -> None:
        """Asks for more trials after the sweep came to its end before all kills.

        Raises:
            Fault: it ended with an error.
        """
        self.check_done()
        self.num_trials += MORE_TRIALS
        self.say(f"the sweep has ended; it goes on to {self.num_trials} trials")
        self.start()

    def wait_until(self, is_over: Callable[[], bool]) -> None:
        """Waits for this, or for the present driver's end.

        Raises:
            Fault: the sweep hangs.
        """
        known, said_s = -1, time.monotonic()
        while not self.has_ended and not is_over():
            if len(self.read_events()) != known:
                known, said_s = len(self.read_events()), time.monotonic()
            if time.monotonic() - said_s > STALL_S:
                raise Fault(f"the sweep hangs: {self.describe_progress()}\n{self.output}")
            time.sleep(0.1)

    def check_done(self) -> None:
        """Raises Fault unless the driver has ended well."""
        code = self.driver.poll() if self.driver else None
        if code != EXIT_DONE:
            raise Fault(f"the sweep ended with code {code}:\n{self.output}")

    @property
    def has_ended(self) -> bool:
        return self.driver is None or self.driver.poll() is not None

    @property
    def output(self) -> str:
        return self._output_path.read_text(errors="replace")

    def read_events(self) -> list[dict[str, Any]]:
        return small_sweep.events_of(self.folder)

    def count_news(self) -> int:
        return sum(event["kind"] in NEWS for event in self.read_events())

    def describe_progress(self) -> str:
        counts = Counter(event["kind"] for event in self.read_events())
        return ", ".join(f"{counts[kind]} {kind}" for kind in NEWS)

    def record_hit(self, kind: str) -> None:
        events = self.read_events()
        hit = Hit(
            kind=kind,
            at_s=round(self.seconds, 1),
            after=events[-1]["kind"] if events else "",
            num_reports=small_sweep.count(events, "report"),
            num_ended=small_sweep.count(events, "trial_ended"),
        )
        self.hits.append(hit)

    def list_processes(self, kind: str) -> list[psutil.Process]:
        """The trials', or the packs', by age."""
        assert self.driver is not None
        find = {"trial": small_sweep.trial_processes, "pack": small_sweep.pack_processes}[kind]
        roots = self.nodes.running.values() if self.nodes else [self.driver]
        processes = []
        for root in list(roots):
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended while they were listed
                processes += find(root.pid)
        return sorted(processes, key=lambda process: process.pid)

    def end_descendants(self) -> None:
        """Ends what a fault may have left running: all that has this torture's Ray folder."""
        if self.nodes is not None:
            self.nodes.stop()
        if self.driver is not None and self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("RAY_TMPDIR") == str(self.scratch):
                    process.kill()

    @property
    def _output_path(self) -> Path:
        return self.scratch / f"driver-{self.num_drivers}.log"

    def _make_environment(self) -> dict[str, str]:
        """With a Ray of the sweep's own, or with its nodes, and no other cluster to join."""
        environment = os.environ | {"RAY_TMPDIR": str(self.scratch), "WANDB_MODE": "offline"}
        environment |= {"OMP_NUM_THREADS": "1"}
        environment.pop("RAY_ADDRESS", None)
        if self.nodes is not None:
            environment |= {**self.nodes.environment, "RAY_ADDRESS": self.nodes.address}
        return environment
