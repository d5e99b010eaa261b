"""Datasets of the Hub, from a cache without a Hub: subsets, shards, and the names of labels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from trainables.models.hub_files import is_dataset_id

CODE = """
import json, sys
from trainables.errors import SweepAborted
from trainables.config import TaskOptions
from trainables.data.tables.read_tables import read_tables
try:
    tables = read_tables(sys.argv[1], TaskOptions())
    print(json.dumps({s: t.frame.to_dict("list") for s, t in tables.items()}))
    print(*[table.note for table in tables.values()], sep="\\n")
except SweepAborted as told:
    print(told.error)
    print(told.fix)
"""


def cache(home: Path, *files: str) -> None:
    """A snapshot of the Parquet branch of owner/name with two rows a file."""
    commit = "0" * 40
    repo = home / "hub" / "datasets--owner--name"
    (repo / "refs" / "refs" / "convert").mkdir(parents=True)
    (repo / "refs" / "refs" / "convert" / "parquet").write_text(commit)
    features = {"label": {"_type": "ClassLabel", "names": ["bad", "good"]}, "text": {}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for file in files:
        path = repo / "snapshots" / commit / file
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table({"text": [f"{file} a", f"{file} b"], "label": [1, -1]})
        pa.parquet.write_table(table.replace_schema_metadata(metadata), path)


def ask(data: str, home: Path) -> list[str]:
    """The lines that a new process without a Hub prints."""
    environment = os.environ | {
        "HF_HOME": str(home),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_OFFLINE": "",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE, data],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_shards_are_joined_and_labels_have_their_names(tmp_path: Path) -> None:
    cache(
        tmp_path,
        "default/train/0000.parquet",
        "default/train/0001.parquet",
        "default/validation/0000.parquet",
        "other/train/0000.parquet",
    )
    rows, *notes = ask("owner/name", tmp_path)
    found = json.loads(rows)
    assert list(found) == ["train", "validation"]
    assert found["train"]["text"] == [
        f"default/train/000{shard}.parquet {row}" for shard in (0, 1) for row in "ab"
    ]
    assert [v if isinstance(v, str) else None for v in found["train"]["label"]] == [
        "good",
        None,
        "good",
        None,
    ]
    assert notes[0] == "default/train of owner/name: 4 rows"


def test_subset_is_chosen_by_name(tmp_path: Path) -> None:
    cache(tmp_path, "one/train/0000.parquet", "two/train/0000.parquet", "two/test/0000.parquet")
    assert ask("owner/name", tmp_path) == [
        "owner/name has no subset default; found one, two",
        "name one of them: --data owner/name/SUBSET",
    ]
    assert "two/train of owner/name: 2 rows" in ask("owner/name/two", tmp_path)


def test_dataset_without_train_or_network_is_refused(tmp_path: Path) -> None:
    cache(tmp_path, "default/test/0000.parquet")
    assert "owner/name has no train split; found test" in ask("owner/name", tmp_path)
    error, fix = ask("nobody/nothing", tmp_path)
    assert error.startswith("--data nobody/nothing is no file or folder here, and cannot be read")
    assert "--data FILE or DIR" in fix


@pytest.mark.parametrize(
    ("data", "is_id"),
    [
        ("owner/name", True),
        ("owner/name/subset", True),
        ("owner/a.b-c_d", True),
        ("folder", False),
        ("data/train.csv", False),
        ("./data/train", False),
        ("/data/train", False),
        ("a/b/c/d", False),
        ("s3://bucket/data", False),
    ],
)
def test_dataset_is_told_from_a_path(data: str, is_id: bool) -> None:
    assert is_dataset_id(data) is is_id


def test_folder_that_is_there_is_no_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_dataset_id("owner/name")
