"""The Parquet files that the Hub itself makes of every dataset; no script runs."""

import re
from pathlib import PurePosixPath

from trainables.data.tables.find_files import SPLIT_NAMES, DataFile
from trainables.errors import SweepAborted, get_first_line
from trainables.models.hub_files import download_hub_file, list_dataset_files

REVISION = "refs/convert/parquet"
"""The branch of these files."""


def find_hub_files(data: str) -> dict[str, list[DataFile]]:
    """The files of OWNER/NAME or OWNER/NAME/SUBSET by split, downloaded or from the cache.

    Raises:
        SweepAborted: the Hub cannot be reached, or has no such dataset, subset or train split.
    """
    owner, name, *subset = data.split("/")
    repo = f"{owner}/{name}"
    try:
        listed = list_dataset_files(repo, REVISION)
        shards = sorted(n for n in listed if re.fullmatch(r"[^/]+/[^/]+/[^/]+\.parquet", n))
        files = _select_subset(shards, repo, *subset)
        splits = {
            split: [f for f in files if f.split("/")[1] in names]
            for split, names in SPLIT_NAMES.items()
        }
        if not splits["train"]:
            names = ", ".join(sorted({file.split("/")[1] for file in files}))
            raise SweepAborted(
                f"{data} has no train split; found {names}",
                "download it, and pass --data DIR with a file called train",
            )
        return {s: [_download(repo, f, REVISION) for f in some] for s, some in splits.items()}
    except (OSError, ValueError) as error:
        raise SweepAborted(
            f"--data {data} is no file or folder here, and cannot be read from the Hub: "
            f"{get_first_line(error)}",
            "check the path or the dataset's name and the network, or pass --data FILE or DIR",
        ) from error


def download_splits(repo: str, revision: str) -> dict[str, list[DataFile]]:
    """The three splits of a Hub dataset of one Parquet file each, or those in the local cache.

    Raises:
        SweepAborted: the Hub cannot be reached or does not have the files.
    """
    splits = {}
    for split in SPLIT_NAMES:
        file = f"default/{split}/0000.parquet"
        try:
            splits[split] = [_download(repo, file, revision)]
        except OSError as error:
            raise SweepAborted(
                f"cannot download {file} of {repo}@{revision}: {get_first_line(error)}",
                "check the network, or pass --data DIR with train, validation and test files",
            ) from error
    return splits


def _download(repo: str, file: str, revision: str) -> DataFile:
    path = download_hub_file(repo, file, dataset_revision=revision)
    return DataFile(PurePosixPath(file), ".parquet", path.read_bytes)


def _select_subset(files: list[str], repo: str, subset: str | None = None) -> list[str]:
    """Those of one subset, of files called SUBSET/SPLIT/NUMBER.parquet."""
    subsets = sorted({file.split("/")[0] for file in files})
    if subset is None:
        subset = "default" if "default" in subsets or len(subsets) != 1 else subsets[0]
    if subset not in subsets:
        raise SweepAborted(
            f"{repo} has no subset {subset}; found {', '.join(subsets) or 'no Parquet file'}",
            f"name one of them: --data {repo}/SUBSET",
        )
    return [file for file in files if file.startswith(f"{subset}/")]
