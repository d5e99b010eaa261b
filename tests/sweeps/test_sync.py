"""A sweep's log is replayed into W&B by a command of its own; real wandb."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from sweeps.config import to_json
from sweeps.recipes import samsum
from sweeps.records.paths import RunPaths
from sweeps.records.run_lock import lock_run
from sweeps.sync import main
from tests.sweeps.servers.wandb_files import offline_runs
from tests.sweeps.servers.wandb_server import WandbServer
from tests.sweeps.tracking.test_wandb_tracker import LoggedSweep, complete_names
from trainables.errors import SweepAborted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run with two trials that ended, on a machine without a login."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    run = tmp_path / "mine"
    LoggedSweep(run).complete(0, 1)
    record = {
        "config": to_json(samsum(True)),
        "metric": {"name": "rougeLsum", "mode": "max"},
        "name": "mine",
        "sweep_id": "id-1",
        "digests": {},
    }
    (run / "sweep.json").write_text(json.dumps(record))
    yield run
    wandb.teardown()


def test_missing_runs_are_written_and_complete_ones_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder)]).facts == {
        "run": folder,
        "trackers": {"wandb": f"wandb sync {folder}/wandb/offline-run-*"},
    }
    assert "wandb sync" in capsys.readouterr().out
    assert {name: run.steps for name, run in offline_runs(folder).items()} == {
        "t0000": [10, 20],
        "t0001": [10, 20],
    }
    shutil.rmtree(next(folder.glob("wandb/offline-run-*-t0001-*")))
    main([str(folder)])
    run = offline_runs(folder)["t0001"]
    assert run.steps == [10, 20] and run.record.run_group == "mine"
    assert run.config["recipe"] == "samsum" and run.config["lora_rank"] == 16
    assert complete_names(folder) == ["t0000", "t0001", "t0001"]


def test_each_tracker_is_told_with_what_opens_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads its folder when it is loaded
    opened_by = {
        "mlflow": f"mlflow ui --backend-store-uri sqlite:///{folder}/mlruns/mlflow.db",
        "trackio": f"TRACKIO_DIR={folder}/trackio trackio show",
        "tensorboard": f"tensorboard --logdir {folder}/tensorboard",
        "optuna": f"optuna-dashboard sqlite:///{folder}/optuna.db",
    }
    facts = main([str(folder), "--track", ",".join(opened_by)]).facts
    assert facts == {"run": folder, "trackers": opened_by}
    told = capsys.readouterr().out.splitlines()[1:]
    assert told == [f"{name}: {place}" for name, place in opened_by.items()]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder.parent}/my%20own.db")
    facts = main([str(folder), "--track", "mlflow"]).facts
    shown = f"mlflow ui --backend-store-uri sqlite:///{folder.parent}/my%20own.db"
    assert facts["trackers"] == {"mlflow": shown}


def test_run_that_a_sweep_works_on_is_refused(folder: Path) -> None:
    with lock_run(RunPaths(folder)), pytest.raises(SweepAborted, match="another process"):
        main([str(folder)])


def test_folder_without_a_sweep_or_with_a_damaged_one_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(SweepAborted, match="there is no sweep"):
        main([str(tmp_path)])
    (folder / "sweep.json").write_text('{"name": "mine"}')
    with pytest.raises(SweepAborted, match="cannot be read"):
        main([str(folder)])


def test_online_without_a_login_is_refused(folder: Path) -> None:
    with pytest.raises(SweepAborted, match="needs a login"):
        main([str(folder), "--wandb", "online"])
    assert not (folder / "wandb").exists()


def test_way_of_wandb_is_refused_where_other_trackers_are_asked_for(folder: Path) -> None:
    with pytest.raises(SweepAborted, match="--wandb online does nothing"):
        main([str(folder), "--track", "mlflow", "--wandb", "online"])


@pytest.mark.parametrize("mode", ["auto", "offline"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANDB_SILENT", "maybe"),
        ("WANDB_BASE_URL", "me:s3cret@api.wandb.ai"),
        ("WANDB_PROJECT", "a/b"),
        ("WANDB_API_KEY", "s3cret" * 8 + "\n"),
        ("WANDB__PROXIES", "s3cret"),
    ],
)
def test_variable_that_wandb_refuses_is_told_without_secrets(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, mode: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SweepAborted, match="W&B refuses a setting") as refused:
        main([str(folder), "--wandb", mode])
    assert "s3cret" not in str(refused.value)


def test_study_whose_password_is_not_kept_is_refused(folder: Path) -> None:
    record = json.loads((folder / "sweep.json").read_text())
    record["config"]["study_storage"] = "postgresql+psycopg://bob:REDACTED@host/db"
    (folder / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(SweepAborted, match="needs its password"):
        main([str(folder), "--track", "optuna"])


def test_damaged_log_is_told_as_that_not_as_a_fault_of_wandb(folder: Path) -> None:
    events = RunPaths(folder).events
    first, *rest = events.read_bytes().splitlines(keepends=True)
    events.write_bytes(b"".join([first, b"{broken\n", *rest]))
    with pytest.raises(SweepAborted, match="line 2 of"):
        main([str(folder)])


def test_sweep_that_wandb_refuses_is_told_as_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = WandbServer()
    server.has_sweeps = False
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    with pytest.raises(SweepAborted, match="W&B made no sweep"):
        main([str(folder), "--wandb", "online"])
    assert len(server.runs) == 2
    server.stop()


def test_search_that_was_offline_becomes_a_sweep_online(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(folder)])
    folders = list(folder.glob("wandb/offline-run-*"))
    wandb.teardown()
    server = WandbServer()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    upload = [sys.executable, "-m", "wandb", "sync", folders[0]]
    subprocess.run(upload, cwd=folder.parent, check=True)
    (uploaded,) = server.runs
    assert len(folders) == 2 and not server.sweeps
    capsys.readouterr()
    main([str(folder)])
    assert capsys.readouterr().out.endswith(
        f"\nwandb: the project {samsum(True).wandb_project} of W&B\n"
    )
    ((sweep_id, told),) = server.sweeps.items()
    assert (
        uploaded in told["prior_runs"]
        and told["name"] == "mine"
        and told["metric"]["goal"] == "maximize"
    )
    assert [run.facts["sweep"] for run in server.runs.values()] == [sweep_id] * 2
    assert [[row["_step"] for row in rows] for rows in server.rows.values()] == [[10, 20]] * 2
    assert not offline_runs(folder)
    server.stop()
