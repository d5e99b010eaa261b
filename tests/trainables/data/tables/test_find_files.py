"""Which files of a folder or archive are read, and which could be two things and are refused."""

import zipfile
from pathlib import Path, PurePosixPath

import pytest

from trainables.config import TaskOptions
from trainables.data.tables.find_files import find_files, find_split
from trainables.data.tables.read_tables import read_tables
from trainables.errors import SweepAborted


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a,b\n1,2\n")
    return folder


def found(*data: Path) -> dict[str, list[str]]:
    files, _ = find_files(list(map(str, data)))
    return {split: [str(file.name) for file in some] for split, some in files.items()}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("my_train.csv", "train"),
        ("reviews.dev.jsonl", "validation"),
        ("VALID.csv", "validation"),
        ("eval.json", "test"),
        ("train/0000.parquet", "train"),
        ("data/test/part-1.csv", "test"),
        ("train/test.csv", "test"),
        ("train_and_test.csv", ""),
        ("contest.csv", ""),
        ("trainer.csv", ""),
    ],
)
def test_split_is_told_by_the_name_or_else_the_nearest_folder(name: str, split: str) -> None:
    assert find_split(PurePosixPath(name)) == split


def test_one_file_may_hold_everything_whatever_its_name(tmp_path: Path) -> None:
    make(tmp_path, "train.csv", "test.csv")
    assert found(tmp_path / "train.csv") == {"": ["train.csv"]}
    assert found(tmp_path / "train.csv", tmp_path / "test.csv") == {
        "train": ["train.csv"],
        "test": ["test.csv"],
    }


def test_folders_tell_the_splits_of_files_that_are_named_one_by_one(tmp_path: Path) -> None:
    make(tmp_path, "test/train/a.csv", "test/train/b.csv", "test/dev/a.csv")
    paths = [tmp_path / "test" / name for name in ("train/a.csv", "train/b.csv", "dev/a.csv")]
    assert found(*paths) == {"train": ["a.csv", "b.csv"], "validation": ["a.csv"]}
    assert found(*paths[:2]) == {"": ["a.csv", "b.csv"]}


def test_files_at_the_top_come_before_those_below(tmp_path: Path) -> None:
    make(tmp_path, "train.csv", "test.csv", "old/train.csv", "notes.csv", ".git/train.csv")
    files, unused = find_files([str(tmp_path)])
    assert {s: [str(f.name) for f in some] for s, some in files.items()} == {
        "train": ["train.csv"],
        "test": ["test.csv"],
    }
    assert unused == ["notes.csv", "old/train.csv"]


def test_plain_name_and_first_type_are_chosen_of_several(tmp_path: Path) -> None:
    make(tmp_path, "train.csv", "train_clean.csv", "train.jsonl")
    assert found(tmp_path) == {"train": ["train.csv"]}


@pytest.mark.parametrize(
    "names",
    [
        ("en/train.csv", "de/train.csv"),
        ("X_train.csv", "y_train.csv"),
        ("a.csv", "b.csv"),
        ("en/part-1.csv", "de/part-1.csv"),
    ],
)
def test_folder_that_could_be_two_things_is_refused(names: tuple[str, str], tmp_path: Path) -> None:
    make(tmp_path, *names)
    with pytest.raises(SweepAborted, match="has more than one") as told:
        find_files([str(tmp_path)])
    assert "--data" in told.value.fix and all(name in told.value.error for name in names)
    assert sum(map(len, found(*(tmp_path / name for name in names)).values())) == 2


def test_named_and_unnamed_files_do_not_mix(tmp_path: Path) -> None:
    make(tmp_path, "train.csv", "more.csv")
    with pytest.raises(SweepAborted, match=r"more.csv does not tell its split"):
        read_tables([str(tmp_path / "train.csv"), str(tmp_path / "more.csv")], TaskOptions())


def test_folder_or_archive_without_a_table_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "notes.txt", "dataset_infos.json")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("notes.txt", "x")
    for path in (tmp_path, tmp_path / "empty.zip"):
        with pytest.raises(SweepAborted, match="holds no table"):
            find_files([str(path)])
    (tmp_path / "empty.zip").write_bytes(b"PK no zip")
    with pytest.raises(SweepAborted, match=r"cannot read .*empty.zip"):
        find_files([str(tmp_path)])
