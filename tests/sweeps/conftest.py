"""One whole small sweep, which several tests look at, run once for all workers of pytest-xdist."""

import fcntl
import json
import os

import pytest

from tests.sweeps import small_sweep
from tests.sweeps.small_sweep import Finished

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Six trials of the bundled model and their finals, undisturbed; run by one worker for all."""
    base = tmp_path_factory.getbasetemp()
    runs_dir = (base.parent if IS_WORKER else base) / "finished-runs"
    runs_dir.mkdir(exist_ok=True)
    ended = runs_dir / "ended.json"
    with (runs_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ended.exists():
            flags = (*small_sweep.WITH_FINALS, "--num-trials", "6")
            ended.write_text(json.dumps(small_sweep.run(runs_dir, "whole", *flags)))
    code, output = json.loads(ended.read_text())
    return Finished(runs_dir, "whole", runs_dir / "whole", 6, code, output)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Whole sweeps come first for workers, so that none is left alone with a long test at the end.

    A sweep mostly waits. Of two workers the first then runs the sweeps and the second all else,
    and whoever is done first takes over tests from the other's end (--dist worksteal).
    """
    if IS_WORKER:
        items.sort(key=lambda item: not _runs_sweeps(item))


def _runs_sweeps(item: pytest.Function) -> bool:
    is_own = item.path.name == "test_own_recipe.py"
    imports = any(value is small_sweep for value in vars(item.module).values())
    return is_own or imports or "finished" in item.fixturenames
