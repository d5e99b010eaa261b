"""The builder of wikipedia_pt's rows: from articles and an endpoint, through kill -9."""

import bz2
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
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.wikipedia_pt_builder import (
    TOPICS,
    cut_at_paragraph,
    cut_at_sentence,
    find_topic,
    main,
    read_articles,
)
from tests.sweeps.servers.judge_server import Answer, completion, judge_server
from trainables.config import TaskOptions
from trainables.data.tasks.wikipedia_pt import wikipedia_pt
from trainables.errors import SweepAborted
from trainables.tiny import MODEL_DIR

MODULE = "tests.benchmarks.wikipedia_pt_builder"
NUM_ARTICLES = 30
SPLITS = ("train", "validation", "test")
WIKITEXT = """{{Info/Rio|nome=Tejo|extensão={{fmtn|1007}}}}
[[Ficheiro:Tejo.jpg|thumb|O rio [[Tejo]] em Lisboa]]
O '''Tejo''' é um [[rio]] da [[Península Ibérica|península]].<ref name="a">Um livro, p. 3.</ref>

== História ==
{| class="wikitable"
| 1 || 2
|}
A ''foz'' fica em [[Lisboa]].&nbsp;É larga.

== Referências ==
{{Reflist}}
[[Categoria:Rios de Portugal]]
[[Categoria:Península Ibérica|Tejo]]
"""
PAGE = "<page><title>{}</title><ns>{}</ns>{}<revision><text>{}</text></revision></page>"


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


def make_flags(articles: Path, url: str, /, **changes: str) -> list[str]:
    values = {
        "out": str(articles.parent / "out"),
        "writer": "large",
        "endpoint": url,
        "source": str(articles),
        "tokenizer": str(MODEL_DIR),
        "topics": "geografia",
        "min-tokens": "20",
        "max-tokens": "900",
        "concurrency": "4",
    } | changes
    return [word for name, value in values.items() for word in (f"--{name}", value)]


def start_build(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", MODULE, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENAI_API_KEY": "k"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def answer_river(body: dict[str, Any]) -> Answer:
    match = re.search(r"O rio (\d+) corre", body["messages"][0]["content"])
    assert match
    return completion(f"<think>hm</think>\n\nO rio {match[1]}.")


@pytest.mark.slow
def test_killed_build_goes_on_where_it_was(source: Path) -> None:
    out = source.parent / "out"
    rows_path = out / "rows.jsonl"

    def answer(body: dict[str, Any]) -> Answer:
        time.sleep(0.2)
        return answer_river(body)

    with judge_server(answer) as server:
        process = start_build(make_flags(source, server.url))
        while not rows_path.exists() or rows_path.read_bytes().count(b"\n") < 8:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = rows_path.read_text("utf-8")
        num_before = before.count("\n")
        assert 8 <= num_before < NUM_ARTICLES
        assert not (out / "train.jsonl").exists()
        with rows_path.open("a") as torn:
            torn.write('{"id": "half a li')
        source.write_text("")  # the articles were chosen already
        server.requests.clear()
        ended = start_build(make_flags(source, server.url))
        stdout, stderr = ended.communicate(timeout=60)
    assert ended.returncode == 0, stderr
    assert f"rows written before: {num_before}\n" in stdout
    assert len(server.requests) == NUM_ARTICLES - num_before
    assert set(server.authorizations) == {"Bearer k"}
    assert rows_path.read_text("utf-8").startswith(before)
    assert len(read_rows(rows_path)) == NUM_ARTICLES
    splits = wikipedia_pt(TaskOptions()).load(str(out))
    assert [len(getattr(splits, split)) for split in SPLITS] == [24, 3, 3]
    targets = {row.target for split in SPLITS for row in getattr(splits, split)}
    assert targets == {f"O rio {n}." for n in range(NUM_ARTICLES)}


def test_failed_rows_are_counted_and_tried_again(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    is_ill = True

    def answer(body: dict[str, Any]) -> Answer:
        return (400, {}, "no") if is_ill and "rio 7 " in str(body) else answer_river(body)

    with judge_server(answer) as server:
        main(make_flags(source, server.url))
        assert "rows failed: 1\n" in capsys.readouterr().out
        assert len(read_rows(source.parent / "out" / "rows.jsonl")) == NUM_ARTICLES - 1
        is_ill = False
        server.requests.clear()
        main(make_flags(source, server.url))
    assert len(server.requests) == 1 and "rio 7 " in str(server.requests[0])
    assert "train: 24\nvalidation: 3\ntest: 3\n" in capsys.readouterr().out


def test_rows_carry_their_topic_and_no_text_is_written_twice(source: Path) -> None:
    with judge_server(answer_river) as server:
        main(make_flags(source, server.url, **{"articles-per-topic": "12"}))
    rows = read_rows(source.parent / "out" / "rows.jsonl")
    assert len(rows) == len({row["text"] for row in rows}) == 12
    assert {row["topic"] for row in rows} == {"geografia"}
    assert set(rows[0]) == {"id", "title", "topic", "text", "summary"}


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, "large wrote no summary of 24 articles in a row"), (401, "answers HTTP 401")],
)
def test_endpoint_that_refuses_stops_the_build(source: Path, status: int, error: str) -> None:
    with (
        judge_server(lambda _: (status, {}, "no")) as server,
        pytest.raises(SweepAborted, match=error),
    ):
        main(make_flags(source, server.url))
    assert len(server.requests) < NUM_ARTICLES


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
def test_key_is_sent_without_what_files_of_variables_leave_behind_it_and_never_shown(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    end: str,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"secret-key{end}")
    caplog.set_level(0)
    with (
        judge_server(lambda _: (401, {}, "bad key secret-key")) as refusing,
        pytest.raises(SweepAborted, match="401") as refused,
    ):
        main(make_flags(source, refusing.url))
    with judge_server(answer_river) as server:
        main(make_flags(source, server.url))
    assert set(refusing.authorizations) == set(server.authorizations) == {"Bearer secret-key"}
    assert "secret-key" not in str(refused.value) + caplog.text + "".join(capsys.readouterr())


def test_key_that_no_header_can_carry_is_refused_unseen_before_anything_is_written(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secr\u00e9t")
    with pytest.raises(SweepAborted, match="no HTTP header") as refused:
        main(make_flags(source, "http://127.0.0.1:9/v1"))
    assert "secr" not in str(refused.value)
    assert not (source.parent / "out").exists()


@pytest.mark.parametrize(
    "url", ["http://user:secret@127.0.0.1:9", "ftp://u:secret@x", "http://127.0.0.1:9/?key=secret"]
)
def test_endpoint_that_may_hold_a_secret_is_refused_unseen(source: Path, url: str) -> None:
    with pytest.raises(SweepAborted, match="URL has one of @") as refused:
        main(make_flags(source, url))
    assert "secret" not in str(refused.value)


def test_other_settings_in_the_same_folder_are_refused(source: Path) -> None:
    with judge_server(answer_river) as server:
        main(make_flags(source, server.url))
        with pytest.raises(SweepAborted, match="is of a build with other settings"):
            main(make_flags(source, server.url, **{"max-words": "60"}))


def test_source_without_an_article_that_fits_is_told(source: Path) -> None:
    with pytest.raises(SweepAborted, match="no article of"):
        main(make_flags(source, "http://127.0.0.1:9/v1", **{"min-tokens": "899"}))


def test_long_summaries_are_asked_for_twice_then_cut_at_a_sentence(source: Path) -> None:
    long = "Uma frase curta. " + "Outra frase que passa do limite. " * 2

    def answer(body: dict[str, Any]) -> Answer:
        is_second = "absoluto" in body["messages"][0]["content"]
        return completion("Curta." if is_second and "rio 7 " in str(body) else long)

    with judge_server(answer) as server:
        main(make_flags(source, server.url, **{"max-words": "8"}))
    assert len(server.requests) == 2 * NUM_ARTICLES
    summaries = {row["summary"] for row in read_rows(source.parent / "out" / "rows.jsonl")}
    assert summaries == {"Uma frase curta.", "Curta."}
    assert cut_at_sentence("palavra " * 30, 8) == ""


def test_dump_gives_plain_text_and_categories_of_articles_alone(tmp_path: Path) -> None:
    escaped = WIKITEXT.replace("&", "&amp;").replace("<", "&lt;")
    pages = (
        PAGE.format("Tejo", 0, "", escaped),
        PAGE.format("Discussão:Tejo", 1, "", "conversa"),
        PAGE.format("Rio Tejo", 0, '<redirect title="Tejo" />', "#REDIRECT [[Tejo]]"),
        PAGE.format("Vazio", 0, "", ""),
    )
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo/>'
    dump = bz2.compress((head + "".join(pages) + "</mediawiki>").encode())
    (tmp_path / "ptwiki.xml.bz2").write_bytes(dump)
    ((title, text, categories),) = read_articles(str(tmp_path / "ptwiki.xml.bz2"))
    assert title == "Tejo"
    assert categories == ["Rios de Portugal", "Península Ibérica"]
    assert text == (
        "O Tejo é um rio da península.\n\nHistória\n\nA foz fica em Lisboa. É larga.\n\nReferências"
    )


@pytest.mark.parametrize(
    ("title", "text", "categories", "topic"),
    [
        ("Batalha de Ourique", "Combate de 1139.", (), "história"),
        ("Tejo", "Corre na península.", ("Rios de Portugal",), "geografia"),
        ("Ana", "É uma ATLETA de futebol.", (), "esportes"),
        ("Quimica", "Estuda a matéria.", (), "ciência"),
        ("Ana", "Joga futebol.", (), None),
        ("Ana", "Nada.\nUm atleta de futebol.", (), None),
        ("Friorento", "Riograndense.", (), None),
    ],
)
def test_topic_follows_from_title_categories_and_first_paragraph(
    title: str, text: str, categories: tuple[str, ...], topic: str | None
) -> None:
    assert find_topic(title, text, categories, TOPICS) == topic


def count_words(texts: Any) -> list[int]:
    return [len(text.split()) for text in texts]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 60))
def test_text_is_cut_at_the_last_paragraph_that_fits(lengths: list[int], limit: int) -> None:
    paragraphs = [" ".join(["palavra"] * length) for length in lengths]
    cut = cut_at_paragraph("\n".join(paragraphs), count_words, 1, limit)
    kept = cut.split("\n\n") if cut else []
    assert kept == paragraphs[: len(kept)]
    assert sum(length + 1 for length in lengths[: len(kept)]) <= limit
    is_more = len(kept) < len(lengths)
    assert not is_more or sum(length + 1 for length in lengths[: len(kept) + 1]) > limit


def test_short_articles_are_left_out_and_lists_at_the_end_are_not_counted() -> None:
    text = "Um dois três.\nReferências\n" + "livro " * 100
    assert cut_at_paragraph(text, count_words, 4, 50) == "Um dois três."
    assert cut_at_paragraph(text, count_words, 5, 50) is None


def test_command_tells_its_flags_and_loads_no_torch() -> None:
    code = (
        f"import sys, {MODULE} as m, contextlib\n"
        "with contextlib.suppress(SystemExit): m.main(['--help'])\n"
        "sys.exit(bool({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "--articles-per-topic" in ended.stdout
