"""No command follows a link out of a run that came from elsewhere."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps import load_run, status
from sweeps.records.paths import RunPaths, find_run
from sweeps.records.run_lock import lock_run
from tests.sweeps.commands import call, tree
from trainables.errors import SweepAborted
from trainables.files import JsonLines

COMMANDS = {
    "ask": ("--finish",),
    "demo": (),
    "export": ("--to", "exported", "--trial", "t0000"),
    "judge": ("--endpoint", "http://127.0.0.1:9/v1", "--model", "m"),
    "predict": ("--input", "a.csv", "--output", "b.csv"),
    "report": (),
    "sync": (),
    "verify": ("t0000",),
}


def find_status(run: Path) -> object:
    return status.main([str(run)])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder, beside a file of this user's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("private")
    folder = tmp_path / "run"
    (folder / "checkpoints" / "t0000" / "checkpoint-9").mkdir(parents=True)
    (folder / "sweep.json").write_text("{}")
    return folder


def refusal(command: str, run: Path) -> str:
    main = importlib.import_module(f"sweeps.{command}").main
    with pytest.raises(SweepAborted) as refused:
        main([str(run), *COMMANDS[command]])
    assert "not followed" in refused.value.fix
    return str(refused.value.error)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_link_out_of_the_run_is_refused_by_every_command(command: str, run: Path) -> None:
    adapter = run / "checkpoints" / "t0000" / "checkpoint-9" / "adapter_model.safetensors"
    adapter.symlink_to("../../../../mine")
    before = tree(run.parent)
    assert (
        refusal(command, run)
        == f"{adapter} is a link to {run.parent / 'mine'}, which is not in the run"
    )
    assert tree(run.parent) == before


@pytest.mark.parametrize("read", [load_run, find_status])
def test_load_run_and_status_follow_no_link_either(
    read: Callable[[Path], object], run: Path
) -> None:
    """Status looks at no checkpoints; of a folder of runs it tells which is none to read."""
    (run / "events.jsonl").symlink_to("../mine")
    with pytest.raises(SweepAborted, match=r"events.jsonl is a link to .*mine") as refused:
        read(run)
    assert "not followed" in refused.value.fix
    ended = call("sweeps.status", str(run.parent))
    assert ended.code == 0 and "run  unreadable" in ended.stdout and "is a link" in ended.stdout


def test_folders_and_the_lock_are_refused_too_and_a_resume_empties_no_file(run: Path) -> None:
    for name, target in ((".lock", "mine"), ("events.jsonl", "nothing"), ("wandb", "")):
        (run / name).symlink_to(run.parent / target)
        assert f"{run / name} is a link" in refusal("sync", run)
        flags = ("samsum", "--tiny", "--runs-dir", str(run.parent), "--name", "run", "--resume")
        assert f"{run / name} is a link" in call("sweeps.run", *flags).refusal()[0]
        (run / name).unlink()
    assert (run.parent / "mine").read_text() == "private"


def test_links_within_a_run_and_a_run_behind_a_link_are_fine(run: Path) -> None:
    (run / "latest").symlink_to("checkpoints")
    (run / "wandb").mkdir()
    (run / "wandb" / "debug.log").symlink_to("/where/the/run/was/before")
    shutil.move(run, run.parent / "disk")
    run.symlink_to("disk")
    paths = find_run(run)
    assert paths.folder == run
    with lock_run(paths):
        pass


def test_a_log_is_not_appended_to_through_a_link(run: Path) -> None:
    RunPaths(run).events.symlink_to(run.parent / "mine")
    with pytest.raises(OSError):
        JsonLines(RunPaths(run).events)
    assert (run.parent / "mine").read_text() == "private"
