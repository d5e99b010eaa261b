"""The evaluation's bench, with the bundled model on a CPU."""

import json
import sys
from pathlib import Path

import pytest

from tests.benchmarks.packing import evaluation
from trainables.tiny import MODEL_DIR, SAMSUM_DIR


@pytest.mark.slow
def test_both_sides_answer_all_rows_of_all_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "found.json"
    flags = {
        "model-config": MODEL_DIR,
        "tokenizer": MODEL_DIR,
        "data": SAMSUM_DIR,
        "out": out,
        "num-adapters": 2,
        "num-rows": 3,
        "max-new-tokens": 2,
    }
    argv = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["evaluation", *argv])
    evaluation.main()
    found = json.loads(out.read_text("utf-8"))
    assert found["pack"]["num_adapters"] == 2
    assert found["pack"]["new_tokens"] == 2 * 3 * 2
    assert found["transformers"]["new_tokens"] == 3 * 2
    solo_s, pack_s = found["transformers"]["total_s"], found["pack"]["total_s"]
    assert found["times_faster"] == pytest.approx(2 * solo_s / pack_s)
    assert found["settings"]["data"] == "samsum"
    assert str(tmp_path) not in json.dumps(found)
