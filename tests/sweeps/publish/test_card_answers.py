"""The card's script, run as a program on its own, gives the answers that were scored."""

from pathlib import Path

import pytest
import torch

from sweeps.finals import predictions
from tests.sweeps import scored_runs
from tests.sweeps.card_programs import CardAnswers, run_cards
from trainables.data.prepared_rows import read_rows
from trainables.tiny import MODEL_DIR

NUM_ROWS = 24
NUM_STEPS = {"samsum": 12, "table": 12, "turkish_tweets": 6}
CASES = [(task, change) for task in NUM_STEPS for change in scored_runs.CHANGES]
CASES.append(("turkish_tweets", scored_runs.another_end))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, CardAnswers]]:
    """A run and what its card's script says, by task and change of the base."""
    folder = tmp_path_factory.mktemp("cards")
    torch.set_num_threads(1)  # so small a model is no faster with more
    chats = scored_runs.write_chats(folder / "chats.jsonl", 420)
    data = {"table": {"data": str(chats)}}
    adapters = {
        task: scored_runs.train_adapter(
            task, MODEL_DIR, folder / f"{task}-training", num_steps, **data.get(task, {})
        )
        for task, num_steps in NUM_STEPS.items()
    }
    runs = []
    for task, change in CASES:
        place = folder / f"{task}-{change.__name__}"
        model = scored_runs.copy_base(place / "base", change)
        of_task = data.get(task, {})
        runs.append(scored_runs.score(task, model, adapters[task], place, NUM_ROWS, **of_task))
    told = run_cards(runs, folder)
    return {run.parent.name: (run, said) for run, said in zip(runs, told, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{task}-{change.__name__}" for task, change in CASES])
def test_card_answers_as_scored_on_any_base(
    name: str, answers: dict[str, tuple[Path, CardAnswers]]
) -> None:
    run, told = answers[name]
    scored = predictions.read(run / "best")
    assert len(scored) == NUM_ROWS
    assert len(set(told.scored)) > (12 if told.probabilities == [] else 1)
    notes = read_rows(run / "rows").notes
    assert any("prompts cut to" in note and ", test " in note for note in notes)
    assert told.shown.strip()
    assert told.num_equal >= NUM_ROWS - 1
    for row, of_labels in zip(scored, told.probabilities, strict=False):
        assert of_labels == pytest.approx(row.probabilities, abs=1e-5)
