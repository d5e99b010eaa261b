"""A fingerprint moves with all that moves a score, and with nothing else."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trainables.config import Metric
from trainables.data.rows import Scoring
from trainables.metrics.fingerprints import digest_of_code, fingerprint

ROUGE = Metric(name="rougeLsum")
TEXTS = Scoring(language="english")
LABELS = Scoring(kind="classify", labels=("a", "b"))


def test_fingerprint_moves_with_metric_direction_language_and_labels() -> None:
    accuracy = Metric(name="accuracy")
    found = [
        fingerprint(metric, scoring).digest
        for metric, scoring in (
            (ROUGE, TEXTS),
            (Metric(name="rougeL"), TEXTS),
            (Metric(name="rougeLsum", mode="min"), TEXTS),
            (ROUGE, replace(TEXTS, language="turkish")),
            (accuracy, LABELS),
            (accuracy, replace(LABELS, labels=("b", "a"))),
        )
    ]
    assert len(set(found)) == len(found)
    assert fingerprint(ROUGE, TEXTS).digest == found[0]


def test_fingerprint_moves_with_the_tables_of_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(ROUGE, TEXTS)
    labels_before = fingerprint(Metric(name="accuracy"), LABELS)
    monkeypatch.setattr("unicodedata.unidata_version", "0")
    after = fingerprint(ROUGE, TEXTS)
    assert after.rules == before.rules and after.digest != before.digest
    assert fingerprint(Metric(name="accuracy"), LABELS) == labels_before


def test_code_counts_and_its_comments_do_not(tmp_path: Path) -> None:
    versions = {
        "plain": "def f(x):\n    return x + 1\n",
        "told": '"""What."""\n\ndef f(x):\n    """Why."""\n    return (x  +  1)  # so\n',
        "other": "def f(x):\n    return x + 2\n",
    }
    digests = {}
    for name, code in versions.items():
        path = tmp_path / f"{name}.py"
        path.write_text(code)
        digests[name] = digest_of_code([path])
    assert digests["plain"] == digests["told"] != digests["other"]


def test_fingerprint_needs_nothing_that_scores() -> None:
    code = (
        "import sys, trainables.metrics.fingerprints; "
        "print(sorted({'torch', 'datasets', 'evaluate', 'nltk'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
