"""SAMSum: what is read, what is dropped, and what a user is told about bad data."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from trainables.config import TaskOptions
from trainables.data.rows import Splits
from trainables.data.tasks import TASKS
from trainables.errors import SweepAborted

SPLITS = ("train", "validation", "test")
CHATS = {
    "train": [
        ("1", "Ann: Hi\nBob: Hi", "They greet."),
        ("2", "Ann: Hi\r\n Bob:  Hi", "A duplicate but for its white space."),
        ("3", "  ", "Blank."),
        ("4", "Ann: Blank", " "),
        ("5", "Cem: In validation", "Shared."),
        ("6", "Cem: In test", "Shared."),
        ("7", "Cem: In both", "Shared."),
        ("8", "NA", " null "),
    ],
    "validation": [
        ("9", "Cem: In validation", "Valid."),
        ("10", "Cem: In both", "Dropped."),
        ("11", "Ann: Mine", "V."),
    ],
    "test": [("12", "Cem: In test", "Tested."), ("13", "Cem: In both", "Kept.")],
}


def write(folder: Path, suffix: str) -> None:
    """Write CHATS as files of a type."""
    for split in SPLITS:
        table = pd.DataFrame(CHATS[split], columns=["id", "dialogue", "summary"])
        path = folder / f"{split}.{suffix}"
        if suffix == "csv":
            table.to_csv(path, index=False)
        elif suffix == "jsonl":
            table.to_json(path, orient="records", lines=True)
        else:
            table.to_parquet(path)


def load(folder: Path | str) -> Splits:
    """The task's rows of a folder."""
    return TASKS["samsum"](TaskOptions()).load(str(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good folder of CSV files."""
    write(tmp_path, "csv")
    return tmp_path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_rows_are_cleaned_and_counted(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix)
    splits = load(tmp_path)
    assert [row.id for row in splits.train] == ["1", "8"]
    assert [row.id for row in splits.validation] == ["9", "11"]
    assert [row.id for row in splits.test] == ["12", "13"]
    assert splits.counts == {
        "train blank": 2,
        "validation blank": 0,
        "test blank": 0,
        "train also in validation": 2,
        "train also in test": 2,
        "train duplicates": 1,
        "validation also in test": 1,
        "train": 2,
        "validation": 2,
        "test": 2,
    }


def test_prompt_asks_for_a_summary_of_the_dialogue(folder: Path) -> None:
    first, last = load(folder).train
    assert first.prompt == "Summarize the following dialogue.\n\nAnn: Hi\nBob: Hi"
    assert first.target == "They greet."
    assert last.prompt.endswith("\n\nNA")
    assert last.target == "null"


def test_braces_in_a_dialogue_stay(folder: Path) -> None:
    pd.DataFrame([("1", "Ann: {x} {}", "Braces.")], columns=["id", "dialogue", "summary"]).to_csv(
        folder / "train.csv", index=False
    )
    assert load(folder).train[0].prompt.endswith("Ann: {x} {}")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SweepAborted, match="nowhere does not exist"):
        load(tmp_path / "nowhere")


def test_missing_split_names_the_files_found(folder: Path) -> None:
    (folder / "validation.csv").rename(folder / "other.csv")
    with pytest.raises(SweepAborted, match=r"no validation split in .*; found train, test"):
        load(folder)


def test_files_may_be_named_as_the_hub_does(folder: Path) -> None:
    before = load(folder)
    (folder / "data").mkdir()
    for split, name in zip(SPLITS, ("train", "dev", "test"), strict=True):
        (folder / f"{split}.csv").rename(folder / "data" / f"{name}-00000-of-00001.csv")
    assert load(folder) == before


def test_missing_column_names_those_found(folder: Path) -> None:
    pd.DataFrame({"id": ["1"], "text": ["Ann: Hi"]}).to_csv(folder / "test.csv", index=False)
    with pytest.raises(SweepAborted, match=r"no column 'dialogue', 'summary'; found id, text"):
        load(folder)


def test_split_of_blank_rows_is_empty(folder: Path) -> None:
    (folder / "validation.csv").write_text("id,dialogue,summary\n1, ,x\n", encoding="utf-8")
    with pytest.raises(SweepAborted, match="validation split of samsum has no usable row"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", b""),
        ("train.csv", b"id,dialogue,summary\n1,\x81\x8d,x\n"),
        ("train.csv", b'id,dialogue,summary\n1,"open quote,x\n'),
        ("train.jsonl", b"{broken\n"),
        ("train.parquet", b"PAR0 not parquet"),
    ],
)
def test_unreadable_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / "train.csv").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(SweepAborted, match=f"cannot read .*{name}"):
        load(folder)


def test_unreachable_hub_tells_to_pass_data(tmp_path: Path) -> None:
    imports = "from trainables.config import TaskOptions; from trainables.data.tasks import TASKS"
    code = f"{imports}; TASKS['samsum'](TaskOptions()).load(None)"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "SweepAborted: error: cannot download default/train/0000.parquet" in done.stderr
    assert "--data DIR" in done.stderr


def test_tasks_load_no_torch() -> None:
    code = "import sys, trainables.data.tasks; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_names_in_the_registry_are_those_of_the_tasks() -> None:
    assert [make(TaskOptions()).name for make in TASKS.values()] == list(TASKS)
