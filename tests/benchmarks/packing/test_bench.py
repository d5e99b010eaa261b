"""The bench counts what was trained, compares like with like, and keeps what it measured."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.packing import process, rows, solo
from tests.benchmarks.packing.job import Job
from tests.benchmarks.packing.pack import find_largest_pass, measure_pack
from tests.benchmarks.packing.results import (
    HEADER,
    SOLO,
    Gpu,
    Results,
    Row,
    format_table,
    open_results,
    read_results,
)
from tests.benchmarks.packing.rows import BenchArgs, measure_rows
from trainables.config import TrainingSettings
from trainables.data.batches import Batches
from trainables.data.tokens import Example
from trainables.errors import SweepAborted
from trainables.models.memory import measure_peak_gib
from trainables.models.model_facts import read_model_facts
from trainables.tiny import MODEL_DIR, SAMSUM_DIR

SOLO_ROW = Row(
    name=SOLO,
    num_trials=1,
    batch_size=2,
    ranks="16",
    settings="as sweeps train it",
    trial_steps_per_s=2.0,
    first_round_steps_per_s=None,
    real_tokens_per_s=800.0,
    tflops=3.0,
    products_tflops=4.5,
    timed_s=30.0,
    real_frac=None,
    predicted_gib=None,
    peak_gib=3.5,
    reserved_gib=4.0,
    startup_s=27.0,
)
PACK_ROW = replace(
    SOLO_ROW,
    name="pack",
    num_trials=32,
    settings="base in bfloat16",
    trial_steps_per_s=200.0,
    first_round_steps_per_s=90.0,
    real_tokens_per_s=80_000.0,
    tflops=300.0,
    products_tflops=375.0,
    real_frac=0.97,
    predicted_gib=11.0,
    peak_gib=10.5,
)


def make_results(*rows: Row) -> Results:
    gpu = Gpu(name="NVIDIA H200", torch="2.11.0", ceiling_tflops=750.0)
    results = Results(gpu=gpu, commit="f4be597", settings={"model_config": "Qwen3-0.6B"})
    for row in rows:
        results.add(row)
    return results


def job_of(settings: TrainingSettings, num_trials: int) -> Job:
    """One step of warm-up after the first, and two that are timed."""
    return Job(
        settings=replace(settings, rungs=(1, 2, 4), eval_rows=2, max_new_tokens=2),
        lora_ranks=(2, 4),
        ranks="2, 4",
        lora_dropout=0.1,
        num_trials=num_trials,
        least_s=0.0,
        started_s=0.0,
    )


def timed_tokens(examples: list[Example], settings: TrainingSettings) -> int:
    """Tokens of one trial's third and fourth step."""
    batches = Batches(examples, settings)
    return batches.count_tokens(4) - batches.count_tokens(2)


def test_rows_are_compared_with_solo_at_their_batch_size() -> None:
    eight = replace(SOLO_ROW, batch_size=8, trial_steps_per_s=1.0)
    results = make_results(PACK_ROW, SOLO_ROW, eight, replace(PACK_ROW, batch_size=8))
    assert [results.compare_with_solo(row) for row in results.rows] == [100.0, 1.0, 1.0, 200.0]
    assert make_results(PACK_ROW).compare_with_solo(PACK_ROW) is None


def test_file_holds_every_row_with_its_ratios_and_reads_back(tmp_path: Path) -> None:
    results = make_results(SOLO_ROW, PACK_ROW)
    results.failures["fast, batch 2"] = "RuntimeError: no"
    results.write(tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert set(content) == {"gpu", "commit", "settings", "rows", "failures"}
    assert [row["times_solo"] for row in content["rows"]] == [1.0, 100.0]
    assert [row["ceiling_frac"] for row in content["rows"]] == [3 / 750, 300 / 750]
    assert [row["products_frac"] for row in content["rows"]] == [4.5 / 750, 375 / 750]
    assert read_results(tmp_path / "out.json") == results


def test_second_measurement_replaces_the_first_and_leaves_the_others() -> None:
    results = make_results(SOLO_ROW, PACK_ROW, replace(PACK_ROW, num_trials=8))
    again = replace(PACK_ROW, trial_steps_per_s=250.0)
    results.add(again)
    assert results.rows == [SOLO_ROW, replace(PACK_ROW, num_trials=8), again]


def test_rows_are_added_to_a_file_of_the_same_card_commit_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    assert open_results(path, make_results()).rows == []
    make_results(SOLO_ROW).write(path)
    assert open_results(path, make_results()).rows == [SOLO_ROW]


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("GPU", {"gpu": Gpu(name="NVIDIA A100", torch="2.11.0", ceiling_tflops=1.0)}),
        ("commit", {"commit": "428d639"}),
        ("settings", {"settings": {"model_config": "Qwen3-4B"}}),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(
    what: str, changes: dict[str, object], tmp_path: Path
) -> None:
    make_results(SOLO_ROW).write(tmp_path / "out.json")
    with pytest.raises(SweepAborted, match=f"rows of another {what}: ") as refused:
        open_results(tmp_path / "out.json", replace(make_results(), **changes))
    assert "--out" in refused.value.fix


def test_line_tells_the_rates_the_first_round_and_what_was_predicted() -> None:
    results = make_results(SOLO_ROW, PACK_ROW)
    assert results.format_row(PACK_ROW) == (
        "pack, base in bfloat16; 32 at once, ranks 16, batch 2: 200.00 trial-steps/s (100.0x), "
        "90.00 in the first round, 80,000 tokens/s, 40.0% of the ceiling (50.0% with all "
        "products), 10.50 GiB (11.00 predicted), first step after 27 s"
    )
    old = replace(SOLO_ROW, products_tflops=None)
    assert "0.4% of the ceiling, 3.50 GiB, first" in results.format_row(old)


@pytest.mark.parametrize("name", ["0.6b", "0.6b-batch8", "4b", "4b-batch8"])
def test_file_of_before_products_were_counted_can_be_read(name: str) -> None:
    results = read_results(Path(__file__).parents[1] / f"h200-qwen3-{name}.json")
    assert results.rows and {results.compute_products_frac(row) for row in results.rows} == {None}


def test_table_has_a_line_for_each_row_in_the_order_of_batch_and_speed() -> None:
    eight = replace(SOLO_ROW, batch_size=8)
    lines = format_table([make_results(eight, PACK_ROW, SOLO_ROW)]).splitlines()
    assert {line.count("|") for line in lines} == {len(HEADER) + 1}
    solo = "Qwen3-0.6B | TRL solo, as sweeps train it | {} | 16 | 2 |  | 1.0x | 800 | 0% | 1% |  "
    solo += "| 3.5 | 27 s"
    pack = "Qwen3-0.6B | pack of 32 | 2 | 16 | 200 | 90 | 100.0x | 80,000 | 40% | 50% | 97% "
    pack += "| 10.5 (11.0) | 27 s"
    assert [line.strip("| ") for line in lines[2:]] == [solo.format(2), pack, solo.format(8)]


def test_largest_pass_is_the_largest_step_or_what_a_pass_may_hold(
    settings: TrainingSettings, examples: list[Example]
) -> None:
    batches = Batches(examples, settings)
    steps = [batches.get_step_rows(step) for step in range(1, 5)]
    tokens = [sum(len(row.input_ids) for row in rows) for rows in steps]
    labels = [sum(len(row.target_ids) for row in rows) for rows in steps]
    assert len(set(tokens)) > 1
    num_rows = 3 * settings.batch_size
    assert find_largest_pass(batches, 4, 3, 10**6) == (3 * max(tokens), 3 * max(labels), num_rows)
    most, most_labels, most_rows = find_largest_pass(batches, 4, 3, 2 * min(tokens))
    assert most_rows == round(2 / 3 * num_rows)
    assert most == 2 * min(tokens)
    assert max(labels) <= most_labels < 3 * max(labels)


def test_pack_row_counts_the_timed_steps_of_all_trials(
    settings: TrainingSettings, examples: list[Example]
) -> None:
    row = measure_pack(job_of(settings, 3))
    assert (row.name, row.num_trials, row.batch_size, row.ranks) == ("pack", 3, 4, "2, 4")
    assert row.trial_steps_per_s * row.timed_s == pytest.approx(3 * 2)
    tokens = 3 * timed_tokens(examples, settings)
    assert row.real_tokens_per_s * row.timed_s == pytest.approx(tokens)
    body = read_model_facts(settings.model).body_params
    assert row.tflops * row.timed_s == pytest.approx(4 * body * tokens / 1e12)
    assert row.products_tflops is not None and row.products_tflops > 1.1 * row.tflops
    assert row.real_frac is not None and 0.9 < row.real_frac <= 1.0
    assert row.first_round_steps_per_s is not None and row.first_round_steps_per_s > 0
    assert 0 < row.peak_gib <= measure_peak_gib()


def test_pack_is_timed_for_as_long_as_asked(settings: TrainingSettings) -> None:
    short = measure_pack(job_of(settings, 1))
    row = measure_pack(replace(job_of(settings, 1), least_s=3 * short.timed_s))
    assert row.timed_s >= 3 * short.timed_s
    rounds = row.trial_steps_per_s * row.timed_s / 2
    assert rounds > 1 and rounds == pytest.approx(round(rounds))


@pytest.mark.parametrize(
    "measure", [solo.measure_solo, lambda job: solo.measure_fast(job, "padding-free")]
)
def test_solo_rows_count_the_timed_steps(
    measure: object, settings: TrainingSettings, examples: list[Example]
) -> None:
    assert callable(measure)
    row = measure(job_of(settings, 1))
    assert row.num_trials == 1
    assert row.trial_steps_per_s * row.timed_s == pytest.approx(2)
    assert row.real_tokens_per_s * row.timed_s == pytest.approx(timed_tokens(examples, settings))
    assert row.startup_s > 0


@pytest.mark.slow
def test_processes_that_share_the_gpu_add_up(settings: TrainingSettings) -> None:
    row = solo.measure_shared(job_of(settings, 2))
    assert (row.name, row.num_trials) == ("2 solo processes", 2)
    # timed_s is the slower one's, so the rates of both are at least one full share of it
    assert row.trial_steps_per_s * row.timed_s >= 2 * 2 * 0.999


def test_process_that_fails_keeps_no_other_waiting(
    settings: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier = threading.Barrier(2)
    monkeypatch.setattr(solo, "_barrier", barrier)
    with pytest.raises(SweepAborted, match="/none"):
        solo._measure_with_others(job_of(replace(settings, rows_dir=Path("/none")), 2))
    assert barrier.broken


@pytest.mark.slow
def test_command_writes_its_rows_without_where_things_lay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rows, process):  # processes of their own would each load torch
        monkeypatch.setattr(module, "run_in_own_process", lambda measure, *args: measure(*args))
    args = BenchArgs(
        model_config=MODEL_DIR,
        tokenizer=MODEL_DIR,
        data=SAMSUM_DIR,
        out=tmp_path / "out.json",
        rows=("pack",),
        slots=(2,),
        batch_sizes=(2,),
        ranks=("16",),
        num_warm_up_steps=2,
        num_steps=2,
        least_s=0.0,
        max_length_tokens=128,
        compute_dtype="float32",
    )
    results = measure_rows(args)
    assert [(row.name, row.num_trials) for row in results.rows] == [("pack", 2)]
    assert results.failures == {}
    assert read_results(args.out) == results
    assert results.settings["model_config"] == MODEL_DIR.name
    assert str(tmp_path) not in args.out.read_text()
    assert str(MODEL_DIR.parent) not in args.out.read_text()
