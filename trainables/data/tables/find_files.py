"""Which files hold the rows: files, folders as the Hub gives them, archives; by split."""

import os
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainables.errors import SweepAborted

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".xlsx")
"""File types of a table, in the order in which one is chosen where a split has several."""
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Arrow's name of what unpacks a file."""
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Words by which the Hub and people name a split's file, folder, sheet or key."""
_HUB_FACTS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What the Hub and the library datasets write beside the rows."""


@dataclass(frozen=True)
class DataFile:
    """A file with rows."""

    name: PurePosixPath
    """Its place, relative to what was named."""
    suffix: str
    """Its type, e.g. ".csv" of rows.csv.gz; not always a known one."""
    read: Callable[[], bytes]
    """Gives its content, unpacked."""


def find_files(data: Sequence[str]) -> tuple[dict[str, list[DataFile]], list[str]]:
    """The files of each split, "" where none is named; and the names of those that are not used.

    Raises:
        SweepAborted: a path does not exist, or it is not plain which files are meant.
        OSError: a folder may not be read.
    """
    paths = [Path(os.path.abspath(path)) for path in data]
    for name, path in zip(data, paths, strict=True):
        if not (path.is_file() or path.is_dir()):
            fix = "download it first, then name the file" if "://" in name else "check --data"
            alone = "; a dataset of the Hub is named alone" if len(data) > 1 else ""
            raise SweepAborted(f"--data {name} does not exist", fix + alone)
    base = Path(os.path.commonpath(paths))
    splits: dict[str, list[DataFile]] = defaultdict(list)
    unused: list[str] = []
    for path in paths:
        is_several = path.is_dir() or path.suffix.lower() == ".zip"
        files = sorted(_list_files(path), key=lambda file: file.name)
        chosen = _choose_files(path, files) if is_several else {find_split(path.name): files}
        used = {id(file) for some in chosen.values() for file in some}
        unused += [str(file.name) for file in files if id(file) not in used]
        inside = find_split(path.relative_to(base))
        for split, some in chosen.items():
            splits[split or inside] += some
    if len(paths) == 1 and not paths[0].is_dir() and sum(map(len, splits.values())) == 1:
        return {"": next(iter(splits.values()))}, unused  # train.csv alone may hold everything
    return dict(splits), unused


def find_split(name: str | Path | PurePosixPath) -> str:
    """The split that a file's name, or else the nearest of its folders, tells; "" for none."""
    for part in reversed(PurePosixPath(name).parts):
        words = set(re.findall(r"[a-z]+", part.lower()))
        splits = [split for split, names in SPLIT_NAMES.items() if words & set(names)]
        if splits:
            return splits[0] if len(splits) == 1 else ""
    return ""


def _list_files(path: Path) -> Iterable[DataFile]:
    """The tables among the files of a folder or archive, however deep; the file itself."""
    if path.suffix.lower() == ".zip" and path.is_file():
        yield from _list_archive(path)
    elif path.is_file():
        yield _make_data_file(PurePosixPath(path.name), path)
    else:
        for folder, inner, names in os.walk(path, onerror=_raise_refused):
            inner[:] = [name for name in inner if _is_shown(PurePosixPath(name))]
            for file in (Path(folder, name) for name in names):
                name = PurePosixPath(file.relative_to(path).as_posix())
                if file.suffix.lower() == ".zip" and _is_shown(name):
                    yield from _list_archive(file)
                elif _is_table(name) and file.is_file():
                    yield _make_data_file(name, file)


def _raise_refused(refused: OSError) -> None:
    raise refused  # rows of a folder that may not be read must not be left out in silence


def _list_archive(path: Path) -> Iterable[DataFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(name) for name in archive.namelist()]
    except zipfile.BadZipFile as damaged:
        raise SweepAborted(f"cannot read {path}: {damaged}", "copy or make it again") from None
    for name in filter(_is_table, names):
        yield _make_data_file(name, path, member=str(name))


def _make_data_file(name: PurePosixPath, path: Path, member: str | None = None) -> DataFile:
    """The file, or a member of an archive, which is unpacked once it is read."""
    packed = COMPRESSIONS.get(name.suffix.lower())

    def read() -> bytes:
        if member is None:
            content = path.read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                content = archive.read(member)
        if packed is None:
            return content
        import pyarrow  # slow; a plain file needs none

        buffer = pyarrow.BufferReader(content)
        return bytes(pyarrow.CompressedInputStream(buffer, packed).read())

    return DataFile(name, _find_suffix(name), read)


def _is_table(name: PurePosixPath) -> bool:
    return _find_suffix(name) in SUFFIXES and name.name not in _HUB_FACTS and _is_shown(name)


def _is_shown(name: PurePosixPath) -> bool:
    """Whether no part of it is hidden, as .git, .cache, __MACOSX and Spark's _SUCCESS are."""
    return not any(part.startswith((".", "_")) for part in name.parts)


def _find_suffix(name: PurePosixPath) -> str:
    """The type, of what is inside if the file is compressed."""
    plain = PurePosixPath(name.stem) if name.suffix.lower() in COMPRESSIONS else name
    return plain.suffix.lower()


def _choose_files(folder: Path, files: Sequence[DataFile]) -> dict[str, list[DataFile]]:
    """The files of each split of a folder or archive; those at its top before those below.

    Raises:
        SweepAborted: there is none, or there are several that do not look like parts of one table.
    """
    top = [file for file in files if len(file.name.parts) == 1]
    named = [f for f in top if find_split(f.name)] or [f for f in files if find_split(f.name)]
    if not named:
        return {"": _choose_shards(folder, top or files, "table")}
    splits = {split: [f for f in named if find_split(f.name) == split] for split in SPLIT_NAMES}
    return {s: _choose_shards(folder, some, f"{s} file") for s, some in splits.items() if some}


def _choose_shards(folder: Path, files: Sequence[DataFile], what: str) -> list[DataFile]:
    """The files of one type, if they are all of one table: alike but for numbers."""
    types = {file.suffix: [f for f in files if f.suffix == file.suffix] for file in files}
    of_type = next((types[suffix] for suffix in SUFFIXES if suffix in types), [])
    tables = defaultdict(list)
    for file in of_type:
        tables[_find_table_name(file.name)].append(file)
    words = {name for names in SPLIT_NAMES.values() for name in names}
    plain = [some for some in tables.values() if some[0].name.name.split(".")[0].lower() in words]
    if len(tables) == 1 or len(plain) == 1:
        return (plain or list(tables.values()))[0]
    if not tables:
        raise SweepAborted(
            f"{folder} holds no table", f"name a file or folder with one of {', '.join(SUFFIXES)}"
        )
    names = ", ".join(str(some[0].name) for some in list(tables.values())[:8])
    raise SweepAborted(
        f"{folder} has more than one {what}; it holds {names}",
        "name the files or the folder that you mean, e.g. "
        f"--data {folder / str(next(iter(tables.values()))[0].name)}; of files called train, "
        "validation and test each is a split",
    )


def _find_table_name(name: PurePosixPath) -> str:
    """What the files of one table have in common: a split's folder, or the name but for numbers."""
    for depth, part in enumerate(name.parts[:-1], 1):
        if find_split(part) and not find_split(name.name):
            return "/".join(name.parts[:depth])
    return re.sub(r"[0-9]+", "", str(name))
