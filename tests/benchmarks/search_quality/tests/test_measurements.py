"""The log that a killed run leaves, and the table's file."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.search_quality.grid import Configuration
from tests.benchmarks.search_quality.measurements import (
    Log,
    Measurement,
    Origin,
    format_command,
    read_table,
    write_table,
)
from tests.benchmarks.search_quality.tests.synthetic_table import make_table
from trainables.errors import SweepAborted

ORIGIN = Origin(settings={"rungs": [1, 3], "max_steps": 3}, gpu="cpu", torch="0")
ONE = Configuration(learning_rate=1e-4, lora_rank=8, alpha_over_rank=1.0, lora_dropout=0.0)
OTHER = replace(ONE, lora_rank=16)


def make_measurement(step: int, score: float = 1.0) -> Measurement:
    return Measurement(step=step, metrics={"rougeLsum": score})


def begin_log(path: Path) -> Log:
    log = Log(path, ORIGIN)
    log.begin("command", None)
    return log


def test_a_new_process_goes_on_with_what_the_log_holds(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = begin_log(path)
    for step in (1, 3):
        log.add(ONE, 0, make_measurement(step))
    log.add(ONE, 1, make_measurement(1))
    again = begin_log(path)
    assert again.is_complete(ONE, 0, max_steps=3)
    assert not again.is_complete(ONE, 1, max_steps=3) and not again.is_complete(
        OTHER, 0, max_steps=3
    )


def test_a_failed_training_is_complete(tmp_path: Path) -> None:
    log = begin_log(tmp_path / "log.jsonl")
    log.add(ONE, 0, Measurement(step=2, failed="non-finite loss at step 2"))
    assert log.is_complete(ONE, 0, max_steps=3)


def test_the_table_holds_what_is_complete_for_every_seed(tmp_path: Path) -> None:
    log = begin_log(tmp_path / "log.jsonl")
    for seed in (0, 1):
        for step in (1, 3):
            log.add(ONE, seed, make_measurement(step))
    for step in (1, 3):
        log.add(OTHER, 0, make_measurement(step))
    log.add(OTHER, 1, make_measurement(1))
    table = log.make_table((0, 1), max_steps=3)
    assert [one.configuration for one in table.trained] == [ONE]
    assert [m.step for m in table.trained[0].runs[1].measurements] == [1, 3]


def test_a_step_that_was_measured_again_counts_once_with_its_last_value(tmp_path: Path) -> None:
    log = begin_log(tmp_path / "log.jsonl")
    for score in (1.0, 2.0):
        log.add(ONE, 0, make_measurement(3, score))
    (run,) = log.make_table((0,), max_steps=3).trained[0].runs
    assert [m.metrics["rougeLsum"] for m in run.measurements] == [2.0]


def test_a_line_that_was_cut_is_dropped_and_the_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    begin_log(path).add(ONE, 0, make_measurement(3))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"configuration": {"learn')
    log = begin_log(path)
    log.add(OTHER, 0, make_measurement(3))
    again = Log(path, ORIGIN)
    assert again.is_complete(ONE, 0, 3) and again.is_complete(OTHER, 0, 3)


def test_a_log_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    begin_log(path)
    with pytest.raises(SweepAborted, match="another gpu: cpu, not H200"):
        Log(path, replace(ORIGIN, gpu="H200"))


def test_a_log_of_other_values_is_refused_and_one_of_an_older_version_goes_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.jsonl"
    begin_log(path).add(ONE, 0, make_measurement(3))
    newer = replace(ORIGIN, settings=ORIGIN.settings | {"task_options": {"sheet": None}})
    assert Log(path, newer).is_complete(ONE, 0, 3)
    with pytest.raises(SweepAborted, match="another max_steps: 3, not 4"):
        Log(path, replace(ORIGIN, settings=ORIGIN.settings | {"max_steps": 4}))


def test_a_command_is_kept_without_the_folders_of_its_machine() -> None:
    kept = format_command(
        "python -m x", ["--model", "/data/models/qwen", "--data", "rows", "--n", "3"]
    )
    assert kept == "python -m x --model qwen --data rows --n 3"


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = make_table(levels=2)
    write_table(tmp_path / "table.json", table)
    assert read_table(tmp_path / "table.json") == table


@pytest.mark.parametrize(
    ("content", "error"), [(None, "cannot be read"), ("{}", "is no table"), ("x", "is no table")]
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: str | None, error: str) -> None:
    path = tmp_path / "table.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SweepAborted, match=error):
        read_table(path)


def test_a_table_without_a_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_table(path, replace(make_table(levels=2), trained=()))
    with pytest.raises(SweepAborted, match="holds no configuration"):
        read_table(path)
