"""python -m tests.benchmarks.search_quality replay, on a table that nothing was trained for."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.search_quality import replay
from tests.benchmarks.search_quality.contenders import CONTENDERS, OURS
from tests.benchmarks.search_quality.measurements import Table, write_table
from tests.benchmarks.search_quality.tests.synthetic_table import make_table
from trainables.errors import SweepAborted


def save_table(folder: Path, table: Table | None = None) -> Path:
    path = folder / "table.json"
    write_table(path, table or make_table(levels=4))
    return path


def test_a_replay_writes_figures_table_and_picture_of_every_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "replay.json"
    argv = [str(save_table(tmp_path)), "--out", str(out), "--searches", "2", "--jobs", "1"]
    assert replay.main([*argv, "--concurrencies", "8", "--budget-frac", "0.1"]) == 0
    results = json.loads(out.read_text())
    assert {curve["method"] for curve in results["curves"]} == set(CONTENDERS)
    assert results["num_configurations"] == 96 and results["reference"] == OURS
    for curve in results["curves"]:
        assert len(curve["regret"]) == len(results["budget_fracs"]) == 10
        assert all(one["low"] <= one["mean"] <= one["high"] for one in curve["regret"])
    markdown = out.with_suffix(".md").read_text()
    assert all(f"| {name} |" in markdown for name in CONTENDERS)
    assert markdown in capsys.readouterr().out
    root = ElementTree.fromstring(out.with_suffix(".svg").read_text())
    lines = [one for one in root.iter() if one.get("aria-roledescription") == "line mark"]
    assert len(lines) == len(CONTENDERS)


def test_a_part_of_the_learning_rates_is_a_table_of_its_own(tmp_path: Path) -> None:
    args = replay.ReplayArgs(
        table=save_table(tmp_path),
        out=tmp_path / "replay.json",
        searches=1,
        concurrencies=(8,),
        learning_rates=(1e-4, 1e-3),
        budget_frac=0.1,
        methods=("random + ASHA",),
        jobs=1,
    )
    comparison = replay.compare_methods(args, "command")
    assert comparison.num_configurations == 48
    assert comparison.learning_rates[0] > 1e-4
    assert comparison.reference == "random + ASHA"


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--learning-rates", "1", "2"], "holds no learning rate"),
        (["--metric", "bleu"], "has no metric 'bleu'"),
        (["--methods", "guess"], "methods is .'guess'"),
        (["--searches", "0"], "searches is 0"),
        (["--budget-frac", "2"], "--budget-frac is 2.0"),
    ],
)
def test_what_a_table_cannot_answer_is_refused(
    tmp_path: Path, flags: list[str], error: str
) -> None:
    with pytest.raises(SweepAborted, match=error):
        replay.main([str(save_table(tmp_path)), "--out", str(tmp_path / "replay.json"), *flags])


def test_a_table_without_the_rungs_of_a_search_is_refused(tmp_path: Path) -> None:
    table = make_table(levels=2)
    origin = replace(table.origin, settings={"rungs": [33, 900]})
    path = save_table(tmp_path, replace(table, origin=origin))
    with pytest.raises(SweepAborted, match="no values at step 100"):
        replay.main([str(path), "--out", str(tmp_path / "replay.json")])
