"""One sweep from its first kill to its verdict."""

import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sweeps.records.trial_record import replay_finals
from tests.benchmarks.torture import checks, curves, kills
from tests.benchmarks.torture.args import TortureArgs
from tests.benchmarks.torture.curves import Compared
from tests.benchmarks.torture.nodes import Nodes
from tests.benchmarks.torture.result import Result
from tests.benchmarks.torture.tortured_sweep import Fault, TorturedSweep
from tests.sweeps import small_sweep


def torture_sweep(args: TortureArgs, runs_dir: Path, left_out: Sequence[str] = ()) -> Result:
    """Kills as asked, lets the sweep end, and says what is wrong with what it left."""
    with tempfile.TemporaryDirectory(prefix="tort-", dir="/tmp", ignore_cleanup_errors=True) as tmp:
        nodes = Nodes(
            scratch=Path(tmp),
            num_nodes=args.nodes,
            has_cables=args.cut_s > 0,
            absences=random.Random(args.seed),
        )
        sweep = TorturedSweep(
            args=args,
            runs_dir=runs_dir,
            scratch=Path(tmp),
            num_trials=args.num_trials,
            random=random.Random(args.seed),
            nodes=nodes if args.nodes else None,
        )
        result = replace(_kill_and_check(sweep), left_out=left_out)
        if result.faults:
            sweep.say(f"the sweep and its logs are kept in {_save_copy(sweep)}")
        return result


def _kill_and_check(sweep: TorturedSweep) -> Result:
    try:
        kills.kill_all(sweep)
    except Fault as fault:
        return _make_result(sweep, sweep.seconds, Compared(faults=[str(fault)]))
    finally:
        sweep.end_descendants()
    ended_s = sweep.seconds
    sweep.say(f"the sweep has ended after {sweep.num_drivers} drivers")
    faults = checks.find_faults(sweep.folder, sweep.name, sweep.num_trials)
    compared = curves.compare_curves(sweep.folder, sweep.scratch)
    return _make_result(sweep, ended_s, replace(compared, faults=[*faults, *compared.faults]))


def _save_copy(sweep: TorturedSweep) -> Path:
    """A copy of the sweep, of what its drivers said, and of Ray's logs."""
    copy = Path(tempfile.mkdtemp(prefix=f"torture-seed-{sweep.args.seed}-"))
    left_out = shutil.ignore_patterns("sockets", "again", "runtime_resources")
    for folder in filter(Path.exists, (sweep.folder, sweep.scratch)):
        shutil.copytree(folder, copy / folder.name, symlinks=True, ignore=left_out)
    return copy


def _make_result(sweep: TorturedSweep, ended_s: float, compared: Compared) -> Result:
    return Result(
        seed=sweep.args.seed,
        hits=sweep.hits,
        num_drivers=sweep.num_drivers,
        num_trials=sweep.num_trials,
        num_final_runs=len(replay_finals(small_sweep.events_of(sweep.folder))),
        seconds=round(ended_s, 1),
        check_seconds=round(sweep.seconds - ended_s, 1),
        **asdict(compared),
    )
