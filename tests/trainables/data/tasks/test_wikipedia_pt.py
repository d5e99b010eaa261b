"""wikipedia_pt: rows of a folder or of one file, and what is told without data."""

import json
from pathlib import Path

import pytest

from trainables.config import TaskOptions
from trainables.data.tasks.wikipedia_pt import wikipedia_pt
from trainables.errors import SweepAborted

ROWS = [
    {"text": f"O artigo número {n}. " + "palavra " * n, "summary": f"Resumo {n}."}
    for n in range(40)
]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def test_one_file_is_split_by_content_alike_in_length(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", ROWS)
    splits = wikipedia_pt(TaskOptions()).load(str(tmp_path / "rows.jsonl"))
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [32, 4, 4]
    assert splits.notes == (
        "no train split: the 40 rows of rows.jsonl were split by their content",
    )
    assert len({row.id for row in splits.train}) == 32
    numbers = sorted(int(row.target[7:-1]) for row in splits.test)
    assert [number // 10 for number in numbers] == [0, 1, 2, 3]


def test_folder_keeps_its_splits(tmp_path: Path) -> None:
    for split, rows in {"train": ROWS[:5], "validation": ROWS[4:7], "test": ROWS[7:]}.items():
        write(tmp_path / f"{split}.jsonl", rows)
    splits = wikipedia_pt(TaskOptions()).load(str(tmp_path))
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [4, 3, 33]
    assert splits.counts["train also in validation"] == 1
    assert splits.train[0].prompt == f"{splits.prompt_template[:-6]}{ROWS[0]['text'].strip()}"
    assert splits.scoring.language == "portuguese"


def test_without_data_the_builder_is_named() -> None:
    with pytest.raises(SweepAborted) as told:
        wikipedia_pt(TaskOptions()).load(None)
    assert "python -m tests.benchmarks.wikipedia_pt_builder" in told.value.fix
    assert "--data" in told.value.fix
