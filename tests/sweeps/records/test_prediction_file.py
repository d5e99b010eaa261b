"""A file of predictions is written on storage without locks too."""

import errno
import fcntl
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeps.records.prediction_file import PredictionFile


def test_predictions_need_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "out.jsonl"
    file = PredictionFile(str(path), {}, pd.DataFrame({"a": [1]}), [{"a": 1}], ())
    file.append([{"a": 1, "prediction": "b"}])
    file.finish({})
    assert json.loads(path.read_text()) == {"a": 1, "prediction": "b"}
