"""The README says of every file what the file says of itself."""

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text()
PACKAGES = ("sweeps", "trainables", "search_spaces", "cluster")


def test_tree_has_the_first_docstring_line_of_every_file() -> None:
    files = [path for name in PACKAGES for path in (PROJECT / name).rglob("*.py")]
    assert len(files) > 30
    for path in files:
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, path
        name = f"{path.parent.relative_to(PROJECT)}/" if path.stem == "__init__" else path.name
        line = re.escape(name) + r"\s+" + re.escape(docstring.splitlines()[0])
        assert re.search(rf"^\s*{line}$", README, re.MULTILINE), path


def test_every_named_python_file_of_the_tree_exists() -> None:
    names = set(re.findall(r"^  (\w+\.py) ", README, re.MULTILINE))
    assert names
    assert names <= {path.name for name in PACKAGES for path in (PROJECT / name).rglob("*.py")}
