"""What decides a score besides the answers: two scores compare only where all of it is equal.

Nothing that scores is imported, so that a sweep's driver can tell a fingerprint without PyTorch.
"""

import ast
import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from trainables.config import Metric
from trainables.data.rows import Scoring

_RULES = {
    "summarize": ("rouge.py", "lcs.py", "sentences.py", "words.py"),
    "classify": ("classification.py",),
}
"""Files of this folder whose code is the metric, by kind of target."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """A metric with what its values depend on."""

    name: str
    mode: str
    settings: dict[str, object]
    """E.g. the language or the labels, in their order."""
    rules: str
    """Digest of the metric's own code without comments and docstrings."""
    versions: dict[str, str]
    """Libraries and tables whose changes may move a score a little."""

    @property
    def digest(self) -> str:
        """All of it as twelve hexadecimal characters."""
        return _digest(json.dumps(asdict(self), sort_keys=True))


def fingerprint(metric: Metric, scoring: Scoring) -> Fingerprint:
    """The fingerprint of the score that ranks a sweep's trials."""
    settings: dict[str, object] = {"labels": list(scoring.labels)}
    versions = {}
    if scoring.kind != "classify":
        settings = {"language": scoring.language}
        versions = {"nltk": version("nltk"), "unicode": unicodedata.unidata_version}
    rules = digest_of_code(
        [
            Path(__file__).with_name(name)
            for name in _RULES["classify" if scoring.kind == "classify" else "summarize"]
        ]
    )
    return Fingerprint(
        name=metric.name, mode=metric.mode, settings=settings, rules=rules, versions=versions
    )


def digest_of_code(paths: Sequence[Path]) -> str:
    """Digest of what the files do: layout, comments and docstrings do not move it."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                body = [part for part in node.body if not _is_docstring(part)]
                node.body = body or [ast.Pass()]
    return _digest("\0".join(ast.unparse(tree) for tree in trees))


def _is_docstring(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
