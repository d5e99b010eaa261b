"""The list of mistakes is long and has no mistake twice, and an answer that fails is told."""

from collections import Counter

import pytest

from tests.benchmarks.mistakes.__main__ import choose_mistakes, main
from tests.benchmarks.mistakes.mistake import Mistake, run_mistake


def test_every_kind_has_many_mistakes_and_none_is_there_twice() -> None:
    mistakes = choose_mistakes(None)
    kinds = Counter(mistake.kind for mistake in mistakes)
    assert len(kinds) == 7
    assert min(kinds.values()) >= 25
    same = Counter((m.kind, m.title, m.command, str(m.environment)) for m in mistakes)
    assert [words for words, count in same.items() if count > 1] == []


@pytest.mark.slow
def test_answer_that_is_not_as_promised_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that does what it is asked is no refusal."""
    made = Mistake(kind="machine", title="none", command="sweeps.status . --json", named="odd")
    assert run_mistake(made).faults == ["does not name odd"]
    helped = Mistake(kind="machine", title="none", command="cluster.check --help", named="odd")
    assert run_mistake(helped).faults[:2] == ["exit code 0", "does not end with error and fix"]
    assert main(["--only", "sweeps-run samsun"]) == 0
    assert '"as_promised": 1' in capsys.readouterr().out
