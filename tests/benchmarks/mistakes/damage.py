"""Ways to prepare or damage a folder before a command starts; each gives a function of it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], object]


def write(name: str, content: str | bytes) -> Damage:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def replace(name: str, old: str, new: str) -> Damage:

    def change(folder: Path) -> None:
        text = (folder / name).read_text("utf-8")
        assert old in text, (name, old)
        (folder / name).write_text(text.replace(old, new, 1), "utf-8")

    return change


def remove(*names: str) -> Damage:

    def change(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def cut(name: str, share: float = 0.5) -> Damage:

    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return change


def make_folder(name: str) -> Damage:
    return lambda folder: (folder / name).mkdir(parents=True)


def make_pipe(name: str) -> Damage:
    return lambda folder: os.mkfifo(folder / name)


def link(name: str, target: str = "gone") -> Damage:
    """A link, by default one whose file is gone."""
    return lambda folder: (folder / name).symlink_to(target)


def replace_by_folder(name: str) -> Damage:
    return chain(remove(name), make_folder(name))


def link_out(name: str) -> Damage:
    """A link to the same content elsewhere."""

    def change(folder: Path) -> None:
        elsewhere = folder.parent / f"elsewhere-{Path(name).name}"
        os.rename(folder / name, elsewhere)
        (folder / name).symlink_to(elsewhere)

    return change


def chain(*damages: Damage) -> Damage:
    """One after the other; none leaves the folder whole."""

    def change(folder: Path) -> None:
        for damage in damages:
            damage(folder)

    return change
