"""The finals' verdict: means over seeds, what resampling tells, and the files and words of it."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.config import SweepConfig
from sweeps.finals.bootstrap import compare, make_mean_metric
from sweeps.finals.final_test import find_winner
from sweeps.finals.finalists import choose_finals
from sweeps.finals.verdict import Verdict, decide_winner, make_columns, write
from sweeps.finals.verdict_text import describe_place, write_sentences
from sweeps.publish.tables import list_finalists
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import write_csv
from tests.sweeps.invented_sweep import METRIC, make_config, make_history, make_report
from trainables.checkpoint import get_checkpoint_folder
from trainables.config import Metric
from trainables.data.rows import Row, Scoring
from trainables.metrics.classification import classification_scores
from trainables.metrics.eval_result import EvalResult, write_answers

NUM_ROWS = 20
VALUES = {"f0000s1": 30.0, "f0000s2": 34.0, "f0001s1": 32.0, "f0001s2": 33.0}
"""The means are 32 and 32.5."""
LUCK = {"t0000": 50.0, "t0001": 20.0}
"""What the search gave, which must not count."""


def config_of(**changes: Any) -> SweepConfig:
    known = {
        "finals": True,
        "num_finalists": 2,
        "num_final_seeds": 2,
        "num_trials": 2,
        "start_points": (),
    }
    return make_config(**{**known, **changes})


def own_scores(value: float) -> tuple[float, ...]:
    """Scores of rows, some hard and some easy, with this mean."""
    return tuple(value + 2.0 * (place - (NUM_ROWS - 1) / 2) for place in range(NUM_ROWS))


def keep_answers(paths: RunPaths, trial_id: str, value: float, rows_named: str = "row") -> None:
    """What the last rung leaves."""
    folder = get_checkpoint_folder(paths.get_trial_folder(trial_id), 9)
    folder.mkdir(parents=True)
    answered = [Row(id=f"{rows_named}{n}", prompt="?", target="a") for n in range(NUM_ROWS)]
    scored = EvalResult(
        metrics={}, answers=("b",) * NUM_ROWS, row_scores={METRIC.name: own_scores(value)}
    )
    write_answers(folder, answered, scored)


def final_run(trial_id: str, of: int, seed: int, status: str = "completed") -> TrialRecord:
    """A run of the finals with its value, or without if it failed."""
    reason = "" if status == "completed" else "out of memory"
    made = make_history(of, status, reason=reason)
    reports = [make_report(trial_id, 9, VALUES[trial_id])] if status == "completed" else []
    return replace(made, trial_id=trial_id, final_of=f"t{of:04d}", seed=seed, reports=reports)


SEARCHED = [make_history(n, "completed", (1, 5.0), (9, LUCK[f"t{n:04d}"])) for n in range(2)]
RUNS = [final_run(f"f{of:04d}s{seed}", of, seed) for of in range(2) for seed in (1, 2)]


def verdict_of(
    folder: Path, config: SweepConfig | None = None, runs: list[TrialRecord] | None = None
) -> Verdict:
    """The verdict on SEARCHED and its final runs."""
    config = config or config_of()
    found = choose_finals(config, SEARCHED, METRIC)
    assert found is not None
    histories = [*SEARCHED, *(RUNS if runs is None else runs)]
    return decide_winner(config, RunPaths(folder), found, histories, METRIC, Scoring())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder with every run's answers."""
    for trial_id, value in (VALUES | LUCK).items():
        keep_answers(RunPaths(tmp_path), trial_id, value)
    return tmp_path


def test_winner_has_the_best_mean_of_fresh_seeds_and_its_best_one_is_kept(folder: Path) -> None:
    found = verdict_of(folder)
    assert [one.trial_id for one in found.finalists] == ["t0001", "t0000"]
    assert [one.mean for one in found.finalists] == [32.5, 32.0]
    assert found.finalists[1].deviation == pytest.approx(8**0.5)
    assert found.winner is not None and found.winner.trial_id == "t0001"
    assert found.best_run is not None and found.best_run.trial_id == "f0001s2"
    assert [run.seed for run in found.winner.runs] == [1, 2]
    assert found.notes == ()


def test_certainty_is_that_of_the_paired_bootstrap(folder: Path) -> None:
    found = verdict_of(folder, config_of(seed=0))
    expected = compare(
        [
            [make_mean_metric(own_scores(VALUES[name])) for name in (f"f{n}s1", f"f{n}s2")]
            for n in ("0001", "0000")
        ],
        "max",
        NUM_ROWS,
        seed=0,
    )
    assert found.lead == pytest.approx(0.5) == expected.means[0] - expected.means[1]
    assert found.interval == expected.interval
    assert [one.probability_best for one in found.finalists] == list(expected.probabilities)
    assert found.num_rows == NUM_ROWS


def test_failed_run_is_left_out_and_told(folder: Path) -> None:
    found = verdict_of(folder, runs=[*RUNS[:1], final_run("f0000s2", 0, 2, "failed"), *RUNS[2:]])
    assert [(one.trial_id, one.mean) for one in found.finalists] == [
        ("t0001", 32.5),
        ("t0000", 30.0),
    ]
    assert found.finalists[1].deviation is None
    assert found.notes == ("f0000s2 (t0000 with seed 2) is missing: failed, out of memory",)
    assert found.interval is not None


def test_finalist_without_any_run_comes_last_and_cannot_win(folder: Path) -> None:
    """Not even with the best run of the search."""
    failed = [final_run(f"f0000s{seed}", 0, seed, "failed") for seed in (1, 2)]
    made = verdict_of(folder, runs=[*failed, *RUNS[2:]])
    assert [one.trial_id for one in made.finalists] == ["t0001", "t0000"]
    assert made.finalists[1].mean is None and made.finalists[1].probability_best is None
    assert made.interval is None and made.finalists[0].probability_best == 1.0
    assert len(made.notes) == 2


def test_without_the_rows_answers_the_means_still_decide(tmp_path: Path) -> None:
    found = verdict_of(tmp_path)
    assert found.winner is not None and found.winner.trial_id == "t0001"
    assert found.interval is None and found.finalists[0].probability_best is None
    assert len(found.notes) == 1 and "no interval" in found.notes[0]
    assert found.lead == 0.5 and "it leads t0000 by 0.50" in write_sentences(found)


def test_answers_to_other_rows_are_not_compared(tmp_path: Path) -> None:
    for trial_id, value in VALUES.items():
        keep_answers(RunPaths(tmp_path), trial_id, value, f"of {trial_id[-1]} ")
    found = verdict_of(tmp_path)
    assert found.interval is None and found.notes == (
        "no interval: the runs were scored on different rows",
    )


def test_labels_are_scored_again_where_the_metric_is_no_mean_over_rows(tmp_path: Path) -> None:
    metric = Metric(name="macro_f1")
    targets = ["a", "b", "b", "c"] * 5
    said = {"f0000s1": ["a", "b", "c", "c"] * 5, "f0001s1": ["a", "b", "b", "c"] * 5}
    searched, runs = [make_history(n, "completed", (9, 1.0)) for n in range(2)], []
    for number, (trial_id, answers) in enumerate(said.items()):
        folder = get_checkpoint_folder(RunPaths(tmp_path).get_trial_folder(trial_id), 9)
        folder.mkdir(parents=True)
        answered = [Row(id=str(n), prompt="?", target=one) for n, one in enumerate(targets)]
        write_answers(folder, answered, EvalResult(metrics={}, answers=tuple(answers)))
        value = classification_scores(answers, targets, ["a", "b", "c"])["macro_f1"]
        report = make_report(trial_id, 9, 0.0, macro_f1=value)
        own = make_history(number, "completed")
        runs.append(replace(own, trial_id=trial_id, final_of=f"t{number:04d}", reports=[report]))
    config = config_of(num_final_seeds=1)
    found = choose_finals(config, searched, METRIC)
    assert found is not None
    scoring = Scoring(kind="classify", labels=("a", "b", "c"))
    made = decide_winner(config, RunPaths(tmp_path), found, [*searched, *runs], metric, scoring)
    assert made.winner is not None and made.winner.trial_id == "t0001"
    assert made.lead == pytest.approx(100.0 - runs[0].reports[0].metrics["macro_f1"])
    assert made.interval is not None and made.interval[0] > 0


def test_files_hold_a_row_a_run_and_the_verdict(folder: Path) -> None:
    found = verdict_of(folder)
    paths = RunPaths(folder)
    write(found, paths)
    with paths.finals_csv.open() as file:
        table_rows = list(csv.DictReader(file))
    assert [(row["trial_id"], row["final_of"], row["seed"]) for row in table_rows] == [
        ("f0001s1", "t0001", "1"),
        ("f0001s2", "t0001", "2"),
        ("f0000s1", "t0000", "1"),
        ("f0000s2", "t0000", "2"),
    ]
    assert [float(row["value"]) for row in table_rows] == [32.0, 33.0, 30.0, 34.0]
    content = json.loads(paths.finals_json.read_text())
    assert (content["winner"], content["adapter"]) == ("t0001", "f0001s2")
    assert content["finalists"][0]["mean"] == 32.5
    assert content["interval"] == list(found.interval or ())
    assert content["metric"] == {"name": "rougeLsum", "mode": "max"}


def test_trials_csv_shows_the_finalists_means(folder: Path) -> None:
    found = verdict_of(folder)
    searched = [*SEARCHED, make_history(2, "stopped", (1, 2.0))]
    write_csv(searched, METRIC, folder / "trials.csv", make_columns(found))
    with (folder / "trials.csv").open() as file:
        first, second, third = csv.DictReader(file)
    assert (first["final_mean"], second["final_mean"], third["final_mean"]) == ("32.0", "32.5", "")
    assert second["final_runs"] == "2" and float(second["probability_best"]) > 0.5
    assert make_columns(None) == {}


def test_words_name_winner_lead_interval_probability_and_adapter(folder: Path) -> None:
    found = verdict_of(folder)
    told = "\n".join(write_sentences(found))
    assert "winner of the finals: t0001, rougeLsum 32.50 +- 0.71 over 2 fresh seeds" in told
    assert found.interval is not None
    low, high = found.interval
    assert f"it leads t0000 by 0.50 (95% interval {low:.2f} to {high:.2f}; 20 validation" in told
    assert low < 0 and "the lead may be chance" in told
    assert "best/ holds f0001s2" in told
    table = list_finalists(found)
    assert table.columns[:5] == ("finalist", "seeds", "mean rougeLsum", "+-", "P(best)")
    first, second = table.rows
    assert (first[0], *first[2:4]) == ("t0001", "32.50", "0.71")
    assert float(first[4]) + float(second[4]) == pytest.approx(1.0)


def test_place_of_a_run_in_the_finals_is_told_beside_the_winner(folder: Path) -> None:
    found, chosen = verdict_of(folder), RUNS[3]
    won = "The winner is t0001 with rougeLsum 32.50 +- 0.71 over 2 fresh seeds."

    def place(run: TrialRecord, verdict: Verdict | None = found) -> str:
        return describe_place(run, chosen, METRIC, verdict)

    second = "took place 2 of 2 in the finals with rougeLsum 32.00 +- 2.83 over 2 fresh seeds."
    assert place(SEARCHED[0]) == f"Its configuration {second} {won}"
    assert place(RUNS[0]) == f"Its configuration, t0000, {second} {won}"
    assert place(RUNS[2]).endswith("0.71 over 2 fresh seeds, of which the sweep chose f0001s2.")
    other = make_history(2, "stopped", (1, 2.0))
    assert place(other) == f"Its configuration was not in the finals. {won}"
    assert place(other, None) == "The sweep chose f0001s2, rougeLsum 33.00 on validation."
    failed = [*(final_run(f"f0000s{seed}", 0, seed, "failed") for seed in (1, 2)), *RUNS[2:]]
    assert "none of its runs there reached the end" in place(
        SEARCHED[0], verdict_of(folder, runs=failed)
    )
    failed = [replace(run, status="failed", reports=[]) for run in RUNS]
    assert place(other, verdict_of(folder, runs=failed)) == place(other, None)
    assert describe_place(other, None, METRIC, None) == ""


def test_lead_beyond_chance_is_not_called_chance(folder: Path) -> None:
    found = replace(verdict_of(folder), interval=(0.2, 0.9))
    assert "chance" not in "\n".join(write_sentences(found))


def test_winner_of_the_finals_is_kept_and_tested_with_its_other_seeds(folder: Path) -> None:
    paths = RunPaths(folder)
    found = choose_finals(config_of(), SEARCHED, METRIC)
    histories = [*SEARCHED, *RUNS]
    winner = find_winner(paths, histories, METRIC, found, verdict_of(folder))
    assert winner is not None
    assert (winner.trial_id, winner.run.trial_id, winner.run.seed) == ("t0001", "f0001s2", 2)
    assert winner.run.get_value(METRIC) == 33.0
    assert winner.tested == {
        "f0001s2": folder / "checkpoints" / "f0001s2" / "checkpoint-9",
        "f0001s1": folder / "checkpoints" / "f0001s1" / "checkpoint-9",
    }
    assert winner.baseline is None


def test_best_start_point_is_tested_beside_the_winner(folder: Path) -> None:
    config = config_of(start_points=make_config().start_points[:1])
    found = choose_finals(config, SEARCHED, METRIC)
    histories = [*SEARCHED, *RUNS]
    verdict = verdict_of(folder, config)
    winner = find_winner(RunPaths(folder), histories, METRIC, found, verdict)
    assert winner is not None and winner.baseline == "f0000s1"
    assert list(winner.tested) == ["f0001s2", "f0001s1", "f0000s1"]


def test_best_start_point_that_is_no_finalist_is_tested_as_the_search_left_it(
    folder: Path,
) -> None:
    config = config_of(start_points=make_config().start_points[:1])
    searched = [SEARCHED[0], SEARCHED[1], make_history(2, "completed", (9, 60.0))]
    found = choose_finals(replace(config, num_finalists=1), searched, METRIC)
    assert found is not None and found.finalists == ("t0002",) and found.baseline == "t0000"
    run = replace(RUNS[0], trial_id="f0002s1", final_of="t0002")
    found = replace(found, runs=found.runs[:1])
    verdict = decide_winner(config, RunPaths(folder), found, [*searched, run], METRIC, Scoring())
    histories = [*searched, run]
    winner = find_winner(RunPaths(folder), histories, METRIC, found, verdict)
    assert winner is not None and winner.baseline == "t0000"
    assert list(winner.tested) == ["f0002s1", "t0000"]


def test_without_finals_the_best_trial_of_the_search_wins(folder: Path) -> None:
    winner = find_winner(RunPaths(folder), SEARCHED, METRIC, None, None)
    assert winner is not None
    assert (winner.trial_id, winner.run.trial_id, winner.run.seed) == ("t0000", "t0000", None)
    assert list(winner.tested) == ["t0000"]
    assert find_winner(RunPaths(folder), [], METRIC, None, None) is None
