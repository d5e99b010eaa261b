"""An installed wheel over which W&B's package of the same name is put, or under which it lies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps.commands import PROJECT, world

SCRIPT = "import sys; sys.argv = ['sweeps-run']; from sweeps.cli import run_script; run_script()"


def run_code(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    found_first = {"PYTHONPATH": os.pathsep.join([str(folder), str(PROJECT)])}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=world(folder) | found_first,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("is_last", [False, True])
def test_files_of_the_other_package_are_told(is_last: bool, tmp_path: Path) -> None:
    ours = shutil.copytree(
        PROJECT / "sweeps", tmp_path / "sweeps", ignore=shutil.ignore_patterns("__pycache__")
    )
    assert run_code(tmp_path, "import sweeps.config").returncode == 0
    for name in ("config/__init__.py", *(("__init__.py", "run.py") if is_last else ())):
        (ours / name).parent.mkdir(exist_ok=True)
        (ours / name).write_text("")
    ended = run_code(tmp_path, SCRIPT if is_last else "import sweeps")
    error, fix = ended.stderr.splitlines()[-2:]
    assert f"error: W&B's package of the name `sweeps` is installed into {ours} too" in error
    assert fix.startswith("fix: pip uninstall --yes sweeps")
    assert ended.returncode == (2 if is_last else 1)
