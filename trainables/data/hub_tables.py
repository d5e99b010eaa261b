"""The tables of any dataset on the Hub, from the Parquet files that the Hub itself makes of it."""

import json
import re
from pathlib import Path

import pandas as pd

from trainables.data.files import SPLIT_FILE_NAMES, Table, first_line, open_table
from trainables.errors import SweepAborted
from trainables.models.hub_files import dataset_files, hub_file

REVISION = "refs/convert/parquet"
"""The branch of Parquet files that the Hub makes of every dataset; no script runs."""


def read_hub(data: str) -> dict[str, Table]:
    """The tables of OWNER/NAME or OWNER/NAME/SUBSET by split; a lone table's split is "".

    Raises:
        SweepAborted: the Hub cannot be reached, or has no such dataset, subset or train split.
    """
    owner, name, *subset = data.split("/")
    repo = f"{owner}/{name}"
    try:
        files = _select_subset(_list_parquet_files(repo), repo, *subset)
        parts = {
            split: [f for f in files if f.split("/")[1] in names]
            for split, names in SPLIT_FILE_NAMES.items()
        }
        if not parts["train"]:
            names = ", ".join(sorted({file.split("/")[1] for file in files}))
            raise SweepAborted(
                f"{data} has no train split; found {names}",
                "download it, and pass --data DIR with a file called train",
            )
        return {split: _join(repo, paths) for split, paths in parts.items() if paths}
    except (OSError, ValueError) as error:
        raise SweepAborted(
            f"--data {data} is no file or folder here, and cannot be read from the Hub: "
            f"{first_line(error)}",
            "check the path or the dataset's name and the network, or pass --data FILE or DIR",
        ) from error


def _list_parquet_files(repo: str) -> list[str]:
    """SUBSET/SPLIT/NUMBER.parquet of all, or of those in the cache if the Hub is away."""
    names = dataset_files(repo, REVISION)
    return sorted(name for name in names if re.fullmatch(r"[^/]+/[^/]+/[^/]+\.parquet", name))


def _select_subset(files: list[str], repo: str, subset: str | None = None) -> list[str]:
    subsets = sorted({file.split("/")[0] for file in files})
    if subset is None:
        subset = "default" if "default" in subsets or len(subsets) != 1 else subsets[0]
    if subset not in subsets:
        raise SweepAborted(
            f"{repo} has no subset {subset}; found {', '.join(subsets) or 'no Parquet file'}",
            f"name one of them: --data {repo}/SUBSET",
        )
    return [file for file in files if file.startswith(f"{subset}/")]


def _join(repo: str, parts: list[str]) -> Table:
    paths = [hub_file(repo, part, dataset_revision=REVISION) for part in parts]
    frame = pd.concat([open_table(path).frame for path in paths], ignore_index=True)
    for column, names in _class_names(paths[0]).items():
        frame[column] = frame[column].map(dict(enumerate(names)))  # -1 is the Hub's missing label
    return Table(frame, f"{parts[0].rpartition('/')[0]} of {repo}: {len(frame):,} rows")


def _class_names(path: Path) -> dict[str, list[str]]:
    """The names behind the numbers of label columns, as the Hub keeps them beside the rows."""
    from pyarrow import parquet  # slow; a local table may need none

    metadata = parquet.read_schema(path).metadata or {}
    info = json.loads(metadata.get(b"huggingface", b"{}"))
    features = info.get("info", {}).get("features", {})
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
