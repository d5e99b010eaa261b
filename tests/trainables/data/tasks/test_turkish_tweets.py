"""turkish_tweets: labels in whatever way they are written, and a Turkish question."""
# ruff: noqa: RUF001 - Turkish has a dotless i

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from trainables.config import TaskOptions
from trainables.data.rows import Scoring, Splits
from trainables.data.tasks import TASKS
from trainables.errors import SweepAborted

WRITTEN = {
    "nötr": [0, "0", " 0.0 ", "NÖTR", "tarafsız", "TARAFSIZ"],
    "olumsuz": [1, "1", "1.0", "Olumsuz ", "NEGATİF", "negatif"],
    "olumlu": [2, 2.0, "olumlu", "POZITIF", "Pozitif", "positive"],
}


def sheet(path: Path, labels: list[object]) -> str:
    """A workbook with one tweet a label."""
    tweets = [f"Bugün {number}. gün" for number in range(len(labels))]
    pd.DataFrame({"Tweets": tweets, "Duygu": labels}).to_excel(path, index=False)
    return str(path)


def load(data: str, options: TaskOptions | None = None) -> Splits:
    return TASKS["turkish_tweets"](options or TaskOptions()).load(data)


def test_labels_are_read_however_they_are_written(tmp_path: Path) -> None:
    pairs = [(value, name) for _ in range(3) for name, some in WRITTEN.items() for value in some]
    splits = load(sheet(tmp_path / "t.xlsx", [value for value, _ in pairs]))
    assert splits.scoring == Scoring(
        kind="classify", language="turkish", labels=("nötr", "olumsuz", "olumlu")
    )
    everything = [row for some in (splits.train, splits.validation, splits.test) for row in some]
    assert len(everything) == len(pairs)
    for row in everything:
        number = int(row.id.rpartition("-")[2]) - 1
        assert row.target == pairs[number][1]
        assert row.prompt == (
            "Aşağıdaki tweetin duygusu nedir? Yalnızca şunlardan biriyle yanıtla: nötr, olumsuz, "
            f"olumlu.\n\nBugün {number}. gün"
        )


def test_names_of_the_labels_are_a_setting(tmp_path: Path) -> None:
    data = sheet(tmp_path / "t.xlsx", [0, 1, "olumlu"] * 10)
    splits = load(data, TaskOptions(label_names=("2=positive", "1=negative", "0=neutral")))
    assert splits.scoring.labels == ("positive", "negative", "neutral")
    assert "positive, negative, neutral" in splits.prompt_template
    two = TaskOptions(label_names=("0=other", "1=other", "2=positive"))
    assert load(data, two).scoring.labels == ("other", "positive")


def test_label_of_no_meaning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepAborted, match="column Duygu holds '7'"):
        load(sheet(tmp_path / "t.xlsx", [0, 1, 2, 7] * 5))


def test_tweets_that_differ_in_case_and_address_stay_on_one_side(tmp_path: Path) -> None:
    ways = ("Işık {} iyi", "IŞIK {}  iyi https://t.co/a", "@ali ışık {} iyi")
    tweets = [way.format(i) for i in range(50) for way in ways]
    labels = [i % 3 for i in range(50) for _ in range(3)]
    pd.DataFrame({"Tweets": tweets, "Duygu": labels}).to_csv(tmp_path / "t.csv", index=False)
    splits = load(str(tmp_path / "t.csv"))
    for some in (splits.train, splits.validation, splits.test):
        numbers = {(int(row.id.rpartition("-")[2]) - 1) // 3 for row in some}
        assert len(some) == 3 * len(numbers) > 0


def test_other_columns_and_options_are_told_apart(tmp_path: Path) -> None:
    pd.DataFrame({"tweet": ["a"], "Duygu": [1]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(SweepAborted, match="no column 'Tweets'; found tweet, Duygu"):
        load(str(tmp_path / "t.csv"))
    with pytest.raises(SweepAborted, match="no use for --kind"):
        TASKS["turkish_tweets"](replace(TaskOptions(), kind="classify"))
