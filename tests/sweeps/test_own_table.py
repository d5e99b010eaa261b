"""Tables of one's own, as a new user brings them: each gives a plan or one clear error."""
# ruff: noqa: RUF001 - Turkish has a dotless i

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sweeps.checks.commands import write_sweep_command
from sweeps.checks.preflight import check
from sweeps.checks.run_folder import open_run
from sweeps.config import from_json
from sweeps.recipes import table
from sweeps.records.run import read_record
from tests.sweeps.commands import TINY, Ended, call, start, world
from trainables.config import TaskOptions

RECIPE = """
from dataclasses import replace

from sweeps.config import SweepConfig
from sweeps.recipes import table
from trainables.config import TaskOptions


def recipe(is_tiny: bool) -> SweepConfig:
    options = TaskOptions(input="text", target="class", kind="classify",
                          label_names=("0=neutral", "1=bad", "2=good"))
    return replace(table(is_tiny), data="numbers.xlsx", task_options=options, num_trials=3)
"""


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in world(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)


def reviews() -> None:
    """A Turkish CSV file as Excel saves it: semicolons, a byte order mark, CRLF."""
    lines = ["Müşteri;Yorum;Puan"]
    lines += [
        f'm{i};"Ürün {i}, ışığı güzel; kargo hızlı";{("iyi", "kötü")[i % 2]}' for i in range(60)
    ]
    Path("yorum.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")


def notes() -> None:
    """JSON Lines in which some summaries are missing."""
    rows: list[dict[str, object]] = [
        {"article": f"The harbour had {i} ships that day.", "summary": f"{i} ships."}
        for i in range(50)
    ]
    for row in rows[3:8]:
        del row["summary"]
    rows[9]["summary"] = None
    Path("notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def numbers() -> None:
    """A workbook whose labels are numbers with a fraction."""
    rows = [(f"some words {i}", float(i % 3)) for i in range(45)]
    pd.DataFrame(rows, columns=["text", "class"]).to_excel("numbers.xlsx", index=False)


def planned(*flags: str) -> list[str]:
    """The plan's lines about the rows."""
    ended = call("sweeps.run", "table", "--tiny", "--dry-run", *flags)
    assert ended.code == 0, ended.stderr
    section = re.search(r"^rows {10}(.*?)^\w", ended.stdout, re.MULTILINE | re.DOTALL)
    assert section is not None
    return [line.strip() for line in section[1].splitlines()]


def test_turkish_csv_of_excel_is_planned() -> None:
    reviews()
    lines = planned("--data", "yorum.csv", "--input", "Yorum", "--target", "Puan")
    assert lines == [
        "train 36, validation 12, test 12",
        "yorum.csv: 60 rows, encoding utf-8-sig, delimiter ;",
        "split by content, the same for every seed: train, validation, test",
        "train: iyi 18, kötü 18",
        "validation: iyi 6, kötü 6",
        "test: iyi 6, kötü 6",
    ]


def test_turkish_csv_without_its_columns_gets_the_flags_that_fit() -> None:
    reviews()
    error, fix = call("sweeps.run", "table", "--tiny", "--data", "yorum.csv").refusal()
    assert "Müşteri (60 different values), Yorum (60 different values), Puan (2" in error
    assert "message" not in error and "intent" not in error  # the bundled file's columns
    assert fix == "try --input Yorum --target Puan --kind classify"


def test_json_lines_with_missing_targets_are_planned_and_counted() -> None:
    notes()
    flags = ("--data", "notes.jsonl", "--input", "article", "--target", "summary")
    assert planned(*flags, "--kind", "summarize") == [
        "train 28, validation 8, test 8",
        "notes.jsonl: 50 rows",
        "split by content, the same for every seed: train, validation, test",
        "left out: table no target 6",
    ]
    error, fix = call("sweeps.run", "table", "--tiny", *flags).refusal()
    assert error.startswith("the column summary holds 44 different values in 44 rows")
    assert "--kind summarize" in fix


def test_workbook_with_numbers_for_labels_is_planned() -> None:
    numbers()
    flags = ("--data", "numbers.xlsx", "--input", "text", "--target", "class")
    assert "train: 0 9, 1 9, 2 9" in planned(*flags)
    named = planned(*flags, "--label-names", "0=neutral", "1=bad", "2=good")
    assert "train: neutral 9, bad 9, good 9" in named
    error, fix = call("sweeps.run", "table", "--tiny", *flags, "--label-names", "0=no").refusal()
    assert "holds '1', '2', which --label-names (0) does not name" in error
    assert "1=NAME" in fix


def test_own_recipe_of_a_table_is_planned() -> None:
    numbers()
    Path("mine.py").write_text(RECIPE)
    ended = call("sweeps.run", "mine.py", "--tiny", "--dry-run")
    assert ended.code == 0, ended.stderr
    assert "3 trials of mine.py, ranked by accuracy (max)" in ended.stdout
    assert "train: neutral 9, bad 9, good 9" in ended.stdout


@pytest.mark.parametrize("recipe", ["table", "turkish_tweets"])
def test_recipe_without_data_is_refused_before_a_gpu_is_looked_for(recipe: str) -> None:
    error, fix = call("sweeps.run", recipe).refusal()
    assert error == f"{recipe} has no dataset of its own"
    assert "--data FILE" in fix


def test_command_of_the_card_names_the_data_and_its_options() -> None:
    options = TaskOptions(
        input="the text", target="mood", kind="classify", label_names=("0=a", "1=b")
    )
    config = replace(table(), data="/home/me/my rows.csv", task_options=options)
    command = shlex.split(write_sweep_command(config))
    assert command[:6] == ["python", "-m", "sweeps.run", "table", "--data", "my rows.csv"]
    for words in (["--input", "the text"], ["--label-names", "0=a", "1=b"]):
        assert any(command[i : i + len(words)] == words for i in range(len(command)))
    assert "--data owner/name" in write_sweep_command(replace(config, data="owner/name"))
    own = "bleu,/home/me/mine.py:score,evaluate:/home/me/ter:score"
    hidden = replace(options, metric=own, kind="summarize")
    hidden = replace(hidden, label_names=None)
    shown = write_sweep_command(replace(config, recipe="/home/me/own.py", task_options=hidden))
    assert "/home/me" not in shown and "--metric bleu,mine.py:score,evaluate:ter:score" in shown
    assert "--data 'rows, all.csv'" in write_sweep_command(
        replace(config, data="/home/me,x/rows, all.csv")
    )
    assert "--data" not in write_sweep_command(table(is_tiny=True))


def test_data_is_an_absolute_path_or_a_dataset_of_the_hub(tmp_path: Path) -> None:
    numbers()
    for data, source in (("numbers.xlsx", str(tmp_path / "numbers.xlsx")), ("a/b", "a/b")):
        config = replace(table(), data=data)
        assert config.data == source


def test_record_says_how_the_rows_were_read_and_asked_about(tmp_path: Path) -> None:
    numbers()
    config = replace(
        table(is_tiny=True),
        data="numbers.xlsx",
        wandb="disabled",
        name="mine",
        task_options=TaskOptions(input="text", target="class", kind="classify"),
    )
    with open_run(config, check(config, is_resumed=False), is_resumed=False) as paths:
        content = read_record(paths)
    assert content["labels"] == ["0", "1", "2"]
    assert content["prompt"].endswith("one of: 0, 1, 2.\n\n{text}")
    assert "train: 0 9, 1 9, 2 9" in content["read"]


def test_options_for_labels_are_refused_for_summaries(tmp_path: Path) -> None:
    ended: Ended = start("sweeps.run", "samsum", "--tiny", "--label-names", "0=no", folder=tmp_path)
    assert "has no use for --label-names" in ended.refusal()[0]


def test_dry_run_of_a_real_model_reads_the_rows_without_a_gpu() -> None:
    reviews()
    flags = ["table", "--model", str(TINY / "model"), "--data", "yorum.csv", "--dry-run"]
    error, fix = call("sweeps.run", *flags).refusal()
    assert error.startswith("table needs --input, --target, --kind; the columns found are Müşteri")
    ended = call("sweeps.run", *flags, *shlex.split(fix.partition("try ")[2]))
    assert ended.code == 0, ended.stderr
    assert re.search(r"^rows +train 36, validation 12, test 12$", ended.stdout, re.MULTILINE)
    assert re.search(r"^at once +nothing: no GPU found", ended.stdout, re.MULTILINE)
    error, fix = call("sweeps.run", *flags[:-1]).refusal()
    assert "no GPU found" in error and "--dry-run" in fix


def test_epochs_become_steps_once_the_rows_are_counted() -> None:
    reviews()
    flags = ["--data", "yorum.csv", "--input", "Yorum", "--target", "Puan", "--batch-size", "5"]
    words = ["table", "--tiny", "--dry-run", *flags, "--micro-batch-size", "5"]
    ended = call("sweeps.run", *words, "--epochs", "2.5")
    assert ended.code == 0, ended.stderr
    assert "18 steps of 5 rows = 2.50 epochs" in ended.stdout  # of 36 rows
    assert re.search(r"^rungs +9, 18 steps", ended.stdout, re.MULTILINE)
    error, _ = call("sweeps.run", *words, "--epochs", "2", "--max-steps", "9").refusal()
    assert error.startswith("--epochs and --max-steps both say")
    for value in ("0", "nan", "-1"):
        assert "epochs" in call("sweeps.run", *words, "--epochs", value).refusal()[0]


def test_several_files_are_kept_in_the_record_and_the_command() -> None:
    Path("a.csv").write_text("text,label\n" + "".join(f"t {i},{i % 2}\n" for i in range(30)))
    Path("b c.csv").write_text("text,label\n" + "".join(f"u {i},{i % 2}\n" for i in range(30)))
    options = TaskOptions(input="text", target="label", kind="classify", max_rows=50)
    config = replace(
        table(is_tiny=True),
        data=("a.csv", "b c.csv"),
        wandb="disabled",
        name="both",
        task_options=options,
    )
    with open_run(config, check(config, is_resumed=False), is_resumed=False) as paths:
        content = read_record(paths)
    assert [Path(name).name for name in content["dataset"]] == ["a.csv", "b c.csv"]
    assert content["read"][0] == (
        "a.csv and 1 more: 60 rows, encoding utf-8, delimiter ,, 50 of them drawn, the same every "
        "time"
    )
    assert from_json(content["config"]) == config
    words = shlex.split(write_sweep_command(replace(config, tiny=False)))
    assert words[words.index("--data") + 1 :][:2] == ["a.csv", "b c.csv"]
    assert words[words.index("--max-rows") + 1] == "50"


@pytest.mark.parametrize(
    ("words", "error", "fix"),
    [
        (["--columns", "text"], "--columns gives 1 names, but there are 3 columns", "each column"),
        (["--columns"], "columns is ()", "--help"),
        (["--encoding", "klingon"], "unknown encoding: klingon", "--encoding"),
        (["--encoding", "ascii"], "'ascii' codec can't decode", "--encoding"),
        (["--skip-rows", "-1"], "--skip-rows is -1", "--help"),
        (["--skip-rows", "x"], "--skip-rows", "--help"),
        (["--skip-rows", "900"], "cannot read yorum.csv", "repair it"),
        (["--max-rows", "0"], "--max-rows is 0", "--help"),
        (["--max-rows", "3"], "different values in 3 rows", "--target"),
        (["--sheet", "one"], "yorum.csv has no sheets", "leave out --sheet"),
        (["--data"], "data is ()", "--help"),
        (["--data", "yorum.csv", "nowhere.csv"], "nowhere.csv does not exist", "--data"),
        (["--data", "yorum.csv", "owner/name"], "owner/name does not exist", "--data"),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_bad_flag_of_the_data_is_told_in_two_lines(words: list[str], error: str, fix: str) -> None:
    reviews()
    data = [] if "--data" in words else ["--data", "yorum.csv"]
    flags = ["--input", "Yorum", "--target", "Puan", "--kind", "classify"]
    told = call("sweeps.run", "table", "--tiny", *data, *flags, *words).refusal()
    assert error in told[0] and fix in told[1]


@pytest.mark.parametrize(
    ("command", "words", "ours"),
    [
        ("sweeps.run", ["--lr", "1e-4"], "--learning-rates LOW HIGH"),
        ("sweeps.run", ["--learning_rate=1e-4"], "--learning-rates LOW HIGH"),
        ("sweeps.run", ["--rank", "8"], "--lora-ranks RANK"),
        ("sweeps.run", ["--lora-r", "8"], "--lora-ranks RANK"),
        ("sweeps.run", ["--lora-alpha", "16"], "--alphas-over-rank RATIO"),
        ("sweeps.run", ["--max-seq-length", "512"], "--max-length-tokens TOKENS"),
        ("sweeps.run", ["--max_seq_length", "512"], "--max-length-tokens TOKENS"),
        ("sweeps.run", ["--num-train-epochs", "3"], "--epochs EPOCHS"),
        ("sweeps.run", ["--output-dir", "out"], "--runs-dir DIR"),
        ("sweeps.run", ["--load-in-4bit"], "--base nf4 or bf16"),
        ("sweeps.trial", ["--lr", "1e-4"], "--learning-rate RATE"),
        ("sweeps.trial", ["--rank", "8"], "--lora-rank RANK"),
    ],
)
def test_flag_of_a_peer_is_answered_with_ours(command: str, words: list[str], ours: str) -> None:
    error, fix = call(command, "samsum", "--tiny", *words).refusal()
    assert words[0].split("=")[0].replace("_", "-") in error.replace("_", "-")
    assert fix.startswith(f"here that is {ours}")
