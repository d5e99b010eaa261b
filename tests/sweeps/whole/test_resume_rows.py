"""A sweep of own rows, killed as soon as its log begins, keeps the rows that it began with,
whatever becomes of the user's file."""

import csv
import subprocess
import sys
from pathlib import Path

from sweeps.records.trial_record import replay
from tests.sweeps import commands, small_sweep
from trainables.data.prepared_rows import read_rows

FLAGS = ("table", "--tiny", "--runs-dir", "runs", "--name", "r1", "--wandb", "disabled")
SETUP = (
    "--data",
    "m.csv",
    "--input",
    "text",
    "--target",
    "mood",
    "--kind",
    "classify",
    "--num-trials",
    "3",
    "--max-steps",
    "4",
    "--eval-rows",
    "8",
    "--batch-size",
    "4",
    "--micro-batch-size",
    "4",
    "--no-finals",
    "--no-estimate",
)


def write_data(path: Path, num_rows: int, moods: tuple[str, ...]) -> None:
    with path.open("w", newline="") as file:
        rows = [(f"text {n} of {num_rows}", moods[n % len(moods)]) for n in range(num_rows)]
        csv.writer(file).writerows([("text", "mood"), *rows])


def read_sweep(run: Path) -> dict[str, bytes | None]:
    """All but what Ray's processes and the report's writer may still write after the kill."""
    return {
        name: content
        for name, content in commands.tree(run).items()
        if not name.startswith(("checkpoints", "tune", "report.html", ".report.html"))
    }


def test_resume_refuses_a_changed_file_and_goes_on_without_it(tmp_path: Path) -> None:
    data, run = tmp_path / "m.csv", tmp_path / "runs" / "r1"
    write_data(data, 200, ("good", "bad"))
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeps.run", *FLAGS, *SETUP],
        cwd=tmp_path,
        env=commands.world(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    small_sweep.wait_for(run, lambda events: len(events) >= 1, process)
    small_sweep.kill(process)
    before = read_sweep(run)
    prepared = read_rows(run / "rows")

    write_data(data, 100, ("bad", "good"))
    resume = (*FLAGS, "--resume", "--num-trials", "4")
    error, fix = commands.start("sweeps.run", *resume, folder=tmp_path).refusal()
    assert "m.csv does not give the rows" in error and "train (160 rows before, 60 now)" in error
    assert "put it back" in fix
    assert read_sweep(run) == before

    data.unlink()
    resumed = commands.start("sweeps.run", *resume, folder=tmp_path)
    assert resumed.code == 0, resumed.stderr
    histories = replay(small_sweep.events_of(run))
    assert [history.number for history in histories] == [0, 1, 2, 3]
    assert all(history.reports for history in histories)
    assert read_rows(run / "rows") == prepared
