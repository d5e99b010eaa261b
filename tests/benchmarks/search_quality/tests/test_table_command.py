"""python -m tests.benchmarks.search_quality table, on the bundled model and rows."""

from pathlib import Path

import pytest

from tests.benchmarks.search_quality import table
from tests.benchmarks.search_quality.measurements import read_table
from trainables.errors import SweepAborted


@pytest.mark.slow
def test_a_call_that_ran_out_of_time_is_finished_by_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.json"
    argv = ["--tiny", "--seeds", "1", "--slots", "4", "--out", str(out)]
    assert table.main([*argv, "--limit-s", "0.001"]) == 0
    assert "0 of 4 configurations" in capsys.readouterr().out
    assert table.main(argv) == 0
    written = read_table(out)
    assert len(written.trained) == 4 and len(written.commands) == 2
    for one in written.trained:
        (run,) = one.runs
        assert tuple(m.step for m in run.measurements) == written.rungs == (1, 2, 3)
        costs = [m.train_gpu_s for m in run.measurements]
        assert costs == sorted(costs) and costs[0] > 0
        tokens = [m.tokens for m in run.measurements]
        assert tokens == sorted(tokens) and tokens[0] > 0
        assert {"rouge1", "rougeLsum", "eval_loss"} <= set(run.measurements[-1].metrics)
    losses = {one.runs[0].measurements[-1].metrics["eval_loss"] for one in written.trained}
    assert len(losses) == 4, "configurations that differ end alike"
    assert table.main(argv) == 0
    assert read_table(out).trained == written.trained


def test_rungs_of_all_schedules_are_measured() -> None:
    assert table.list_standard_rungs(900) == (33, 56, 100, 225, 300, 450, 900)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--seeds", "0"], "seeds is 0"),
        (["--levels", "1"], "levels is 1"),
        (["--limit-s", "-1"], "--limit-s is -1.0"),
        (["--model", "/nowhere/model"], "/nowhere/model"),
        (["--rungs", "2", "1"], "rungs is"),
    ],
)
def test_a_bad_flag_is_refused_before_anything_is_trained(
    tmp_path: Path, flags: list[str], error: str
) -> None:
    with pytest.raises(SweepAborted, match=error):
        table.main(["--tiny", "--out", str(tmp_path / "table.json"), *flags])
    assert not list(tmp_path.iterdir())
