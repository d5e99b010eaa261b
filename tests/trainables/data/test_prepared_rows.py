"""The rows of a run come back from its folder as they were prepared, or not at all."""

import os
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from trainables import storage
from trainables.config import TrainingSettings
from trainables.data.prepared_rows import (
    digest_rows,
    fetch_rows,
    read_facts,
    read_rows,
    write_rows,
)
from trainables.data.rows import Row, Scoring, Splits, TableColumns
from trainables.errors import SweepAborted

ROW = Row(id="1", prompt="Ağaç\n\r\n  {x} \u2028 'q' \U0001f600", target=" été\t")
SPLITS = Splits(
    train=(ROW, replace(ROW, id="2", prompt="")),
    validation=(replace(ROW, id="3"),),
    test=(replace(ROW, id="0004"),),
    counts={"train": 2, "train blank": 0},
    scoring=Scoring(kind="classify", language="turkish", labels=("kötü", "iyi")),
    prompt_template="{text}\n",
    notes=("rows.csv: 4 rows", "encoding utf-8"),
    columns=TableColumns(
        prompt={"text": "Tweet "}, target="y", label_names={"0": "iyi"}, system_prompt="Öz."
    ),
)


def test_rows_and_facts_come_back_as_they_were(tmp_path: Path) -> None:
    write_rows(tmp_path / "run" / "rows", SPLITS)
    assert read_rows(tmp_path / "run" / "rows") == SPLITS
    none = replace(SPLITS, train=(), validation=(), test=())
    assert read_facts(tmp_path / "run" / "rows") == none
    assert os.listdir(tmp_path / "run") == ["rows"]
    names = {"train.parquet", "validation.parquet", "test.parquet", "splits.json"}
    assert set(os.listdir(tmp_path / "run" / "rows")) == names


def test_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows", SPLITS)
    with pytest.raises(OSError):
        write_rows(tmp_path / "rows", replace(SPLITS, train=SPLITS.test))
    assert read_rows(tmp_path / "rows") == SPLITS
    assert os.listdir(tmp_path) == ["rows"]


def test_rows_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    half = (replace(ROW, target="half a character: \ud83d"),)
    with pytest.raises(UnicodeEncodeError):
        write_rows(tmp_path / "rows", replace(SPLITS, test=half))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["train.parquet", "test.parquet", "splits.json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "another", "nested"])
def test_damaged_folder_is_one_clear_error(name: str, damage: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows", SPLITS)
    path = tmp_path / "rows" / name
    if damage == "gone":
        path.unlink()
    else:
        content = {"cut": path.read_bytes()[:-30], "empty": b"", "another": b"[]"}
        content["nested"] = b"[" * 100_000
        path.write_bytes(content[damage])
    with pytest.raises(SweepAborted, match=r"prepared rows in .*/rows cannot be read"):
        read_rows(tmp_path / "rows")


@pytest.mark.parametrize(
    "others",
    [
        (),
        (ROW, ROW),
        (replace(ROW, id="1" + ROW.prompt[0], prompt=ROW.prompt[1:]),),
        (replace(ROW, target=" été"),),
        (replace(ROW, id="01"),),
    ],
)
def test_digest_is_of_every_letter_of_every_row(others: tuple[Row, ...]) -> None:
    assert digest_rows([ROW]) == digest_rows((replace(ROW),))
    assert digest_rows(others) != digest_rows([ROW])


def test_digest_heeds_the_order() -> None:
    assert digest_rows(SPLITS.train) != digest_rows(SPLITS.train[::-1])


def test_folder_that_is_not_there_names_what_may_be_the_cause(tmp_path: Path) -> None:
    with pytest.raises(SweepAborted) as aborted:
        read_rows(tmp_path / "rows")
    assert "every node must see the run's folder" in aborted.value.fix


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_node_trains_on_the_rows_of_the_run_and_not_of_an_earlier_one_of_its_name(
    scheme: str, settings: TrainingSettings, tmp_path: Path
) -> None:
    url = {"memory": f"memory://{uuid.uuid4().hex}", "file": f"file://{tmp_path}/bucket"}[scheme]
    rows = tmp_path / "node" / "rows"
    settings = replace(settings, rows_dir=rows, storage=url)
    for content in ("first run", "other run"):
        for name in ("train.parquet", "test.parquet"):
            (tmp_path / name).write_text(content)
            storage.put_file(f"{url}/rows/{name}", tmp_path / name)
        for _ in range(2):
            fetch_rows(settings)
            assert [path.read_text() for path in rows.iterdir()] == [content] * 2
        assert list(rows.parent.iterdir()) == [rows]
        assert not (rows.stat().st_mode | rows.parent.stat().st_mode) & 0o007
