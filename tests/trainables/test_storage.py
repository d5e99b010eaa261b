"""Files on object storage: whether it can be written, and what fetches all of a folder."""

import errno
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from trainables import storage
from trainables.errors import SweepAborted


def test_place_that_cannot_be_written_is_told_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("no folder")
    with pytest.raises(SweepAborted, match="cannot be written"):
        storage.check_writable(f"file://{tmp_path}/taken/runs")
    storage.check_writable(f"file://{tmp_path}/bucket/runs")
    assert list((tmp_path / "bucket" / "runs").iterdir()) == []
    with pytest.raises(SweepAborted) as refused:
        storage.check_writable("gs://bucket/runs")  # gcsfs is no part of the tests' environment
    assert refused.value.fix == "pip install '.[gs]'"


def test_storage_that_falls_silent_is_not_waited_for_without_end() -> None:
    s3 = storage.make_options("s3://bucket/runs")["config_kwargs"]
    gs = storage.make_options("gs://bucket/runs")["requests_timeout"]
    assert (gs.sock_connect, gs.sock_read) == (s3["connect_timeout"], s3["read_timeout"])
    assert gs.total is None  # a large file takes as long as it takes
    assert storage.make_options("file:///runs") == {"auto_mkdir": True}


def test_half_a_file_that_was_fetched_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (there := tmp_path / "bucket").mkdir()
    (there / "rows.parquet").write_text("rows")

    def fill_disk(_: object, __: str, target: str) -> None:
        Path(target).write_text("ro")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "_try", lambda _, do, __: do())
    monkeypatch.setattr(LocalFileSystem, "get_file", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        storage.fetch_files(f"file://{there}", tmp_path / "node")
    assert list((tmp_path / "node").iterdir()) == []
