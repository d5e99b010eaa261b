"""BERTScore of the final answers: checked early if asked for, and no sweep fails for it."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.checks.preflight import check_bertscore
from sweeps.config import SweepConfig
from sweeps.finals import predictions
from sweeps.finals.bertscore import add_bertscore
from sweeps.finals.outcome import Outcome, Scores, Winner
from sweeps.recipes import RECIPES, samsum, wikipedia_pt
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
from tests.sweeps.commands import call, world
from tests.sweeps.invented_sweep import make_history
from trainables.data.rows import Row, Scoring, Splits, select_fixed_slice
from trainables.errors import SweepAborted
from trainables.metrics.eval_result import EvalResult, write_answers
from trainables.tiny import MODEL_DIR

ROWS = tuple(Row(id=str(n), prompt=f"text {n}", target=f"ann brings {n} cakes") for n in range(4))
SPLITS = Splits(
    train=ROWS, validation=ROWS, test=ROWS, counts={}, scoring=Scoring(), prompt_template="{x}"
)
SCORES: Scores = {
    name: {"rougeLsum": 1.0} for name in ("validation", "validation_base", "test", "test_base")
}
NAMES = {"bertscore_precision", "bertscore_recall", "bertscore_f1"}


@pytest.fixture
def config() -> SweepConfig:
    return replace(
        samsum(True), bertscore="on", bertscore_encoder=str(MODEL_DIR), bertscore_layer=2
    )


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Answers to validation as the trial's last report leaves them; half are the targets."""
    folder = tmp_path / "checkpoints" / "t0001"
    folder.mkdir(parents=True)
    said = tuple(row.target if n % 2 else "no" for n, row in enumerate(ROWS))
    write_answers(folder, ROWS, EvalResult(metrics={}, answers=said))
    return folder


@pytest.fixture
def paths(tmp_path: Path, config: SweepConfig) -> RunPaths:
    """A run whose adapter t0001 says to each test row its target, and whose base says nothing."""
    found = RunPaths(tmp_path)
    answers: Mapping[str, tuple[str, ...]] = {
        "validation_base": ("",) * 4,
        "test_base": ("",) * 4,
        "t0001": tuple(row.target for row in select_fixed_slice(ROWS, len(ROWS))),
    }
    predictions.save(
        found,
        SPLITS,
        config.settings,
        {name: EvalResult(metrics={}, answers=said) for name, said in answers.items()},
    )
    return found


def added(
    config: SweepConfig, paths: RunPaths, adapter: Path, splits: Splits = SPLITS
) -> dict[str, dict[str, float]]:
    """The scores of the winner t0001."""
    winner = Winner(run=make_history(1, "completed"), tested={"t0001": adapter})
    outcome = Outcome(winner=winner, scores=SCORES)
    return add_bertscore(config, splits, paths, EventLog(paths.events), outcome).scores


def test_every_split_is_scored_and_the_log_says_by_what(
    config: SweepConfig, paths: RunPaths, adapter: Path
) -> None:
    found = added(config, paths, adapter)
    assert found.keys() == SCORES.keys()
    assert all(metrics.keys() == {"rougeLsum"} | NAMES for metrics in found.values())
    assert found["test"]["bertscore_f1"] == pytest.approx(100, abs=1e-3)
    assert found["test_base"]["bertscore_f1"] == found["validation_base"]["bertscore_f1"] == 0
    assert 50 < found["validation"]["bertscore_f1"] < 99
    (event,) = [one for one in read_events(paths.events) if one["kind"] == "bertscore"]
    assert (event["encoder"], event["layer"]) == (str(MODEL_DIR), 2)
    assert len(event["fingerprint"]) == 12


def test_scores_of_the_log_are_taken_unless_another_layer_is_asked_for(
    config: SweepConfig, paths: RunPaths, adapter: Path
) -> None:
    first = added(config, paths, adapter)
    assert added(config, paths, adapter) == first
    other = added(replace(config, bertscore_layer=3), paths, adapter)
    assert other["validation"] != first["validation"]
    kinds = [event["kind"] for event in read_events(paths.events)]
    assert kinds == ["bertscore", "bertscore"]


def test_off_and_labels_add_nothing(config: SweepConfig, paths: RunPaths, adapter: Path) -> None:
    labels = replace(SPLITS, scoring=Scoring(kind="classify", labels=("a", "b")))
    assert added(replace(config, bertscore="off"), paths, adapter) is SCORES
    assert added(replace(config, bertscore="auto"), paths, adapter, labels) is SCORES


@pytest.mark.parametrize("bertscore", ["auto", "on"])
def test_encoder_or_answers_that_are_not_there_cost_one_warning(
    config: SweepConfig,
    paths: RunPaths,
    adapter: Path,
    caplog: pytest.LogCaptureFixture,
    bertscore: Any,
) -> None:
    asked = replace(config, bertscore=bertscore)
    nowhere = replace(asked, bertscore_encoder=str(adapter))
    with caplog.at_level(logging.WARNING):
        assert added(nowhere, paths, adapter) is SCORES
        assert added(asked, paths, paths.folder) is SCORES
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "encoder" in caplog.messages[0] and "--resume" in caplog.messages[0]
    assert "answers.jsonl" in caplog.messages[1]


def refused(*flags: str) -> tuple[str, str]:
    return call("sweeps.run", *flags, "--dry-run").refusal()


def test_what_was_asked_for_is_checked_before_a_gpu_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in world(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    on = ("samsum", "--tiny", "--bertscore", "on")
    error, fix = refused(*on, "--bertscore-encoder", "nobody/none")
    assert "encoder nobody/none cannot be had" in error and "--bertscore-encoder" in fix
    error, fix = refused(*on, "--bertscore-encoder", str(MODEL_DIR), "--bertscore-layer", "5")
    assert error.endswith("has 4") and "from 1 to 4" in fix
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text(json.dumps({"num_hidden_layers": 12}))
    assert "no safetensors weights" in refused(*on, "--bertscore-encoder", "bare")[0]
    (tmp_path / "bare" / "config.json").write_text("[]")
    assert "cannot be had" in refused(*on, "--bertscore-encoder", "bare")[0]
    error, _ = refused("turkish_tweets", "--tiny", "--bertscore", "on")
    assert "has labels" in error
    assert call("sweeps.run", "samsum", "--tiny", "--dry-run", "--bertscore", "auto").code == 0


def test_wikipedia_is_scored_by_bertscore_and_the_tiny_one_needs_no_network() -> None:
    assert wikipedia_pt().bertscore == "auto"
    tiny = wikipedia_pt(True)
    assert tiny.bertscore == "on"
    check_bertscore(tiny, "summarize")
    others = {name: recipe().bertscore for name, recipe in RECIPES.items()}
    assert [name for name, asked in others.items() if asked != "off"] == ["wikipedia_pt"]


def test_layer_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="bertscore_layer is 0"):
        replace(samsum(True), bertscore_layer=0)
    with pytest.raises(SweepAborted):
        check_bertscore(replace(samsum(True), bertscore="on"), "classify")
