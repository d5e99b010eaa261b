"""The README stays short; every link, path and command of the documents is there."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
MAX_README_BYTES = 10 * 1024
DOCUMENTS = [
    *PROJECT.glob("*.md"),
    *(
        path
        for name in ("sweeps", "trainables", "cluster")
        for path in PROJECT.glob(f"{name}/**/*.md")
    ),
]
OURS = ("sweeps/", "trainables/", "search_spaces/", "cluster/", "tests/")


def test_readme_is_short() -> None:
    assert (PROJECT / "README.md").stat().st_size <= MAX_README_BYTES


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_paths_and_commands_are_there(path: Path) -> None:
    text = path.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    missing = [link for link in links if not (path.parent / link).exists()]
    names = [name for name in re.findall(r"`([\w./-]+)`", text) if name.startswith(OURS)]
    missing += [name for name in names if not (PROJECT / name).exists() and "NAME" not in name]
    modules = set(re.findall(r"python -m ([a-z_]+(?:\.[a-z_]+)+)", text))
    modules |= set(re.findall(r"^\| `(sweeps\.\w+)", text, flags=re.MULTILINE))
    missing += [module for module in modules if find_spec(module) is None]
    assert not missing


def test_documents_were_found() -> None:
    names = {str(path.relative_to(PROJECT)) for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "sweeps/README.md"} <= names
