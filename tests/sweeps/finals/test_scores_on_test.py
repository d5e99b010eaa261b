"""Test is looked at once, and what was seen comes back from the log as it was."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sweeps.finals.bertscore import add_bertscore
from sweeps.finals.final_test import score_on_test
from sweeps.finals.outcome import Outcome, Winner
from sweeps.finals.verdict import Finalist, Verdict, resample_lead, write
from sweeps.finals.verdict_text import describe_no_lead
from sweeps.publish.tables import list_scores
from sweeps.records.events import EventLog, find_since_search, make_params_fields, read_events
from sweeps.records.paths import RunPaths
from tests.sweeps.invented_sweep import METRIC, PARAMS, make_config, make_history
from trainables.config import Metric
from trainables.data.rows import Scoring, Splits
from trainables.metrics.eval_result import SavedAnswers

RUN = make_history(1, "completed", (9, 41.5))
LOSS = Metric(name="eval_loss", mode="min")


def look_again(folder: Path) -> Outcome:
    """What a resumed sweep has of a test whose losses were no numbers."""
    log = EventLog(RunPaths(folder).events)
    scores = {
        "test": {METRIC.name: 40.0, "eval_loss": math.nan},
        "test_base": {METRIC.name: 20.0, "eval_loss": math.inf},
        "validation": {METRIC.name: 41.5, "eval_loss": 1.0},
    }
    runs = {"t0001": scores["test"], "t0000": scores["test"]}
    log.append("final_scores", trial_id="t0001", scores=scores, runs=runs)
    return find_scores(folder, log)


def find_scores(folder: Path, log: EventLog) -> Outcome:
    """What the log has of the winner."""
    winner = Winner(run=RUN, tested={"t0001": folder, "t0000": folder})
    preflight: Any = None
    score: Any = None
    return score_on_test(make_config(), preflight, RunPaths(folder), winner, log, score)


def test_winner_that_more_trials_have_not_beaten_has_its_scores_again(tmp_path: Path) -> None:
    look_again(tmp_path)
    path = RunPaths(tmp_path).events
    log = EventLog(path)
    log.append("trial_started", trial_id="t0002", number=2, params=make_params_fields(PARAMS))
    assert find_since_search(read_events(path), "final_scores") is None
    scores = find_scores(tmp_path, log).scores
    assert str(find_scores(tmp_path, log).scores) == str(scores)
    *_, told = events = read_events(path)
    assert told["trial_id"] == "t0001" and told["scores"]["test"][METRIC.name] == 40.0
    assert [event["kind"] for event in events].count("final_scores") == 2  # once for each search


def test_scores_that_are_no_numbers_come_back_and_are_shown(tmp_path: Path) -> None:
    outcome = look_again(tmp_path)
    assert math.isnan(outcome.scores["test"]["eval_loss"])
    assert outcome.scores["test_base"]["eval_loss"] == math.inf
    assert all(math.isnan(run["eval_loss"]) for run in outcome.runs.values())
    rows = [row[1:] for row in list_scores(outcome, METRIC).rows if row[0] == "test"]
    assert rows[1] == ["eval_loss", "nan", "inf", "nan"]


def test_bertscores_that_are_no_numbers_come_back(tmp_path: Path) -> None:
    outcome = look_again(tmp_path)
    config = make_config(bertscore="final")
    log = EventLog(RunPaths(tmp_path).events)
    settings = {
        "run_id": "t0001",
        "encoder": config.bertscore_encoder,
        "layer": config.bertscore_layer,
    }
    log.append("bertscore", **settings, scores={"test": {"bertscore_f1": math.nan}})
    splits = Splits(
        train=(), validation=(), test=(), counts={}, prompt_template="", scoring=Scoring()
    )
    found = add_bertscore(config, splits, RunPaths(tmp_path), log, outcome)
    assert math.isnan(found.scores["test"]["bertscore_f1"])


def test_finals_json_is_strict_json(tmp_path: Path) -> None:
    finalist = Finalist(trial_id="t0001", params=PARAMS, metric=METRIC, runs=())
    verdict = Verdict(metric=METRIC, finalists=(finalist,))
    write(verdict, RunPaths(tmp_path), look_again(tmp_path).baseline_facts)
    text = (tmp_path / "finals.json").read_text()
    facts = json.loads(text, parse_constant=pytest.fail)
    assert facts["baselines"]["the untuned base"]["test"]["eval_loss"] == "inf"


def test_a_loss_that_is_no_number_is_behind_and_a_baseline_of_none_says_nothing() -> None:
    scores = {"test": {"eval_loss": math.nan}, "test_base": {"eval_loss": 2.0}}
    told = describe_no_lead("base", "the base", scores, LOSS, {"test": None})
    assert told == "the winner is no better than the base: eval_loss nan against 2.000 on test"
    scores = {"test": {"eval_loss": 2.0}, "test_base": {"eval_loss": math.nan}}
    assert describe_no_lead("base", "the base", scores, LOSS, {"test": None}) is None


def test_lead_over_a_loss_that_is_no_number_has_no_interval() -> None:
    def saved(*losses: float) -> SavedAnswers:
        texts = tuple(map(str, losses))
        return SavedAnswers(
            ids=("1", "2"),
            targets=texts,
            answers=texts,
            row_scores={},
            row_losses=tuple((loss, 3) for loss in losses),
        )

    whole, broken = saved(1.0, 2.0), saved(1.0, math.nan)
    assert resample_lead(whole, broken, LOSS, Scoring(), 0) is None
    low, high = resample_lead(whole, saved(2.0, 4.0), LOSS, Scoring(), 0) or (0.0, 0.0)
    assert 0.0 < low < high
