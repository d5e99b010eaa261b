"""What --metric may name, and what it means."""

from pathlib import Path

import pytest

from trainables.config import Metric, TaskOptions
from trainables.errors import SweepAborted
from trainables.metrics.registry import METRICS, is_reserved, rank_by, read_metrics, resolve_metrics


def test_the_first_ranks_and_all_are_asked_for() -> None:
    options = TaskOptions(
        metric="bleu, eval_loss,/a/b.py:score:key,evaluate:some/dir", metric_mode="min"
    )
    assert rank_by(options, "rougeLsum") == Metric(name="bleu")
    assert [asked.metric for asked in read_metrics(options)] == [
        Metric(name="bleu"),
        Metric(name="eval_loss", mode="min"),
        Metric(name="score_key", mode="min"),
        Metric(name="evaluate_dir", mode="min"),
    ]
    assert rank_by(TaskOptions(), "accuracy") == Metric(name="accuracy")
    assert read_metrics(TaskOptions()) == ()


def test_every_metric_of_this_project_can_be_asked_for_and_has_code_for_its_fingerprint() -> None:
    folder = Path(__file__).parents[3] / "trainables" / "metrics"
    for name, metric in METRICS.items():
        assert rank_by(TaskOptions(metric=name), "") == Metric(name=name, mode=metric.mode)
        assert all((folder / file).is_file() for file in metric.files)
        assert metric.files or name == "eval_loss"
    assert [name for name in METRICS if METRICS[name].mode == "min"] == ["eval_loss"]


@pytest.mark.parametrize(
    ("metric", "mode", "error", "fix"),
    [
        ("rougelsum", None, "--metric rougelsum is no metric", "perhaps you meant rougeLsum"),
        ("", None, "--metric '' is no metric", "name one of rouge1"),
        ("bleu,", None, "--metric '' is no metric", "name one of rouge1"),
        ("mine.py", None, "names no function", "--metric mine.py:FUNCTION"),
        ("bleu,chrf,bleu", None, "gives two scores the name bleu", "once"),
        ("a.py:f,b.py:f", None, "gives two scores the name f", "different names"),
        ("a.py:accuracy", None, "another score's name", "another name than accuracy"),
        ("a.py:f1_good", None, "another score's name", "another name"),
        ("bleu", "min", "--metric-mode min is of metrics of your own", "leave it out"),
    ],
)
def test_what_names_no_metric_is_told(metric: str, mode: str, error: str, fix: str) -> None:
    with pytest.raises(SweepAborted) as refused:
        read_metrics(TaskOptions(metric=metric, metric_mode=mode))  # type: ignore[arg-type]
    assert error in refused.value.error and fix in refused.value.fix


def test_a_mode_without_a_metric_is_refused() -> None:
    with pytest.raises(SweepAborted, match="--metric-mode max"):
        read_metrics(TaskOptions(metric_mode="max"))


def test_files_and_folders_that_are_there_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    (tmp_path / "module").mkdir()
    text = "bleu, mine.py:score:a,evaluate:module,evaluate:accuracy,none.py:f"
    assert resolve_metrics(text) == (
        f"bleu,{tmp_path}/mine.py:score:a,evaluate:{tmp_path}/module,evaluate:accuracy,none.py:f"
    )


@pytest.mark.parametrize("name", ["done", "tokens", "step", "status", "learning_rate", "pid"])
def test_no_metric_has_the_name_of_a_column_or_of_tunes(name: str) -> None:
    assert is_reserved(name) and not is_reserved(f"my_{name}")
