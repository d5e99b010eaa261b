"""The build command: rows from articles and an endpoint, through kill -9 and half-written lines."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.data.tasks.wikipedia_pt.chat_server import Asked, serving
from trainables.config import TaskOptions
from trainables.data.tasks.wikipedia_pt.__main__ import main
from trainables.data.tasks.wikipedia_pt.row_log import RowLog
from trainables.data.tasks.wikipedia_pt.task import WikipediaPt
from trainables.errors import SweepAborted
from trainables.tiny import MODEL_DIR

NUM_ARTICLES = 30
SPLITS = ("train", "validation", "test")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Thirty articles on rivers, one that fits no topic, one that is short and one copy."""
    rivers = [
        {"title": f"Rio {n}", "text": f"O rio {n} corre.\n" + "A foz é larga. " * (5 + n)}
        for n in range(NUM_ARTICLES)
    ]
    others = [{"title": "Ana", "text": "Palavra. " * 40}, {"title": "Rio", "text": "O rio."}]
    path = tmp_path / "articles.jsonl"
    rows = [*rivers, *others, rivers[0]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def flags(articles: Path, url: str, /, **changes: str) -> list[str]:
    given = {
        "out": str(articles.parent / "out"),
        "writer": "large",
        "endpoint": url,
        "source": str(articles),
        "tokenizer": str(MODEL_DIR),
        "topics": "geografia",
        "min-tokens": "20",
        "max-tokens": "900",
        "batch-size": "4",
    } | changes
    return ["build", *(word for name, value in given.items() for word in (f"--{name}", value))]


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "trainables.data.tasks.wikipedia_pt", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENAI_API_KEY": "k"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def river(prompt: str) -> str:
    found = re.search(r"O rio (\d+) corre", prompt)
    assert found
    return f"O rio {found[1]}."


def num_done(asked: Asked, out: Path) -> int:
    return (out / "rows.jsonl").read_bytes().count(b"\n") if asked.prompts else 0


def test_killed_build_goes_on_where_it_was(source: Path) -> None:
    out = source.parent / "out"

    def answer(prompt: str, _: int) -> str:
        time.sleep(0.2)
        return river(prompt)

    with serving(answer) as asked:
        process = start(flags(source, asked.url))
        while num_done(asked, out) < 8:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = rows_of(out / "rows.jsonl")
        assert 8 <= len(before) < NUM_ARTICLES
        assert not (out / "train.jsonl").exists()
        with (out / "rows.jsonl").open("a") as torn:
            torn.write('{"id": "half a li')
        source.unlink()
        asked.bodies.clear()
        source.touch()
        ended = start(flags(source, asked.url))
        stdout, stderr = ended.communicate(timeout=60)
    assert ended.returncode == 0, stderr
    assert f"rows written before: {len(before)}\n" in stdout
    assert {river(p) for p in asked.prompts}.isdisjoint(row["summary"] for row in before)
    assert len(asked.prompts) == NUM_ARTICLES - len(before)
    assert set(asked.keys) == {"Bearer k"}
    assert len(rows_of(out / "rows.jsonl")) == NUM_ARTICLES
    splits = WikipediaPt(TaskOptions()).load(str(out))
    assert [len(getattr(splits, split)) for split in SPLITS] == [24, 3, 3]
    targets = {row.target for split in SPLITS for row in getattr(splits, split)}
    assert targets == {f"O rio {n}." for n in range(NUM_ARTICLES)}


def test_failed_rows_are_counted_and_tried_again(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    is_ill = True
    with serving(lambda p, _: 400 if is_ill and "rio 7 " in p else river(p)) as asked:
        assert main(flags(source, asked.url)) == 0
        assert "rows failed: 1\n" in capsys.readouterr().out
        assert len(rows_of(source.parent / "out" / "rows.jsonl")) == NUM_ARTICLES - 1
        is_ill = False
        asked.bodies.clear()
        assert main(flags(source, asked.url)) == 0
    assert [river(p) for p in asked.prompts] == ["O rio 7."]
    assert "train: 24\nvalidation: 3\ntest: 3\n" in capsys.readouterr().out


def test_rows_carry_their_topic_and_no_text_is_written_twice(source: Path) -> None:
    with serving(lambda p, _: river(p)) as asked:
        assert main(flags(source, asked.url, **{"articles-per-topic": "12"})) == 0
    rows = rows_of(source.parent / "out" / "rows.jsonl")
    assert len(rows) == len({row["text"] for row in rows}) == 12
    assert {row["topic"] for row in rows} == {"geografia"}
    assert set(rows[0]) == {"id", "title", "topic", "text", "summary"}


def test_server_that_never_answers_stops_the_build(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda *_: 400) as asked:
        assert main(flags(source, asked.url)) == 2
    assert "large wrote no summary of 3 batches in a row" in capsys.readouterr().err
    assert len(asked.prompts) == 12


def test_other_settings_in_the_same_folder_are_refused(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda p, _: river(p)) as asked:
        assert main(flags(source, asked.url)) == 0
        assert main(flags(source, asked.url, **{"max-words": "60"})) == 2
    error, fix = capsys.readouterr().err.strip().splitlines()[-2:]
    assert "holds a build with max_words 120, not 60" in error
    assert fix.startswith("fix: choose another --out")


def test_row_with_any_line_end_is_read_back(tmp_path: Path) -> None:
    row = {"id": "a", "summary": "um\u2028dois\x85três\u2029quatro\ncinco"}
    with RowLog(tmp_path / "rows.jsonl") as log:
        log.append(row)
    with RowLog(tmp_path / "rows.jsonl") as log:
        assert log["a"] == row


def test_two_builds_never_write_one_file(tmp_path: Path) -> None:
    with (
        RowLog(tmp_path / "rows.jsonl"),
        pytest.raises(SweepAborted, match="another build writes"),
        RowLog(tmp_path / "rows.jsonl"),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"topics": "mares"}, "the topic 'mares' is unknown"),
        ({"max-tokens": "10"}, "max_tokens is 10; it must be at least min_tokens 20"),
        ({"batch-size": "0"}, "batch_size is 0; it must be at least 1"),
        ({"tokenizer": "/nowhere"}, "the tokenizer of /nowhere cannot be loaded"),
        ({"source": "/nowhere.jsonl"}, "there is no article file /nowhere.jsonl"),
        ({"min-tokens": "899"}, "no article of"),
    ],
)
def test_bad_input_is_two_lines_and_exit_code_2(
    source: Path, changes: dict[str, str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(source, "http://127.0.0.1:9/v1", **changes)) == 2
    told = capsys.readouterr().err.strip().splitlines()[-2:]
    assert told[0].startswith(f"error: {error}")
    assert told[1].startswith("fix: ")


def test_command_says_how_it_is_used_and_loads_no_torch() -> None:
    code = (
        "import sys, trainables.data.tasks.wikipedia_pt.__main__ as m; m.main(['--help']); "
        "sys.exit(bool({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("usage: python -m trainables.data.tasks.wikipedia_pt build")
