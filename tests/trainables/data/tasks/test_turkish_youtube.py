"""turkish_youtube: durations, the prompt, and one video in one split only."""
# ruff: noqa: RUF001 - Turkish has a dotless i

import json
from datetime import time
from pathlib import Path

import pytest

from trainables.config import TaskOptions
from trainables.data.rows import Splits
from trainables.data.tasks.turkish_youtube import parse_duration_s, turkish_youtube
from trainables.errors import SweepAborted

SPLITS = ("train", "validation", "test")


def video(number: int, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "id": 1,
        "title": f"Başlık {number}",
        "category": "tarih",
        "channel": "Kanal",
        "duration": "0:12:30",
        "url": f"https://www.youtube.com/watch?v=v{number}",
        "text": f"Bu {number}. videonun metnidir.",
        "summary": f"Özet {number}.",
    }
    return row | changes


def load(folder: Path, **rows: list[dict[str, object]]) -> Splits:
    for split, videos in rows.items():
        (folder / f"{split}.json").write_text(json.dumps(videos), "utf-8")
    return turkish_youtube(TaskOptions()).load(str(folder))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0:09:13", 553),
        ("1:00:00", 3600),
        ("9:13", 553),
        ("75:10", 4510),
        ("PT9M13S", 553),
        ("PT1H2M", 3720),
        ("P0DT45S", 45),
        ("553", 553),
        (553, 553),
        (553.0, 553),
        (time(0, 9, 13), 553),
        ("", None),
        ("long", None),
        ("PT", None),
        ("1:2:3:4", None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
    ],
)
def test_duration_is_read_in_every_form(value: object, seconds: int | None) -> None:
    assert parse_duration_s(value) == seconds


def test_videos_over_25_minutes_are_dropped_and_counted(tmp_path: Path) -> None:
    lengths = ["0:24:59", "0:25:00", "0:25:01", "2:00:00", "soon"]
    train = [video(n, duration=length) for n, length in enumerate(lengths)]
    splits = load(tmp_path, train=train, validation=[video(10)], test=[video(11)])
    assert [row.target for row in splits.train] == ["Özet 0.", "Özet 1."]
    assert splits.counts["train over 25 minutes"] == 2
    assert splits.counts["train without a readable duration"] == 1


def test_prompt_names_the_video_and_asks_in_turkish(tmp_path: Path) -> None:
    splits = load(tmp_path, train=[video(1)], validation=[video(2)], test=[video(3)])
    prompt = splits.train[0].prompt
    assert prompt.startswith("Aşağıda bir YouTube videosunun")
    assert "Başlık: Başlık 1\nKategori: tarih\nKanal: Kanal\n\nMetin:\nBu 1. video" in prompt
    assert splits.scoring.language == "turkish"
    assert splits.notes == ()


@pytest.mark.parametrize(
    "copy",
    [
        {"url": "https://youtu.be/v7?t=3"},
        {"url": "https://www.youtube.com/watch?list=x&v=v7"},
        {"title": "BAŞLIK 7!"},
        {"text": "bu 7 videonun,  metnidir"},
    ],
)
def test_a_copy_of_a_test_video_is_not_trained_on(tmp_path: Path, copy: dict[str, str]) -> None:
    train = [video(1), video(2, **copy)]
    splits = load(tmp_path, train=train, validation=[video(3)], test=[video(7)])
    assert [row.target for row in splits.train] == ["Özet 1."]
    assert splits.counts["train also in test"] == 1


def test_an_address_that_is_none_is_a_video_of_its_own(tmp_path: Path) -> None:
    rows = [video(number, url=f"https://[bad{number % 2}") for number in range(3)]
    splits = load(tmp_path, train=rows[:2], validation=[video(3)], test=rows[2:])
    assert [row.target for row in splits.train] == ["Özet 1."]


def test_without_a_train_file_the_others_are_split_anew_and_said(tmp_path: Path) -> None:
    first, second = [video(n) for n in range(15)], [video(n) for n in range(10, 30)]
    splits = load(tmp_path, validation=first, test=second)
    targets = [row.target for split in SPLITS for row in getattr(splits, split)]
    assert sorted(targets) == sorted(f"Özet {n}." for n in range(30))
    assert [len(getattr(splits, split)) for split in SPLITS] == [24, 3, 3]
    assert splits.counts["all duplicates"] == 5
    assert splits.notes == (
        "no train split: the 35 rows of validation and test were split by their content",
    )


def test_other_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(SweepAborted, match="no validation split"):
        load(tmp_path, train=[video(1)], test=[video(2)])
    with pytest.raises(SweepAborted, match="no column 'duration'"):
        load(
            tmp_path,
            train=[
                {
                    "text": "a",
                    **dict.fromkeys(("title", "category", "channel", "url", "summary"), "b"),
                }
            ],
            validation=[video(1)],
        )
