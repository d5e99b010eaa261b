"""python -m tests.sweeps.torture: kills a sweep's processes at random, then checks what it left."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent))  # as pytest does

import small_sweep
import torture_checks

from sweeps.cli import EXIT_DONE, EXIT_USER_ERROR, parse, run_command
from trainables.errors import SweepAborted

PROG = "python -m tests.sweeps.torture"
EXIT_FAULTY = 1
Kind = Literal["trial", "pack", "driver"]
SHARES: dict[Kind, float] = {"trial": 0.5, "pack": 0.3, "driver": 0.2}
"""Of the kills. A driver's costs most: Ray starts again, and the pack with it."""
LONGEST_DELAY_S = 4.0
"""A kill comes up to this long after what it waits for."""
LONGEST_WAIT_S = 10.0
"""How long a kill waits for news: none comes while the winner is tested and written."""
PROGRESS_FRAC = 0.7
"""Share of the kills that wait for news in the log; the others may hit what is still loading."""
STALL_S = 180.0
"""A sweep that says nothing for so long, on a busy machine, hangs."""
DISK_MIB = 512
MORE_TRIALS = 4
"""Asked for whenever the sweep ends before all kills are done."""


@dataclass(frozen=True, kw_only=True)
class TortureArgs:
    """Kills trial processes, packs and the driver of a tiny sweep, and checks what is left.

    The exit code is 0 if nothing was lost, 1 if anything was. Several may run at once: each has
    its own Ray session, and kills only descendants of its own driver.
    """

    seed: int = 0
    """Of kinds, moments and victims."""
    kills: int = 20
    """SIGKILLs in all, one of each kind at least."""
    num_trials: int = 12
    """Trials that the sweep is asked for at first; more if it ends before all kills are done."""
    max_steps: int = 27
    """Steps of a trial."""
    finals: tyro.conf.FlagCreatePairsOff[bool] = True
    """Let the best meet in finals, which are killed too."""
    fill_disk: tyro.conf.FlagCreatePairsOff[bool] = False
    """Fill the disk once: RUNS_DIR is then a small tmpfs, mounted for this process alone."""
    runs_dir: Path | None = None
    """Where the sweep is kept; None is a temporary folder, removed if all is well."""

    def __post_init__(self) -> None:
        if self.kills < len(SHARES):
            raise ValueError(f"kills is {self.kills}; it must be at least {len(SHARES)}")


@dataclass(kw_only=True)
class Torture:
    """A sweep that is killed again and again, and what was done to it."""

    args: TortureArgs
    runs_dir: Path
    scratch: Path
    """Off the disk that fills: Ray's session and the drivers' output."""
    num_trials: int
    random: random.Random
    driver: subprocess.Popen[bytes] | None = None
    num_starts: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    began_s: float = field(default_factory=time.monotonic)
    name: str = "tortured"

    @property
    def folder(self) -> Path:
        """The sweep's."""
        return self.runs_dir / self.name

    def say(self, text: str) -> None:
        """A line of the log of kills."""
        print(f"{time.monotonic() - self.began_s:7.1f} s  {text}", flush=True)

    def start(self) -> subprocess.Popen[bytes]:
        """The sweep's next driver; it resumes what the one before left."""
        is_begun = (self.folder / "sweep.json").exists()
        begin = [*small_sweep.WITH_FINALS, "--max-steps", str(self.args.max_steps), "--no-estimate"]
        begin += ["--max-failures", "1000"]  # nobody gives a trial up: each has to end by itself
        begin += [] if self.args.finals else ["--no-finals"]
        flags = ["--tiny", "--resume"] if is_begun else begin
        flags += ["--num-trials", str(self.num_trials)]
        command = [sys.executable, "-m", "sweeps.run", "samsum", "--runs-dir", str(self.runs_dir)]
        self.num_starts += 1
        with self.output_path.open("wb") as output:
            self.driver = subprocess.Popen(
                [*command, "--name", self.name, *flags],
                cwd=small_sweep.PROJECT,
                env=_without_cluster() | {"RAY_TMPDIR": str(self.scratch)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.driver

    @property
    def has_ended(self) -> bool:
        """Whether the present driver has."""
        return self.driver is None or self.driver.poll() is not None

    @property
    def output_path(self) -> Path:
        """What the present driver says."""
        return self.scratch / f"driver-{self.num_starts}.log"

    @property
    def output(self) -> str:
        """What the present driver has said."""
        return self.output_path.read_text(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """So far."""
        return small_sweep.events_of(self.folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Tortures one sweep; returns the process's exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(TortureArgs, words, PROG)
    if args.fill_disk and not _is_own_mount():
        return _in_own_mounts(words)
    with _runs_dir(args) as runs_dir:
        found = torture(args, runs_dir)
    for fault in found:
        print(f"fault: {fault}")
    print(f"seed {args.seed}: " + (f"{len(found)} FAULTS" if found else "nothing lost"))
    return EXIT_FAULTY if found else EXIT_DONE


def torture(args: TortureArgs, runs_dir: Path) -> list[str]:
    """Kills as asked, lets the sweep end, and returns what is wrong with what it left."""
    with tempfile.TemporaryDirectory(prefix="tort-", dir="/tmp", ignore_cleanup_errors=True) as tmp:
        sweep = Torture(
            args=args,
            runs_dir=runs_dir,
            scratch=Path(tmp),  # short: Ray's sockets lie in it
            num_trials=args.num_trials,
            random=random.Random(args.seed),
        )
        try:
            return _kill_all(sweep) or _checked(sweep)
        finally:
            _end_descendants(sweep)


def plan(args: TortureArgs, random_: random.Random) -> list[Kind | Literal["disk"]]:
    """What is hit, in order; one of each kind at least."""
    rest = args.kills - len(SHARES)
    drawn = random_.choices(list(SHARES), list(SHARES.values()), k=rest)
    hits: list[Kind | Literal["disk"]] = [*SHARES, *drawn]
    random_.shuffle(hits)
    if args.fill_disk:
        hits.insert(random_.randint(1, len(hits)), "disk")
    return hits


def _kill_all(sweep: Torture) -> list[str]:
    sweep.start()
    for hit in plan(sweep.args, sweep.random):
        fault = _fill_disk(sweep) if hit == "disk" else _kill(sweep, hit)
        if fault:
            return [fault]
    return _await_end(sweep)


def _kill(sweep: Torture, kind: Kind) -> str:
    """Kills one process of this kind; what went wrong instead, or ""."""
    _await_moment(sweep)
    deadline_s = time.monotonic() + STALL_S
    while time.monotonic() < deadline_s:
        if sweep.has_ended:
            if fault := _go_on(sweep):
                return fault
            _await_moment(sweep)
        assert sweep.driver is not None
        if victims := _victims(sweep.driver, kind):
            victim = sweep.random.choice(victims)
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                sweep.hits[kind] += 1
                sweep.say(f"SIGKILL {kind:6} pid {victim.pid:7}, {_progress(sweep)}")
                if kind == "driver":
                    sweep.driver.wait()
                    sweep.start()
                return ""
        time.sleep(0.05)
    return f"no {kind} process appeared for {STALL_S:.0f} s: {_progress(sweep)}\n{sweep.output}"


def _await_moment(sweep: Torture) -> None:
    """A random moment: mostly after news in the log, with a delay."""
    delay_s = sweep.random.uniform(0.0, LONGEST_DELAY_S)
    waits = sweep.random.random() < PROGRESS_FRAC
    known, deadline_s = len(_told(sweep)), time.monotonic() + LONGEST_WAIT_S
    while waits and time.monotonic() < deadline_s and not sweep.has_ended:
        waits = len(_told(sweep)) <= known
        time.sleep(0.02)
    time.sleep(delay_s)


def _go_on(sweep: Torture) -> str:
    """Asks for more trials after the sweep came to its end before all kills."""
    assert sweep.driver is not None
    code = sweep.driver.returncode
    if code != EXIT_DONE:
        return f"the sweep ended with code {code}:\n{sweep.output}"
    sweep.num_trials += MORE_TRIALS
    sweep.say(f"the sweep has ended; it goes on to {sweep.num_trials} trials")
    sweep.start()
    return ""


def _fill_disk(sweep: Torture) -> str:
    """Leaves no byte free until the sweep has stopped, which must say so, and resumes it."""
    _await_moment(sweep)
    if sweep.has_ended:
        return _go_on(sweep) or _fill_disk(sweep)
    assert sweep.driver is not None
    filler = sweep.runs_dir / "filler"
    deadline_s = time.monotonic() + STALL_S
    sweep.say(f"the disk fills, {_progress(sweep)}")
    while sweep.driver.poll() is None and time.monotonic() < deadline_s:
        _fill(filler)
        time.sleep(0.1)  # what the sweep removes meanwhile is filled again
    code, output = sweep.driver.poll(), sweep.output
    filler.unlink()
    if code == EXIT_DONE:  # it had nothing more to write
        return _go_on(sweep) or _fill_disk(sweep)
    if code != EXIT_USER_ERROR or "error: " not in output or "--resume" not in output:
        return f"a full disk ended the sweep with code {code} (None: not at all):\n{output}"
    error = next(line for line in output.splitlines() if line.startswith("error: "))
    sweep.hits["disk"] += 1
    sweep.say(f"the sweep stopped: {error}")
    sweep.start()
    return ""


def _fill(filler: Path) -> None:
    chunk_bytes = 2**20
    with filler.open("ab", buffering=0) as file:
        while chunk_bytes:
            try:
                file.write(bytes(chunk_bytes))
            except OSError:
                chunk_bytes //= 2


def _await_end(sweep: Torture) -> list[str]:
    """Lets the last driver come to its end."""
    assert sweep.driver is not None
    known, said_s = -1, time.monotonic()
    while sweep.driver.poll() is None:
        if len(sweep.events()) != known:
            known, said_s = len(sweep.events()), time.monotonic()
        if time.monotonic() - said_s > STALL_S:
            return [f"the sweep hangs: {_progress(sweep)}\n{sweep.output}"]
        time.sleep(0.1)
    if sweep.driver.returncode != EXIT_DONE:
        return [f"the sweep ended with code {sweep.driver.returncode}:\n{sweep.output}"]
    hits = ", ".join(f"{num} {kind}" for kind, num in sorted(sweep.hits.items()))
    sweep.say(f"the sweep has ended after {sweep.num_starts} drivers; hit: {hits}")
    return []


def _checked(sweep: Torture) -> list[str]:
    faults = torture_checks.faults(sweep.folder, sweep.name, sweep.num_trials)
    compared = torture_checks.compare_curves(sweep.folder, sweep.scratch)
    sweep.say(f"{compared.num_reports} reports of {compared.num_trials} trials trained again")
    return [*faults, *compared.faults]


def _told(sweep: Torture) -> list[dict[str, Any]]:
    kinds = ("trial_started", "report", "trial_ended")
    return [event for event in sweep.events() if event["kind"] in kinds]


def _progress(sweep: Torture) -> str:
    counts = Counter(event["kind"] for event in sweep.events())
    told = ("trial_started", "report", "trial_ended")
    return ", ".join(f"{counts[kind]} {kind}" for kind in told)


def _victims(driver: subprocess.Popen[bytes], kind: Kind) -> list[psutil.Process]:
    """Processes of this kind below the driver, by age."""
    find: dict[Kind, Callable[[int], list[psutil.Process]]] = {
        "trial": small_sweep.trial_processes,
        "pack": small_sweep.pack_processes,
        "driver": lambda pid: [psutil.Process(pid)],
    }
    try:
        return sorted(find[kind](driver.pid), key=lambda one: one.pid)
    except psutil.NoSuchProcess:  # one ended while they were listed
        return []


def _end_descendants(sweep: Torture) -> None:
    """Ends what a fault may have left running: all that has this torture's Ray folder."""
    if sweep.driver is not None and sweep.driver.poll() is None:
        sweep.driver.kill()
        sweep.driver.wait()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("RAY_TMPDIR") == str(sweep.scratch):
                process.kill()


def _without_cluster() -> dict[str, str]:
    """The environment, without a Ray cluster to join."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return kept | {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def _runs_dir(args: TortureArgs) -> Iterator[Path]:
    if args.runs_dir is not None:
        args.runs_dir.mkdir(parents=True, exist_ok=True)
    folder = args.runs_dir or Path(tempfile.mkdtemp(prefix="torture-"))
    if args.fill_disk:
        size = f"size={DISK_MIB}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        if args.fill_disk:
            subprocess.run(["umount", "--lazy", folder], check=True)
        if args.runs_dir is None:
            shutil.rmtree(folder, ignore_errors=True)


_OWN_MOUNTS = "TORTURE_OWN_MOUNTS"


def _is_own_mount() -> bool:
    return _OWN_MOUNTS in os.environ


def _in_own_mounts(words: list[str]) -> int:
    """This command where a mount is seen by nobody else; without root in a user namespace.

    Raises:
        SweepAborted: this machine lets a user mount nothing.
    """
    unshare = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else [])]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        raise SweepAborted(
            "--fill-disk needs a file system of its own, and none may be mounted here",
            "run it as root, allow user namespaces, or leave --fill-disk out",
        )
    command = [*unshare, sys.executable, "-m", "tests.sweeps.torture", *words]
    environment = os.environ | {_OWN_MOUNTS: "1"}
    return subprocess.run(command, check=False, cwd=small_sweep.PROJECT, env=environment).returncode


if __name__ == "__main__":
    run_command(main)
