"""The search of a sweep asks a study in memory, whoever holds its database."""

import sqlite3
from pathlib import Path

import pytest

from sweeps.control.stages import open_search
from sweeps.records.paths import RunPaths
from sweeps.search import storage
from tests.sweeps.invented_sweep import METRIC, make_config


def test_search_goes_on_while_another_process_holds_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LOCK_TIMEOUT_S", 0.1)  # after which a write would fail
    paths, config = RunPaths(tmp_path), make_config(start_points=())
    search = open_search(config, METRIC, paths, "mine", [], is_resumed=False)
    other = sqlite3.connect(paths.optuna_db, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    number, _ = search.propose()
    search.report(number, 1, 5.0)
    search.finish(number, "completed", 5.0)
    assert search.propose()[0] == number + 1
    other.close()
