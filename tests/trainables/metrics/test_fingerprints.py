"""A fingerprint moves with all that moves a score, and with nothing else."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trainables.config import Metric
from trainables.data.rows import MetricCode, Scoring
from trainables.metrics.fingerprints import compute_fingerprint, digest_of_code

ROUGE = Metric(name="rougeLsum")
TEXTS = Scoring(language="english")
LABELS = Scoring(kind="classify", labels=("a", "b"))


def test_fingerprint_moves_with_metric_direction_language_and_labels() -> None:
    accuracy = Metric(name="accuracy")
    found = [
        compute_fingerprint(metric, scoring).digest
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
    assert compute_fingerprint(ROUGE, TEXTS).digest == found[0]


def test_fingerprint_moves_with_the_source_of_every_metric_of_the_users_own() -> None:
    def mine(source: str, name: str = "mine") -> MetricCode:
        return MetricCode(name=name, files={"a.py": source}, function=name)

    own = Metric(name="mine")
    found = [
        compute_fingerprint(metric, replace(TEXTS, custom=custom)).digest
        for metric, custom in (
            (own, (mine("1"),)),
            (own, (mine("2"),)),
            (own, (replace(mine("1"), key="a"),)),
            (own, (mine("1"), mine("1", "other"))),
            (own, (mine("1"), mine("2", "other"))),
            (ROUGE, (mine("1"),)),
            (ROUGE, (mine("2"),)),
            (ROUGE, ()),
        )
    ]
    assert len(set(found)) == len(found)
    module = MetricCode(name="evaluate_a", files={"a.py": "1"}, function=None)
    made = compute_fingerprint(Metric(name="evaluate_a"), replace(TEXTS, custom=(module,)))
    assert made.versions.keys() == {"unicode", "evaluate"}


def test_fingerprint_is_of_the_code_of_its_own_metric() -> None:
    texts = {
        name: compute_fingerprint(Metric(name=name), TEXTS) for name in ("rougeL", "bleu", "chrf")
    }
    assert texts["bleu"].rules == texts["chrf"].rules != texts["rougeL"].rules
    assert "nltk" in texts["rougeL"].versions and "nltk" not in texts["bleu"].versions
    of_label = compute_fingerprint(Metric(name="f1_a"), LABELS)
    assert of_label.rules == compute_fingerprint(Metric(name="mcc"), LABELS).rules


def test_fingerprint_moves_with_the_tables_of_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    before = compute_fingerprint(ROUGE, TEXTS)
    labels_before = compute_fingerprint(Metric(name="accuracy"), LABELS)
    monkeypatch.setattr("unicodedata.unidata_version", "0")
    after = compute_fingerprint(ROUGE, TEXTS)
    assert after.rules == before.rules and after.digest != before.digest
    assert compute_fingerprint(Metric(name="accuracy"), LABELS) == labels_before


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
