"""A sweep whose machine vanishes goes on from object storage alone, as if nothing had happened."""

import csv
import time
from pathlib import Path

import pytest

from sweeps.records.trial_record import replay
from tests.sweeps import small_sweep
from tests.sweeps.commands import call
from tests.sweeps.servers.s3_server import serve_s3
from tests.sweeps.small_sweep import count
from trainables import storage

FLAGS = (*small_sweep.FLAGS, "--slots-per-gpu", "1", "--num-trials", "2", "--wandb", "disabled")
"""A trial that trains alone rounds alike in every run."""
NOT_COMPARED = (
    "seconds",
    "gpu_seconds",
    "tokens_per_s",
    "peak_gib",
    "trained_tokens",
    "scored_tokens",
)


@pytest.mark.slow
def test_sweep_goes_on_from_a_bucket_on_a_bare_machine_as_if_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / name for name in ("undisturbed", "lost", "bare")]
    for place in places:
        place.mkdir()
    undisturbed, lost, bare = places
    bucket = f"file://{tmp_path}/bucket"
    code, output = small_sweep.run(undisturbed, "run", *FLAGS, "--checkpoints", bucket)
    assert code == 0, output
    with serve_s3(monkeypatch) as url:
        process = small_sweep.start(lost, "run", *FLAGS, "--checkpoints", url)
        small_sweep.wait_for(
            lost / "run",
            lambda events: any(e["kind"] == "report" and e["trial_id"] == "t0001" for e in events),
            process,
        )
        small_sweep.kill(process)
        lost.rename(tmp_path / "gone")  # where what still dies may write
        code, output = small_sweep.resume(bare, "run", "--checkpoints", url)
        assert code == 0, output
        there = storage.read_file(f"{url}/run/events.jsonl")
        secret = b"secret-of-the-tests"
        assert all(
            secret not in path.read_bytes() for path in (bare / "run").rglob("*") if path.is_file()
        )
        assert secret.decode() not in output
    events = small_sweep.events_of(bare / "run")
    assert there == (bare / "run" / "events.jsonl").read_bytes()
    assert [count(events, f"sweep_{kind}") for kind in ("started", "resumed", "ended")] == [1, 1, 1]
    expected = replay(small_sweep.events_of(undisturbed / "run"))
    assert small_sweep.curves(replay(events)) == small_sweep.curves(expected)  # to the last bit
    assert _read_table(bare / "run") == _read_table(undisturbed / "run")
    (best, other) = (
        folder / "run/best/adapter_model.safetensors" for folder in (bare, undisturbed)
    )
    assert best.read_bytes() == other.read_bytes()
    kept = {path.parent.name for path in (tmp_path / "bucket").rglob("adapter_model.safetensors")}
    assert kept and not list((tmp_path / "bucket" / "run" / "checkpoints").rglob("optimizer*"))


def _read_table(folder: Path) -> list[dict[str, str]]:
    """trials.csv without what is measured, or what a killed pack had done of work."""
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    return [{k: v for k, v in row.items() if k not in NOT_COMPARED} for row in rows]


@pytest.mark.slow
def test_bucket_that_cannot_be_written_is_told_before_anything_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_world: None
) -> None:
    def refuse(url: str, cause: str) -> None:
        words = ("samsum", "--tiny", "--name", "mine", "--wandb", "disabled", "--checkpoints", url)
        began_s = time.monotonic()
        error, fix = call("sweeps.run", *words).refusal()
        assert cause in error and time.monotonic() - began_s < 15.0
        assert "--name" in fix or "credentials" in fix
        assert not (tmp_path / "runs").exists()

    with serve_s3(monkeypatch) as url:
        refuse("s3://no-such-bucket/runs", "s3://no-such-bucket/runs/mine cannot be written")
        (tmp_path / "sweep.json").write_text("{}")
        storage.put_file(f"{url}/mine/sweep.json", tmp_path / "sweep.json")
        refuse(url, f"there is a run at {url}/mine already")
        storage.check_writable(f"{url}/mine")
    refuse(url, f"{url}/mine cannot be written")
