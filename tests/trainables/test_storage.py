"""Files on object storage: whether it can be written, and what fetches all of a folder."""

from pathlib import Path

import pytest

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
