"""What the user reads at the end."""

import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.finals.outcome import Outcome, Scores, Winner
from sweeps.finals.verdict import Finalist, Verdict
from sweeps.finals.verdict_text import describe_no_lead, write_sentences
from sweeps.publish.summary import MAX_WIDTH, describe, describe_no_best, make_summary_fields
from sweeps.publish.tables import list_finalists, list_scores, list_trials
from sweeps.records.paths import RunPaths
from tests.sweeps.invented_sweep import METRIC, PARAMS, make_config, make_final_run, make_history
from trainables.config import Metric
from trainables.metrics.classification import Confusion

SCORES = {
    "validation": {"rougeLsum": 41.5, "eval_loss": 1.25},
    "validation_base": {"rougeLsum": 25.25, "eval_loss": 2.5},
    "test": {"rougeLsum": 40.75, "rouge1": 47.0},
    "test_base": {"rougeLsum": 24.125, "rouge1": 30.0},
}
HISTORIES = [
    make_history(0, "stopped", (1, 99.0), reason="place 2 of 2 at step 1"),
    make_history(1, "completed", (1, 30.0), (9, 41.5)),
    make_history(2, "completed", (1, 31.0), (9, 39.0)),
    make_history(3, "failed", reason="out of memory"),
]
PATHS = RunPaths(Path("/runs/invented"))


def outcome_of(scores: Scores) -> Outcome:
    """What the look at test gave for the best of HISTORIES."""
    winner = Winner(run=HISTORIES[1], tested={})
    return Outcome(winner=winner, scores=scores, runs={"t0001": scores["test"]})


OUTCOME = outcome_of(SCORES)


def test_summary_ranks_the_trials_and_names_the_best() -> None:
    text = describe(make_config(), PATHS, HISTORIES, METRIC, OUTCOME)
    ids = [word for line in text.splitlines() for word in line.split() if word.startswith("t000")]
    assert ids == ["t0001", "t0002", "t0000", "t0001"]
    assert "4 trials: 2 completed, 1 failed, 1 stopped" in text
    assert "best: t0001 (lora_rank 8, lora_alpha 16," in text


def test_summary_tells_what_augmentation_added() -> None:
    rows = ["added to train: noisy 120"]
    lines = describe(make_config(), PATHS, HISTORIES, METRIC, OUTCOME, about_rows=rows).splitlines()
    assert rows[0] in lines


def test_summary_sets_the_winner_beside_the_untuned_base_on_both_splits() -> None:
    lines = describe(make_config(), PATHS, HISTORIES, METRIC, OUTCOME).splitlines()
    for split, best, base in (("validation", "41.50", "25.25"), ("test", "40.75", "24.12")):
        (line,) = [line for line in lines if f" {split} " in line and "rougeLsum" in line]
        assert re.findall(r"\d+\.\d\d", line) == [best, base]


def test_score_that_only_the_best_adapter_has_leaves_the_other_seeds_cells_empty() -> None:
    scores = {split: values | {"bertscore_f1": 88.25} for split, values in SCORES.items()}
    runs = {"f0001s1": {"rougeLsum": 40.75, "rouge1": 47.0}, "t0001": SCORES["test"]}
    winner = replace(OUTCOME.winner, run=make_final_run("f0001s1", 1, 41.5), baseline="t0001")
    tests = Outcome(winner=winner, scores=scores, runs=runs)
    lines = describe(make_config(), PATHS, HISTORIES, METRIC, tests).splitlines()
    (line,) = [line for line in lines if " test " in line and "bertscore_f1" in line]
    assert re.findall(r"\d+\.\d\d", line) == ["88.25", "88.25"]  # and of the base, invented


def test_summary_says_where_everything_lies() -> None:
    text = describe(make_config(), PATHS, HISTORIES, METRIC, OUTCOME)
    for part in (
        "/runs/invented/best",
        "/runs/invented/trials.csv",
        "optuna-dashboard sqlite:////runs/invented/optuna.db",
        "python -m sweeps.export /runs/invented --to hub:USER/NAME",
    ):
        assert part in text


def test_summary_does_not_show_the_password_of_the_study_storage() -> None:
    config = make_config(study_storage="postgresql+psycopg://bob:s3cret@db.host/sweeps")
    text = describe(config, PATHS, HISTORIES, METRIC, OUTCOME)
    assert "s3cret" not in text and "db.host/sweeps" in text


def test_without_a_completed_trial_the_reasons_are_counted() -> None:
    reasons = ["out of memory", "loss is nan at step 4", "out of memory"]
    histories = [make_history(n, "failed", reason=r) for n, r in enumerate(reasons)]
    assert describe_no_best(histories).splitlines() == [
        "error: no trial completed",
        "  2 failed: out of memory",
        "  1 failed: loss is nan at step 4",
    ]


def test_summary_shows_the_scores_of_each_label_apart() -> None:
    by_label = {"precision_good": 90.0, "recall_good": 80.0, "f1_good": 84.71}
    scores = {split: {"accuracy": 75.5, **by_label} for split in SCORES}
    text = describe(make_config(), PATHS, HISTORIES, METRIC, outcome_of(scores))
    assert " accuracy " in text and "precision_good" not in text
    (row,) = [line for line in text.splitlines() if " good " in line]
    assert [word for word in row.split() if word[0].isdigit()] == ["90.00", "80.00", "84.71"]
    assert "by label" not in describe(make_config(), PATHS, HISTORIES, METRIC, OUTCOME)


def test_the_score_of_a_label_that_ranks_stands_with_the_others() -> None:
    of_labels = {f"{kind}_bad": 70.0 for kind in ("precision", "recall", "f1")}
    scores = {split: {"accuracy": 75.5, "f1_good": 84.71, **of_labels} for split in SCORES}
    table = list_scores(outcome_of(scores), Metric(name="f1_good"))
    assert [row[1] for row in table.rows] == ["accuracy", "f1_good"] * 2


def test_summary_shows_the_other_seeds_and_the_best_start_point_on_test() -> None:
    runs = {
        "f0001s1": {"rougeLsum": 40.75, "rouge1": 47.0},
        "t0001": {"rougeLsum": 38.75, "rouge1": 45.0},
        "t0000": {"rougeLsum": 33.25, "rouge1": 40.0},
    }
    winner = replace(OUTCOME.winner, run=make_final_run("f0001s1", 1, 41.5), baseline="t0000")
    tests = Outcome(winner=winner, scores=SCORES, runs=runs)
    lines = describe(make_config(), PATHS, HISTORIES, METRIC, tests).splitlines()
    (header,) = [line for line in lines if "untuned base" in line and "metric" in line]
    titles = ["best adapter", "the untuned base", "mean of its 2 seeds", "best start point (t0000)"]
    assert [cell.strip() for cell in header.split("┃")[3:-1]] == titles
    (line,) = [line for line in lines if " test " in line and "rougeLsum" in line]
    assert re.findall(r"\d+\.\d\d", line) == ["40.75", "24.12", "39.75", "33.25"]


def test_summary_tells_how_the_finals_ended() -> None:
    runs = tuple(
        make_final_run(name, seed, value)
        for seed, (name, value) in enumerate([("f0001s1", 41.5), ("f0001s2", 40.5)], 1)
    )
    finalist = Finalist(
        trial_id="t0001", params=PARAMS, metric=METRIC, runs=runs, probability_best=0.87
    )
    other = replace(finalist, trial_id="t0002", runs=runs[1:], probability_best=0.13)
    verdict = Verdict(
        metric=METRIC, finalists=(finalist, other), lead=0.5, interval=(-0.25, 1.5), num_rows=818
    )
    text = describe(make_config(), PATHS, HISTORIES, METRIC, OUTCOME, verdict=verdict)
    assert "winner of the finals: t0001, rougeLsum 41.00 +- 0.71 over 2 fresh seeds" in text
    assert "it leads t0002 by 0.50 (95% interval -0.25 to 1.50" in text
    assert "/runs/invented/finals.json" in text
    assert "finals" not in describe(make_config(), PATHS, HISTORIES, METRIC, OUTCOME)


def test_tables_tell_target_modules_and_rslora_where_they_are_searched() -> None:
    runs = [make_history(number, "completed", (9, 40.0 - number)) for number in range(2)]
    assert list_trials(runs, METRIC).columns[-1] == "learning_rate"
    params = replace(PARAMS, target_modules=("q_proj", "v_proj"), use_rslora=True)
    runs[1] = replace(runs[1], params=params)
    table = list_trials(runs, METRIC)
    assert table.columns[-2:] == ("use_rslora", "target_modules")
    assert [row[-2:] for row in table.rows] == [["no", "all"], ["yes", "q_proj,v_proj"]]
    finalists = tuple(
        Finalist(trial_id=run.trial_id, params=run.params, metric=METRIC, runs=(run,))
        for run in runs
    )
    told = list_finalists(Verdict(metric=METRIC, finalists=finalists))
    assert told.columns[5:] == table.columns[4:]
    assert [row[5:] for row in told.rows] == [row[4:] for row in table.rows]


def test_scores_from_0_to_1_are_shown_with_the_digits_of_their_scale() -> None:
    metric = Metric(name="share")
    runs = [make_final_run("f0001s1", 1, 91.23), make_final_run("f0001s2", 2, 91.11)]
    for run, share in zip(runs, (0.9123, 0.9111), strict=True):
        run.reports[-1] = replace(run.reports[-1], metrics={"share": share})
    first, second = (
        Finalist(trial_id=f"t000{n}", params=PARAMS, metric=metric, runs=(run,))
        for n, run in enumerate(runs, 1)
    )
    verdict = Verdict(
        metric=metric, finalists=(first, second), lead=0.0012, interval=(-0.0002, 0.0026)
    )
    told = " ".join(write_sentences(verdict))
    assert "share 0.9123 over" in told and "by 0.0012 (95% interval -0.0002 to 0.0026" in told
    assert [row[2] for row in list_finalists(verdict).rows] == ["0.9123", "0.9111"]
    assert [row[3] for row in list_trials(runs, metric).rows] == ["0.9123", "0.9111"]
    scores = {"test": {"share": 0.9123}, "test_base": {"share": 0.0004}}
    outcome = Outcome(winner=OUTCOME.winner, scores=scores)
    assert list_scores(outcome, metric).rows == [["test", "share", "0.9123", "0.0004"]]
    doubt = describe_no_lead("base", "b", scores, metric, {"test": (-0.0002, 0.9)})
    assert doubt is not None and "0.9123 against 0.0004" in doubt and "-0.0002 to 0.9" in doubt


def test_summary_shows_which_labels_are_taken_for_which() -> None:
    table = Confusion(("[bold]yes", "no"), ((51, 2), (3, 44)))
    lines = describe(make_config(), PATHS, HISTORIES, METRIC, OUTCOME, confusion=table).splitlines()
    (row,) = [line for line in lines if "51" in line and "│" in line]
    assert row.split()[1:6:2] == ["[bold]yes", "51", "2"]
    many = tuple(f"label {n}" for n in range(9))
    large = Confusion(many, ((0,) * 9,) * 9)
    text = describe(make_config(), PATHS, HISTORIES, METRIC, OUTCOME, confusion=large)
    assert "9 labels" in text and "confusion.csv" in text and "label 7" not in text
    assert "label_scores.csv" in text


def test_a_score_of_one_of_many_labels_that_was_asked_for_is_shown() -> None:
    scores = {"test": {"accuracy": 50.0, "f1_l1": 40.0}, "test_base": {"accuracy": 1.0}}
    outcome = Outcome(winner=OUTCOME.winner, scores=scores)
    assert [row[1] for row in list_scores(outcome, Metric(name="accuracy")).rows] == [
        "accuracy",
        "f1_l1",
    ]
    many = tuple(f"l{n}" for n in range(21))
    table = Confusion(many, ((0,) * 21,) * 21)
    assert make_summary_fields(outcome, None, table)["confusion"] is None


def test_words_of_a_head_are_broken_between_them_where_the_finals_are_wide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = make_final_run("f0001s1", 1, 41.5)
    params = replace(PARAMS, learning_rate=0.00031622, use_rslora=True)
    finalist = Finalist(trial_id="t0001", params=params, metric=METRIC, runs=(run,))
    verdict = Verdict(metric=METRIC, finalists=(finalist,))
    lines = describe(make_config(), PATHS, HISTORIES, METRIC, OUTCOME, verdict=verdict).splitlines()
    begin = next(number for number, line in enumerate(lines) if " finals: means " in line)
    first, second, row = (line.split() for line in lines[begin + 1 : begin + 4])
    assert first == ["lora_", "lora_", "lora_", "learning_", "use_"]
    assert second[-5:] == ["rank", "alpha", "dropout", "rate", "rslora"]
    assert row == ["t0001", "1", "41.50", "8", "16", "0", "0.0003162", "yes"]


def test_tables_are_as_wide_as_the_terminal_and_of_letters_that_it_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for columns, encoding in (("80", "ascii"), ("60", "utf-8"), ("200", "utf-8")):
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", columns)
            patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
            text = describe(make_config(), PATHS, HISTORIES, METRIC, OUTCOME)
        table = text[: text.index("4 trials: ")].splitlines()
        assert len(table) > 4 and max(map(len, table)) <= min(int(columns), MAX_WIDTH)
        assert ("┃" in "".join(table)) == (columns == "200")  # a frame is left out first
        assert (" completed " in text) == (columns != "60")
        assert text.isascii() == (encoding == "ascii")
