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
from trainables.metrics.registry import LABEL_METRIC, METRICS
from trainables.metrics.rouge import ROUGE_TYPES


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


def compute_fingerprint(metric: Metric, scoring: Scoring) -> Fingerprint:
    """The fingerprint of one of a sweep's scores.

    The source of every metric of the user's own counts in it, so that none of them changes in the
    middle of a sweep.
    """
    settings: dict[str, object] = {"language": scoring.language}
    versions = {"unicode": unicodedata.unidata_version}
    if scoring.kind == "classify":
        settings, versions = {"labels": list(scoring.labels)}, {}
    is_custom = any(code.ranking_name == metric.name for code in scoring.custom)
    built_in = METRICS.get(metric.name) or (None if is_custom else LABEL_METRIC)
    if metric.name in ROUGE_TYPES:
        versions["nltk"] = version("nltk")
    if scoring.custom:
        settings["code"] = {
            code.ranking_name: _digest(json.dumps(asdict(code), sort_keys=True))
            for code in scoring.custom
        }
        if any(code.function is None for code in scoring.custom):
            versions["evaluate"] = version("evaluate")
    files = ("custom/process.py",) if built_in is None else built_in.files
    rules = digest_of_code([Path(__file__).parent / name for name in files])
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
