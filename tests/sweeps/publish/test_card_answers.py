"""The card's script, run as a program on its own, gives the answers that were scored."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.finals import predictions
from tests.sweeps import scored_runs
from trainables.data.prepared_rows import read_rows
from trainables.files import read_json_lines
from trainables.tiny import SAMSUM_DIR

NUM_ROWS = 40
ALPHAS = {"samsum": 4, "turkish_tweets": 64}
LOOP = """
import json, sys
print("ANSWERS" + json.dumps([answer(row) for row in json.load(open(sys.argv[1]))]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("change", scored_runs.CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("recipe", ["samsum", "turkish_tweets"])
def test_card_answers_as_scored_on_any_base(
    recipe: str, change: Callable[[Path], None], tmp_path: Path
) -> None:
    model = scored_runs.copy_base(tmp_path / "base", change)
    adapter = scored_runs.make_adapter(tmp_path / "adapter", ALPHAS[recipe])
    run = scored_runs.score(recipe, model, adapter, tmp_path, NUM_ROWS)
    scored = predictions.read(run / "best")
    assert len(scored) == NUM_ROWS
    assert len({row.prediction for row in scored}) > (1 if recipe == "turkish_tweets" else 30)
    assert any(
        "prompts cut to" in note and ", test " in note for note in read_rows(run / "rows").notes
    )
    answers = run_card(run / "best", columns_of(recipe, scored), tmp_path)
    if recipe == "turkish_tweets":
        for row, of_labels in zip(scored, answers, strict=True):
            assert of_labels == pytest.approx(row.probabilities, abs=1e-5)
        answers = [max(row, key=row.get) for row in answers]
    equal = [said == row.prediction for said, row in zip(answers, scored, strict=True)]
    assert sum(equal) >= NUM_ROWS - 1


def columns_of(recipe: str, scored: list[predictions.Prediction]) -> list[dict[str, str]]:
    """The columns of the user's file, by row."""
    if recipe == "turkish_tweets":
        return [{"Tweets": row.prompt.removeprefix("Duygu: ")} for row in scored]
    lines = read_json_lines(SAMSUM_DIR / "test.jsonl")
    rows = {line["id"]: line["dialogue"] for line in lines}
    return [{"dialogue": f"  {rows[row.id]}\r\n"} for row in scored]


def run_card(best: Path, rows: list[dict[str, str]], folder: Path) -> list:
    """What the script's answer() gives for each row, in a process of its own in best/."""
    code = re.search(r"^```python\n(.*?)^```$", (best / "README.md").read_text(), re.M | re.S)
    assert code is not None
    (folder / "rows.json").write_text(json.dumps(rows))
    ended = subprocess.run(
        [sys.executable, "-c", code[1] + LOOP, folder / "rows.json"],
        cwd=best,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    shown, _, answers = ended.stdout.partition("ANSWERS")
    assert shown.strip()
    return json.loads(answers)
