"""An augmented sweep keeps and tells the rows that were added, and resumes with the same ones."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.checks.commands import write_sweep_command
from sweeps.checks.preflight import check
from sweeps.checks.run_folder import open_run
from sweeps.config import SweepConfig, count_steps
from sweeps.publish.card_facts import make_facts
from sweeps.publish.model_card import render
from sweeps.recipes import turkish_tweets
from sweeps.records.paths import RunPaths
from tests.sweeps.commands import call
from tests.sweeps.example_facts import facts
from trainables.data.prepared_rows import read_rows
from trainables.data.tasks import TASKS

pytestmark = pytest.mark.usefixtures("own_world")

FLAGS = ("turkish_tweets", "--tiny", "--runs-dir", "runs", "--name", "r1")


@pytest.fixture
def config() -> SweepConfig:
    """A run that has begun with noisy copies and a paraphrase."""
    plain = turkish_tweets(True)
    row = check(plain, is_resumed=False).splits.train[0]
    text = row.prompt[row.cut_from : row.cut_to]
    Path("p.csv").write_text(f'Tweets,paraphrase\n"{text}",bambaşka sözlerle\n', encoding="utf-8")
    options = replace(plain.task_options, augment_copies=2, paraphrases="p.csv")
    config = replace(plain, name="r1", wandb="disabled", epochs=2.0, task_options=options)
    found = check(config, is_resumed=False)
    with open_run(config, found, is_resumed=False):
        pass
    return config


def test_added_rows_are_kept_and_told(config: SweepConfig) -> None:
    plain = check(replace(turkish_tweets(True), name="plain"), is_resumed=False).splits
    kept = read_rows(Path("runs/r1/rows"))
    assert kept.train[: len(plain.train)] == plain.train
    assert (kept.validation, kept.test) == (plain.validation, plain.test)
    added = Counter(row.added for row in kept.train[len(plain.train) :])
    assert added["paraphrased"] == 1 and added["noisy"] > len(plain.train)
    record = json.loads(Path("runs/r1/sweep.json").read_text())
    assert record["added"] == kept.added == dict(added)
    assert record["digests"]["rows"]["train"]["num"] == record["rows"]["train"] == len(kept.train)
    assert any("p.csv: 1 rows" in note for note in record["read"])
    assert count_steps(config, len(kept.train)).max_steps * 8 >= 2 * len(kept.train)
    assert "--augment-copies 2 --paraphrases p.csv" in write_sweep_command(
        replace(config, tiny=False)
    )
    paths, outcome = RunPaths.from_name(config.runs_dir, config.name), facts().outcome
    own = make_facts(config, TASKS[config.task](config.task_options), kept, paths, [], outcome)
    card = render(own)
    assert f"augmentation has added: 1 paraphrased, {added['noisy']} noisy." in card
    assert "augmentation" not in render(facts())


def test_resume_has_the_same_rows_and_refuses_other_paraphrases(config: SweepConfig) -> None:
    resume = ("sweeps.run", *FLAGS, "--resume", "--dry-run")
    ended = call(*resume)
    assert ended.code == 0, ended.stderr
    assert "added to train: paraphrased 1, noisy " in ended.stdout
    path = Path("p.csv")
    path.write_text(path.read_text(encoding="utf-8").replace("söz", "laf"), encoding="utf-8")
    error, fix = call(*resume).refusal()
    assert "p.csv does not give the rows" in error and "put it back" in fix
    path.unlink()
    assert call(*resume).code == 0
