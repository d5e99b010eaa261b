"""What tests of commands share: few of the bundled rows, and a world of their own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweeps.commands import world
from trainables import tiny


@pytest.fixture(scope="module")
def few_rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Meanwhile the recipe samsum --tiny has 48 rows a split: to read and tokenize all that there
    are takes most of a command's time. Processes of their own have all."""
    folder = tmp_path_factory.mktemp("few")
    for path in tiny.SAMSUM_DIR.iterdir():
        lines = path.read_text("utf-8").splitlines(keepends=True)
        (folder / path.name).write_text("".join(lines[:48]), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "SAMSUM_DIR", folder)
        yield


@pytest.fixture
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment and working folder of tests.sweeps.commands, for this process."""
    for name in set(os.environ) & {"RAY_ADDRESS", "WANDB_API_KEY", "WANDB_MODE"}:
        monkeypatch.delenv(name)
    for name, value in world(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind whose test rows were scored; none of them is to be changed."""
    from tests.sweeps import scored_runs  # loads torch

    return scored_runs.make_each_kind(tmp_path_factory.mktemp("runs"))
