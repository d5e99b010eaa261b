"""Rows, their ranks, and trials.csv as it is read back."""

import csv
import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import count_by_status, find_best, rank, write_csv
from tests.sweeps.invented_sweep import LOSS, METRIC, PARAMS, make_history, make_report
from trainables.config import Metric
from trainables.packing.service.ledger import Share

STATUSES = ("completed", "stopped", "failed", None)
SCORES = st.floats(-100, 100)


@st.composite
def stories(draw: st.DrawFn) -> list[TrialRecord]:
    """Trials with any status that reached any of the rungs 10, 30 and 90."""
    made = []
    for number in range(draw(st.integers(0, 12))):
        steps = (10, 30, 90)[: draw(st.integers(0, 3))]
        status = "completed" if 90 in steps else draw(st.sampled_from(STATUSES[1:]))
        scores = [(step, draw(SCORES)) for step in steps]
        made.append(make_history(number, status, *scores))
    return made


def read_csv(trials: list[TrialRecord], folder: Path) -> list[dict[str, str]]:
    write_csv(trials, METRIC, folder / "trials.csv")
    with (folder / "trials.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@given(stories(), st.sampled_from(["max", "min"]))
def test_higher_rung_ranks_first_and_then_the_better_score(
    histories: list[TrialRecord], mode: str
) -> None:
    metric = Metric(name=METRIC.name, mode=mode)  # type: ignore[arg-type]
    order = rank(histories, metric)
    for above, below in itertools.pairwise(order):
        assert above.num_steps >= below.num_steps
        if above.num_steps == below.num_steps:
            worse, better = below.get_value(metric), above.get_value(metric)
            assert worse is not None and better is not None
            assert not metric.is_better(worse, better)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_score_that_is_no_number_ranks_last(mode: str) -> None:
    values = (math.nan, 3.0, math.inf, 1.0, math.nan, 2.0, -math.inf)
    histories = [make_history(n, None, (10, value)) for n, value in enumerate(values)]
    order = rank(histories, Metric(name=METRIC.name, mode=mode))  # type: ignore[arg-type]
    expected = [3.0, 2.0, 1.0] if mode == "max" else [1.0, 2.0, 3.0]
    assert [trial.get_value(METRIC) for trial in order[:3]] == expected


@given(stories())
def test_ranked_holds_exactly_the_trials_that_reported_and_did_not_fail(
    histories: list[TrialRecord],
) -> None:
    expected = {h.trial_id for h in histories if h.reports and h.status != "failed"}
    assert {row.trial_id for row in rank(histories, METRIC)} == expected


@given(stories(), st.sampled_from(["max", "min"]))
def test_best_is_the_best_of_the_completed(histories: list[TrialRecord], mode: str) -> None:
    metric = Metric(name=METRIC.name, mode=mode)  # type: ignore[arg-type]
    found = find_best(histories, metric)
    values = [h.reports[-1].metrics[METRIC.name] for h in histories if h.status == "completed"]
    if not values:
        assert found is None
        return
    assert found is not None and found.status == "completed"
    assert found.get_value(metric) == (max if mode == "max" else min)(values)


@pytest.mark.parametrize(("metric", "winner"), [(METRIC, "t0001"), (LOSS, "t0000")])
def test_best_knows_the_direction(metric: Metric, winner: str) -> None:
    histories = [make_history(n, "completed") for n in range(2)]
    for number, history in enumerate(histories):
        report = make_report(history.trial_id, 90, 30.0 + number, eval_loss=1.0 + number)
        history.reports.append(report)
    found = find_best(histories, metric)
    assert found is not None and found.trial_id == winner


def test_failed_trial_is_never_best_though_it_scored_highest() -> None:
    histories = [
        make_history(0, "failed", (90, 99.0)),
        make_history(1, "completed", (90, 1.0)),
        make_history(2, "stopped", (10, 98.0)),
    ]
    found = find_best(histories, METRIC)
    assert found is not None and found.trial_id == "t0001"
    assert find_best([histories[0], histories[2]], METRIC) is None


def test_csv_has_the_columns_that_users_were_promised(tmp_path: Path) -> None:
    params = replace(PARAMS, target_modules=("q_proj", "v_proj"))
    trial = make_history(0, "completed", (90, 41.5), params=params, share=Share(seconds=180.0))
    (row,) = read_csv([trial], tmp_path)
    names = list(row)
    promised = [
        "trial_id",
        "status",
        "reason",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "learning_rate",
        "target_modules",
        "steps",
        "metric",
        "value",
        "gpu_seconds",
        "tokens",
        "peak_gib",
    ]
    assert [name for name in names if name in promised] == promised
    assert len(set(names)) == len(names)
    shown = {name: row[name] for name in promised}
    assert shown == {
        "trial_id": "t0000",
        "status": "completed",
        "reason": "",
        "lora_rank": "8",
        "lora_alpha": "16.0",
        "lora_dropout": "0.0",
        "learning_rate": "0.0002",
        "target_modules": "q_proj,v_proj",
        "steps": "90",
        "metric": "rougeLsum",
        "value": "41.5",
        "gpu_seconds": "180.0",
        "tokens": "9000",
        "peak_gib": "1.5",
    }


def test_csv_has_a_row_for_every_trial(tmp_path: Path) -> None:
    histories = [
        make_history(0, "completed", (10, 1.0), (30, 2.0), (90, 3.0)),
        make_history(1, "stopped", (10, 0.5)),
        make_history(2, "failed", reason="out of memory"),
        make_history(3, None, (10, 0.7)),
        make_history(4, None),
    ]
    read = read_csv(histories, tmp_path)
    assert [row["trial_id"] for row in read] == [f"t{n:04d}" for n in range(5)]
    assert [row["status"] for row in read] == [
        "completed",
        "stopped",
        "failed",
        "running",
        "running",
    ]
    assert [row["value"] for row in read] == ["3.0", "0.5", "", "0.7", ""]
    assert [row["steps"] for row in read] == ["90", "10", "0", "10", "0"]
    assert {row["metric"] for row in read} == {"rougeLsum"}


@given(reason=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_reason_survives_the_csv(reason: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    history = replace(make_history(0, "failed", (10, 1.0)), reason=reason)
    (row,) = read_csv([history], tmp_path_factory.mktemp("csv"))
    shown = f"'{reason}" if reason[:1] in set("=+-@\t\r") else reason
    assert row["reason"] in (reason, shown) and row["value"] == "1.0"


def test_reason_that_a_spreadsheet_would_run_is_shown_as_text(tmp_path: Path) -> None:
    (row,) = read_csv([make_history(0, "failed", reason="=1+1")], tmp_path)
    assert row["reason"] == "'=1+1"


def test_commas_quotes_and_newlines_stay_in_their_cell(tmp_path: Path) -> None:
    reason = 'CUDA error: "out of memory",\ntried 2 GiB,\r\n"1" free\t\x00'
    (row,) = read_csv([make_history(0, "failed", reason=reason)], tmp_path)
    assert row["reason"] == reason and row["lora_rank"] == "8"


def test_no_trial_gives_a_csv_with_a_header_only(tmp_path: Path) -> None:
    assert read_csv([], tmp_path) == []
    assert (tmp_path / "trials.csv").read_text().startswith("trial_id,status,reason,lora_rank")


def test_scores_that_only_some_trials_have_keep_their_column(tmp_path: Path) -> None:
    histories = [make_history(0, "completed", (90, 1.0)), make_history(1, "completed")]
    histories[1].reports.append(make_report("t0001", 90, 2.0, eval_loss=1.25))
    read = read_csv(histories, tmp_path)
    assert [row["eval_loss"] for row in read] == ["", "1.25"]
    assert [row["rougeLsum"] for row in read] == ["1.0", "2.0"]


@given(stories())
def test_counts_add_up_to_all_trials(histories: list[TrialRecord]) -> None:
    counts = count_by_status(histories)
    assert sum(counts.values()) == len(histories) and 0 not in counts.values()


def test_best_value_of_a_trial_is_finite_and_follows_the_metrics_direction() -> None:
    trial = make_history(0, "completed", (10, 3.0), (30, 1.0), (90, float("nan")))
    assert (trial.find_best_value(METRIC), trial.find_best_value(replace(METRIC, mode="min"))) == (
        3.0,
        1.0,
    )
    assert make_history(1, "failed", (10, float("nan"))).find_best_value(METRIC) is None
