"""The evaluation's bench, with the bundled model on a CPU."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.packing import evaluation, process
from trainables.tiny import MODEL_DIR, SAMSUM_DIR


def test_transformers_may_be_left_out(tmp_path: Path) -> None:
    args = evaluation.Args(
        model_config=Path("Qwen3.5-0.8B"),
        tokenizer=tmp_path,
        data=tmp_path,
        out=tmp_path / "out.json",
        solo_adapters=0,
    )
    timing = evaluation.Timing(
        num_adapters=16, tokenise_s=1.0, answer_s=20.0, rouge_s=2.0, peak_gib=9.0, new_tokens=64
    )
    figures = evaluation.make_figures(args, "H200", replace(timing, answer_s=30.0), timing, None)
    assert (figures["pack"]["first_total_s"], figures["pack"]["total_s"]) == (33.0, 23.0)
    assert not {"transformers", "times_faster"} & figures.keys()
    beside = evaluation.make_figures(args, "H200", timing, timing, replace(timing, num_adapters=1))
    assert beside["times_faster"] == 16.0


@pytest.mark.slow
def test_both_sides_answer_all_rows_of_all_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (evaluation, process):  # processes of their own would each load torch
        monkeypatch.setattr(module, "run_in_own_process", lambda measure, *args: measure(*args))
    out = tmp_path / "figures.json"
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
    figures = json.loads(out.read_text("utf-8"))
    assert figures["pack"]["num_adapters"] == 2
    assert figures["pack"]["new_tokens"] == 2 * 3 * 2
    assert figures["pack"]["predicted_gib"] > 0 and figures["transformers"]["predicted_gib"] is None
    assert figures["transformers"]["new_tokens"] == 3 * 2
    solo_s, pack_s = figures["transformers"]["total_s"], figures["pack"]["total_s"]
    assert figures["times_faster"] == pytest.approx(2 * solo_s / pack_s)
    assert figures["settings"]["data"] == "samsum"
    assert str(tmp_path) not in json.dumps(figures)
