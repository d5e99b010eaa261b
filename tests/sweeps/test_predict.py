"""python -m sweeps.predict answers as the sweep's test rows were answered, and survives a kill."""

import csv
import fcntl
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeps import predict
from sweeps.cli import run_command
from sweeps.finals import predictions
from sweeps.finals.finalists import find_last_finals
from sweeps.records.events import EventLog, make_params_fields, make_report_fields, read_events
from tests.sweeps import scored_runs
from tests.sweeps.commands import world
from tests.sweeps.invented_sweep import make_history
from tests.sweeps.scored_runs import NUM_ROWS
from tests.sweeps.small_sweep import ROWS_NAME, Finished
from trainables.files import read_json_lines
from trainables.tiny import SAMSUM_DIR, TURKISH_TWEETS_DIR

pytestmark = pytest.mark.slow


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Rows without an answer, one of which cannot be asked."""
    path = tmp_path / "few.jsonl"
    rows = [{"id": n, "dialogue": f"A: {'so ' * n}?"} for n in range(12)]
    rows[4]["dialogue"] = " "
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompt_of(kind: str, line: dict[str, Any]) -> str:
    if kind == "table":
        return str(line["messages"][-2]["content"]).strip()
    if kind == "samsum":
        return f"Summarize the following dialogue.\n\n{line['dialogue'].strip()}"
    return f"Duygu: {line['Tweets'].strip()}"


def write_test_rows(kind: str, runs: dict[str, Path], prompts: set[str], folder: Path) -> Path:
    """The user's rows of these prompts, as a file of the type that they came from."""
    tweets = TURKISH_TWEETS_DIR / "tweets.csv"
    files = {"samsum": SAMSUM_DIR / "test.jsonl", "turkish_tweets": tweets, "solo": tweets}
    source = files.get(kind, runs["table"].parent / "chats.jsonl")
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".csv":
        rows: list[Any] = list(csv.DictReader(io.StringIO(text)))
    else:
        rows = list(map(json.loads, text.splitlines()))
    rows = [row for row in rows if prompt_of(kind, row) in prompts]
    assert rows
    lines = [json.dumps(row) for row in rows]
    if source.suffix == ".csv":
        lines = ["Tweets,Duygu", *(f"{row['Tweets']},{row['Duygu']}" for row in rows)]
    path = folder / f"rows{source.suffix}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["samsum", "turkish_tweets", "table", "solo"])
def test_rows_are_answered_to_the_letter_as_they_were_scored(
    kind: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = predictions.read(runs[kind] / "best")
    assert len(scored) == NUM_ROWS and len({row.prediction for row in scored}) > 1
    output, prompts = tmp_path / "out.jsonl", {row.prompt for row in scored}
    source = write_test_rows(kind, runs, prompts, tmp_path)
    call(runs[kind], source, output, "--batch-size", "4")
    lines = {prompt_of(kind, line): line for line in read_json_lines(output)}
    for row in scored:
        line = lines[row.prompt]
        assert line["prediction"] == row.prediction
        if row.probabilities:
            assert line["probabilities"] == pytest.approx(row.probabilities, abs=2e-6)
            assert line["probability"] == line["probabilities"][row.prediction]
    told = capsys.readouterr()
    assert "scores of " in told.out and f"predictions: {output}" in told.out
    assert "cut to " in told.err


def test_scores_are_those_of_the_test(runs: dict[str, Path], tmp_path: Path) -> None:
    scored = {row.id: row for row in predictions.read(runs["samsum"] / "best")}
    lines = [line for line in read_json_lines(SAMSUM_DIR / "test.jsonl") if line["id"] in scored]
    lines.append({"id": "", "dialogue": "A: nobody knows the answer", "summary": ""})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for flags, name in (((), "scores"), (("--base",), "base_scores")):
        output = tmp_path / f"{name}.jsonl"
        told = call(runs["samsum"], tmp_path / "in.jsonl", output, *flags)
        note = json.loads(output.with_name(f"{output.name}.json").read_text())
        assert (note["rows"], note["predicted"], note["scored"]) == (NUM_ROWS + 1,) * 2 + (
            NUM_ROWS,
        )
        for metric in ("rougeLsum", "rouge1"):
            mean = sum(getattr(row, name)[metric] for row in scored.values()) / NUM_ROWS
            assert note["scores"][metric] == pytest.approx(mean)
        assert told["scores"] == note["scores"] and told["predictions"] == str(output)


def test_killed_command_answers_only_what_is_not_written(
    runs: dict[str, Path], few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    call(runs["samsum"], few, output, "--batch-size", "1")
    whole = output.read_bytes()
    lines = whole.splitlines(keepends=True)
    lines[0] = lines[0].replace(b'"prediction": "', b'"prediction": "kept ')
    output.write_bytes(b"".join(lines[:7]) + lines[7][:20])
    call(runs["samsum"], few, output)
    assert output.read_bytes() == b"".join(lines) != whole
    call(runs["samsum"], few, output)
    assert output.read_bytes() == b"".join(lines)
    assert "predictions: " in capsys.readouterr().out

    few.write_text(few.read_text().replace("so so", "no so"))
    error, fix = refusal(runs["samsum"], few, output, capsys=capsys)
    assert f"{output} exists, and is of another input" in error and "--output" in fix
    few.write_text(few.read_text().replace("no so", "so so"))
    error, _ = refusal(runs["samsum"], few, output, "--base", capsys=capsys)
    assert "is of another adapter" in error
    output.with_name("out.jsonl.json").unlink()
    error, _ = refusal(runs["samsum"], few, output, capsys=capsys)
    assert "is of another command, or of none" in error
    assert output.read_bytes() == b"".join(lines)


def test_output_with_other_lines_than_the_command_writes_is_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (TURKISH_TWEETS_DIR / "tweets.csv").read_text().splitlines()[:4]
    source, output = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("\n".join(rows))
    call(runs["turkish_tweets"], source, output)
    capsys.readouterr()
    first, *others = output.read_text().splitlines(keepends=True)
    own = json.loads(first)
    for number, lines in {
        4: [first, *others, first],
        1: [others[0], first],
        2: [first, "[1]\n"],
        3: [first, others[0], "{\n", others[1]],
    }.items():
        output.write_text("".join(lines))
        error, fix = refusal(runs["turkish_tweets"], source, output, capsys=capsys)
        assert f"line {number} of {output} is damaged" in error and f"remove line {number}" in fix
    for change in ({"prediction": 5}, {"prediction": "no label"}):
        output.write_text(json.dumps(own | change) + "\n")
        error, _ = refusal(runs["turkish_tweets"], source, output, capsys=capsys)
        assert f"line 1 of {output} is damaged" in error


def test_two_commands_do_not_write_one_file(
    runs: dict[str, Path], few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    with output.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        error, fix = refusal(runs["samsum"], few, output, capsys=capsys)
    assert f"another process writes {output}" in error and "wait" in fix
    assert output.read_bytes() == b""


def test_half_of_a_character_costs_no_table(runs: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"dialogue": "A: hi", "name": "half \\ud800"}\n')
    call(runs["samsum"], source, tmp_path / "out.csv")
    assert "half ?" in (tmp_path / "out.csv").read_text(encoding="utf-8")


def test_row_that_cannot_be_asked_keeps_its_place(
    runs: dict[str, Path], few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(runs["samsum"], few, tmp_path / "out.jsonl")
    lines = read_json_lines(tmp_path / "out.jsonl")
    assert [line["id"] for line in lines] == list(range(12))
    assert [n for n, line in enumerate(lines) if line["prediction"] is None] == [4]
    told = capsys.readouterr()
    assert "rows without a prediction: blank input 1" in told.err and "scores" not in told.out


def test_scores_are_shown_with_the_digits_of_their_scale() -> None:
    results = {"rows": 3, "scored": 2, "scores": {"half": 0.43216, "rouge1": 43.216, "other": 1.0}}
    record = {"metric": {"name": "half"}, "metrics": ["half", "rouge1"]}
    lines = list(predict._describe_scores(results, record))
    assert lines == ["scores of 2 of 3 rows:", "  half 0.4322", "  rouge1 43.22"]


def test_tables_have_the_same_predictions(runs: dict[str, Path], tmp_path: Path) -> None:
    rows = (TURKISH_TWEETS_DIR / "tweets.csv").read_text().splitlines()[:9]
    (tmp_path / "in.csv").write_text("\n".join([*rows, "no label,7"]))
    run, outputs = (
        runs["turkish_tweets"],
        [tmp_path / f"o.{e}" for e in ("jsonl", "csv", "parquet")],
    )
    for output in outputs:
        call(run, tmp_path / "in.csv", output)
    lines = read_json_lines(outputs[0])
    with outputs[1].open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    frame = pd.read_parquet(outputs[2])
    names = ["Tweets", "Duygu", "prediction", "probability", "probabilities"]
    assert list(cells[0]) == list(frame.columns) == list(lines[0]) == names
    for line, cell, row in zip(lines, cells, frame.to_dict("records"), strict=True):
        assert cell["prediction"] == row["prediction"] == line["prediction"]
        assert json.loads(cell["probabilities"]) == line["probabilities"]
        assert json.loads(row["probabilities"]) == line["probabilities"]
        assert float(cell["probability"]) == row["probability"] == line["probability"]
    assert not (tmp_path / "o.csv.jsonl").exists()
    assert json.loads((tmp_path / "o.csv.json").read_text())["scored"] == 8


def test_standard_input_and_output_carry_lines_and_nothing_else(
    runs: dict[str, Path], few: Path, tmp_path: Path
) -> None:
    call(runs["samsum"], few, tmp_path / "out.jsonl")
    words = [str(runs["samsum"]), "--input", "-", "--output", "-"]
    ended = subprocess.run(
        [sys.executable, "-m", "sweeps.predict", *words],
        cwd=tmp_path,
        env=world(tmp_path) | {"PYTHONIOENCODING": "ascii"},
        input=few.read_bytes(),
        capture_output=True,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stdout == (tmp_path / "out.jsonl").read_bytes()
    assert b"12/12" in ended.stderr


@pytest.mark.parametrize(
    ("words", "error", "fix"),
    [
        (["--input", "nowhere.csv"], "--input nowhere.csv does not exist", "check --input"),
        (["--input", "https://a.b/c.csv"], "--input https://a.b/c.csv does not exist", "download"),
        (["--input", "other.csv"], "has no column 'dialogue'; found text", "dialogue"),
        (["--input", "empty.jsonl"], "cannot read empty.jsonl", ""),
        (["--input", "twice.csv"], "two columns 'a'", "rename"),
        (["--input", "taken.csv"], "a column 'prediction'", "rename"),
        (["--input", "rows.txt"], "no known type", ".jsonl"),
        (["--output", "out.xlsx"], "--output out.xlsx is of no known type", ".parquet"),
        (["--output", "rows.csv"], "exists already", "another"),
        (
            ["--output", "own.jsonl"],
            "own.jsonl.json exists, and is no note of predictions",
            "another",
        ),
        (["--output", "rows.csv/out.jsonl"], "cannot be written", "folder"),
        (["--input", "mixed.json", "--output", "o.parquet"], "do not fit in Parquet", ".jsonl"),
        (["--trial", "t7"], "there is no trial 't7'", "t0001"),
        (["--trial", "t0001"], "the adapter of t0001 is not there any more", "--trial"),
        (["--trial", "t0001", "--base"], "trial is 't0001'", "--help"),
        (["--batch-size", "0"], "--batch-size is 0", "--help"),
        (["--skip-rows", "-1"], "--skip-rows is -1", "--help"),
        (["--encoding", "none"], "cannot read rows.csv", "--encoding"),
        (["--sheet", "a"], "rows.csv has no sheets", "--sheet"),
        (["--columns", "a"], "--columns gives 1 names", "name"),
        (["--model", "nowhere/at all"], "nowhere/at all", "--model"),
        (["--model", "base"], "base is not what it was when", "put its files back"),
        (["--bsae"], "--bsae", "--base"),
        (["--json", "--output", "-"], "output is '-'", "--help"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(
    words: list[str],
    error: str,
    fix: str,
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(runs["samsum"], tmp_path / "run"))
    log = EventLog(run / "events.jsonl")
    made = make_history(1, "completed", (90, 1.0), params=scored_runs.PARAMS)
    params = make_params_fields(made.params)
    log.append("trial_started", trial_id="t0001", number=1, params=params)
    log.append("report", **make_report_fields(made.reports[-1]))
    files = {"rows.csv": "dialogue,n\na,1\n", "other.csv": "text\na\n", "empty.jsonl": ""}
    files |= {"twice.csv": "dialogue,a,a\na,1,2\n", "taken.csv": "dialogue,prediction\na,b\n"}
    files |= {"rows.txt": "a", "mixed.json": '[{"dialogue": "a"}, {"dialogue": {"a": 1}}]'}
    files["own.jsonl.json"] = "{}"
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    if "base" in words:
        scored_runs.copy_base(tmp_path / "base", scored_runs.penalty)
        weights = tmp_path / "base" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-2] + b"??")
    given = words if "--input" in words else ["--input", "rows.csv", *words]
    given = given if "--output" in words else [*given, "--output", "out.jsonl"]
    told = refusal(run, *given, capsys=capsys)
    assert error in told[0] and fix in told[1]
    assert not (tmp_path / "out.jsonl").exists()


def test_run_of_an_earlier_version_is_one_clear_error(
    runs: dict[str, Path], few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(runs["samsum"], tmp_path / "run"))
    facts = json.loads((run / "rows" / "splits.json").read_text())
    del facts["columns"]
    (run / "rows" / "splits.json").write_text(json.dumps(facts))
    error, fix = refusal(run, few, tmp_path / "out.jsonl", capsys=capsys)
    assert "is of an earlier version" in error and "best/README.md" in fix


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("adapter_config.json", b"{", "Expecting property name"),
        ("adapter_config.json", b"[]", "adapter_config.json is no PEFT config"),
        ("adapter_model.safetensors", b"version https://git-lfs", "no whole safetensors file"),
    ],
)
def test_damaged_adapter_is_one_clear_error(
    name: str,
    content: bytes,
    reason: str,
    runs: dict[str, Path],
    few: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Path(shutil.copytree(runs["samsum"], tmp_path / "run"))
    (run / "best" / name).write_bytes(content)
    error, fix = refusal(run, few, tmp_path / "out.jsonl", capsys=capsys)
    assert f"the adapter in {run / 'best'} is damaged" in error and reason in error
    assert "copy" in fix and not (tmp_path / "out.jsonl").exists()


def test_whole_sweep_is_answered_by_its_winner_its_base_and_another_trial(
    finished: Finished, tmp_path: Path
) -> None:
    scored = predictions.read(finished.folder / "best")
    finals = find_last_finals(read_events(finished.folder / "events.jsonl"))
    assert finals is not None
    other = next(
        path.name
        for path in sorted((finished.folder / "answers").glob("f*"))
        if (path.name in {run.trial_id for run in finals.runs})
    )
    for name, flags in (("best", ()), ("base", ("--base",)), ("other", ("--trial", other))):
        output = tmp_path / f"{name}.jsonl"
        call(finished.folder, finished.runs_dir / ROWS_NAME / "test.jsonl", output, *flags)
        said = {line["id"]: line["prediction"] for line in read_json_lines(output)}
        if name == "other":
            kept = read_json_lines(finished.folder / "answers" / other / "answers.jsonl")
            expected = {line["id"]: line["answer"] for line in kept}
        else:
            wanted = {"best": "prediction", "base": "base_prediction"}[name]
            expected = {row.id: getattr(row, wanted) for row in scored}
        assert len(expected) > 20
        assert {row_id: said[row_id] for row_id in expected} == expected


def call(run: Path, source: Path, output: Path, *flags: str) -> Mapping[str, Any]:
    """What the command finds, in this process."""
    words = ["--input", str(source), "--output", str(output), *flags]
    return predict.main([str(run), *words]).facts


def refusal(run: Path, *words: object, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The error and fix of a command that refuses."""
    texts = list(map(str, words))
    if not texts[0].startswith("--"):
        texts[:2] = ["--input", texts[0], "--output", texts[1]]
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: predict.main([str(run), *texts]))
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    error, fix = (line.partition(": ") for line in told.err.splitlines())
    assert (error[0], fix[0]) == ("error", "fix")
    return error[2], fix[2]
