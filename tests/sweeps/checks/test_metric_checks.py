"""Metrics that cannot score a task's answers are refused before a GPU is used."""

from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.checks.metrics import choose_metrics
from trainables.config import TaskOptions
from trainables.data.rows import MetricCode, Row, Scoring, Splits
from trainables.errors import SweepAborted

ROWS = tuple(Row(id=f"row {n}", prompt="?", target=target) for n, target in enumerate("ab"))
TEXTS = Splits(
    train=ROWS, validation=ROWS, test=ROWS, counts={}, scoring=Scoring(), prompt_template="{a}"
)
LABELS = replace(TEXTS, scoring=Scoring(kind="classify", labels=("a", "b", "çok iyi")))


def refusal(splits: Splits, metric: str, *, is_resumed: bool = False) -> tuple[str, str]:
    with pytest.raises(SweepAborted) as refused:
        choose_metrics(splits, TaskOptions(metric=metric), is_resumed=is_resumed)
    return refused.value.error, refused.value.fix


def test_metrics_of_the_other_kind_are_refused() -> None:
    error, fix = refusal(TEXTS, "macro_f1")
    assert error == "--metric macro_f1 is of labels, and the answers here are texts"
    assert "bleu" in fix and "eval_loss" in fix and "accuracy" not in fix
    assert refusal(LABELS, "accuracy,bleu")[0].startswith("--metric bleu is of texts")
    assert refusal(TEXTS, "f1_a")[0].startswith("--metric f1_a is of labels")
    for splits in (TEXTS, LABELS):
        assert choose_metrics(splits, TaskOptions(metric="eval_loss"), is_resumed=False)


def test_a_label_that_is_not_there_is_refused_with_those_that_are() -> None:
    error, fix = refusal(LABELS, "f1_c")
    assert error == "--metric f1_c is of no label here" and "f1_a, f1_b, f1_cok_iyi" in fix
    asked = TaskOptions(metric="f1_cok_iyi,recall_a")
    chosen = choose_metrics(LABELS, asked, is_resumed=False)
    assert chosen.scoring.metrics == ("f1_cok_iyi", "recall_a")


def test_fields_of_json_need_targets_that_are_json() -> None:
    error, _ = refusal(TEXTS, "json_fields")
    assert error.startswith("--metric json_fields: the target of row row 0 is no JSON")


def test_a_file_that_is_missing_or_unreadable_is_refused(tmp_path: Path) -> None:
    error, fix = refusal(TEXTS, f"{tmp_path}/none.py:score")
    assert f"there is no file {tmp_path}/none.py" in error and "Python file" in fix
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    assert "cannot be read" in refusal(TEXTS, f"{tmp_path}/latin.py:score")[0]
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path}/empty/empty.py" in refusal(TEXTS, f"evaluate:{tmp_path}/empty")[0]


@pytest.mark.slow
def test_a_module_that_is_not_here_is_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    error, fix = refusal(TEXTS, "evaluate:accuracy")
    assert "--metric evaluate:accuracy cannot be loaded" in error
    assert "nothing is downloaded" in fix and "evaluate.load('accuracy')" in fix


def write(folder: Path, body: str) -> str:
    path = folder / "mine.py"
    path.write_text(f"def score(rows):\n    {body}\n")
    return f"{path}:score"


def test_a_function_is_tried_on_a_right_and_an_empty_answer(tmp_path: Path) -> None:
    error, fix = refusal(TEXTS, write(tmp_path, "return [r['answer'][0] == 'a' for r in rows]"))
    assert "the metric score failed: IndexError" in error and "mine.py, line 2" in error
    assert "with the answers 'a' and ''" in error and "whatever a model says" in fix
    assert "it returned str" in refusal(TEXTS, write(tmp_path, "return 'good'"))[0]
    asked = TaskOptions(metric=f"bleu,{write(tmp_path, 'return len(rows)')}")
    chosen = choose_metrics(TEXTS, asked, is_resumed=False)
    source = "def score(rows):\n    return len(rows)\n"
    code = MetricCode(name="score", files={"mine.py": source}, function="score")
    assert chosen.scoring == replace(TEXTS.scoring, metrics=("bleu",), custom=(code,))
    assert chosen == replace(TEXTS, scoring=chosen.scoring)


def test_a_resumed_sweep_keeps_its_source(tmp_path: Path) -> None:
    metric = write(tmp_path, "return 1.0")
    began = choose_metrics(TEXTS, TaskOptions(metric=metric), is_resumed=False)
    assert choose_metrics(began, TaskOptions(metric=metric), is_resumed=True) == began
    write(tmp_path, "return 2.0")
    error, fix = refusal(began, metric, is_resumed=True)
    assert "the metric score is not what it was" in error and "another --name" in fix
    (tmp_path / "mine.py").unlink()  # gone: the run has its own copy
    assert choose_metrics(began, TaskOptions(metric=metric), is_resumed=True) == began
