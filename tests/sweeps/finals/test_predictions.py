"""What models said to the test rows comes back whole, in the right order, and as data only."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.finals import predictions
from sweeps.recipes import samsum, table
from sweeps.records.paths import RunPaths
from trainables.config import TrainingSettings
from trainables.data.rows import Row, Scoring, Splits, select_fixed_slice
from trainables.errors import SweepAborted
from trainables.metrics.classification import confusion
from trainables.metrics.eval_result import EvalResult

TEST = tuple(Row(id=str(n), prompt=f"chat {n}", target=f"sum {n}") for n in range(7))
VALIDATION = tuple(Row(id=f"v{n}", prompt=f"chat v{n}", target=f"sum v{n}") for n in range(5))
HOSTILE = '"}\n{"id": "0", "prediction": "forged"}\u2028<script>alert(1)</script>\\\r\n'


def splits_of(test: Sequence[Row], scoring: Scoring | None = None) -> Splits:
    return Splits(
        train=TEST,
        validation=VALIDATION,
        test=tuple(test),
        counts={},
        scoring=scoring or Scoring(),
        prompt_template="{x}",
    )


@pytest.fixture
def settings() -> TrainingSettings:
    return replace(samsum(True), eval_rows=3).settings


def scored(answers: Sequence[str], metric: str = "rouge1") -> EvalResult:
    values = tuple(float(place) for place in range(len(answers)))
    return EvalResult(metrics={metric: 1.0}, answers=tuple(answers), row_scores={metric: values})


def kept(
    folder: Path, settings: TrainingSettings, tuned: Sequence[str], base: Sequence[str]
) -> RunPaths:
    """A run of which adapter t0003 was tested; answers are in the order of scoring."""
    paths = RunPaths(folder)
    validation = ["", "", ""]
    found = {"validation_base": validation, "test_base": base, "t0003": tuned}
    predictions.save(
        paths, splits_of(TEST), settings, {name: scored(said) for name, said in found.items()}
    )
    return paths


def test_each_row_has_its_own_answers_and_scores(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    order = select_fixed_slice(TEST, len(TEST))
    assert order != list(TEST)
    tuned, base = ([f"{who} {row.id}" for row in order] for who in ("tuned", "base"))
    paths = kept(tmp_path, settings, tuned, base)
    found = predictions.load(paths, TEST, "t0003")
    assert sorted(one.id for one in found) == sorted(row.id for row in TEST)
    for place, one in enumerate(found):
        assert (one.prompt, one.target) == (f"chat {one.id}", f"sum {one.id}")
        assert (one.prediction, one.base_prediction) == (f"tuned {one.id}", f"base {one.id}")
        assert one.scores == one.base_scores == {"rouge1": place}


@given(said=st.lists(st.text(), min_size=7, max_size=7))
def test_what_a_model_wrote_comes_back_as_it_was_whatever_it_is(
    said: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    said[0] = HOSTILE
    best = tmp_path_factory.mktemp("best")
    paths = kept(best, replace(samsum(True), eval_rows=3).settings, said, said[::-1])
    rows = predictions.load(paths, TEST, "t0003")
    assert [one.prediction for one in rows] == said
    assert [one.base_prediction for one in rows] == said[::-1]
    (best / predictions.PREDICTIONS_FILE).write_text(
        predictions.make_files(rows, None)[predictions.PREDICTIONS_FILE],
        encoding="utf-8",
        newline="",
    )
    assert predictions.read(best) == rows


def test_answers_of_other_rows_are_not_taken(settings: TrainingSettings, tmp_path: Path) -> None:
    paths = kept(tmp_path, settings, ["a"] * 7, ["b"] * 7)
    assert predictions.load(paths, TEST, "t0004") == []
    assert predictions.load(paths, TEST[:6], "t0003") == []
    renamed = [*TEST[:6], replace(TEST[6], id="new")]
    assert predictions.load(paths, renamed, "t0003") == []
    assert len(predictions.load(paths, TEST, "t0003")) == 7


def test_confusion_matrix_is_of_the_tuned_model_in_the_order_of_the_labels(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    labels = ("yes", "no", "maybe")
    rows = tuple(replace(row, target=labels[n % 2]) for n, row in enumerate(TEST))
    order = select_fixed_slice(rows, len(rows))
    paths = RunPaths(tmp_path)
    splits = splits_of(rows, Scoring(kind="classify", labels=labels))
    tuned = [row.target if row.id != "4" else "maybe" for row in order]
    found = {"test_base": scored(["no"] * 7), "t0003": scored(tuned)}
    predictions.save(paths, splits, table(True).settings, found)
    said = predictions.load(paths, rows, "t0003")
    matrix = predictions.count_confusions(said, splits)
    assert matrix is not None and matrix.labels == labels
    assert matrix.counts == ((3, 0, 1), (0, 3, 0), (0, 0, 0))
    files = predictions.make_files(said, matrix)
    assert set(files) == {"test_predictions.jsonl", "confusion.csv", "label_scores.csv"}
    assert "yes,3,0,1" in files["confusion.csv"]


def test_label_that_a_spreadsheet_would_run_stands_behind_an_apostrophe() -> None:
    label = '=HYPERLINK("http://x")'
    files = predictions.make_files([], confusion([label], [label], [label, "no"]))
    for name in ("confusion.csv", "label_scores.csv"):
        rows = list(csv.reader(io.StringIO(files[name])))
        assert [row[0] for row in rows[1:]] == [f"'{label}", "no"]


def test_label_probabilities_stand_beside_each_prediction(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    paths, order = RunPaths(tmp_path), select_fixed_slice(TEST, len(TEST))
    shares = tuple({"yes": 0.5 + int(row.id) / 20, "no": 0.5 - int(row.id) / 20} for row in order)
    tuned = replace(scored(["yes"] * 7), probabilities=shares)
    splits = splits_of(TEST, Scoring(kind="classify", labels=("yes", "no")))
    predictions.save(paths, splits, settings, {"test_base": scored(["no"] * 7), "t0003": tuned})
    said = predictions.load(paths, TEST, "t0003")
    lines = predictions.make_files(said, None)["test_predictions.jsonl"].splitlines()
    for row, line in zip(order, map(json.loads, lines), strict=True):
        assert line["id"] == row.id
        assert line["probability"] == line["probabilities"]["yes"] == 0.5 + int(row.id) / 20
    texts = predictions.load(kept(tmp_path, settings, ["a"] * 7, ["b"] * 7), TEST, "t0003")
    assert "probabilit" not in predictions.make_files(texts, None)["test_predictions.jsonl"]


def test_texts_have_no_confusion_matrix_and_no_answers_no_file(
    settings: TrainingSettings, tmp_path: Path
) -> None:
    paths = kept(tmp_path, settings, ["a"] * 7, ["b"] * 7)
    found = predictions.load(paths, TEST, "t0003")
    assert predictions.count_confusions(found, splits_of(TEST)) is None
    assert set(predictions.make_files(found, None)) == {"test_predictions.jsonl"}
    labelled = splits_of(TEST, Scoring(kind="classify", labels=("a",)))
    assert predictions.count_confusions([], labelled) is None
    assert predictions.make_files([], None) == {}


def test_full_disk_is_told(settings: TrainingSettings, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("in the way")
    with pytest.raises(SweepAborted, match=r"cannot write .*answers: ") as told:
        kept(tmp_path, settings, ["a"] * 7, ["b"] * 7)
    assert told.value.is_resumable


@pytest.mark.parametrize("content", [None, "{}\n", "no json\n", '{"id": "0"}\n', "[]\n"])
def test_missing_or_damaged_file_is_told(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / predictions.PREDICTIONS_FILE
    if content is not None:
        path.write_text(content)
    with pytest.raises(SweepAborted, match=predictions.PREDICTIONS_FILE):
        predictions.read(tmp_path)


def test_file_is_one_json_object_a_row(settings: TrainingSettings, tmp_path: Path) -> None:
    paths = kept(tmp_path, settings, [HOSTILE] * 7, ["b"] * 7)
    found = predictions.load(paths, TEST, "t0003")
    text = predictions.make_files(found, None)[predictions.PREDICTIONS_FILE]
    lines = text.split("\n")
    assert len(lines) == 8 and lines[-1] == ""
    for line in lines[:-1]:
        row = json.loads(line)
        assert row["prediction"] == HOSTILE
        assert set(row) == {
            "id",
            "prompt",
            "target",
            "prediction",
            "base_prediction",
            "scores",
            "base_scores",
        }
