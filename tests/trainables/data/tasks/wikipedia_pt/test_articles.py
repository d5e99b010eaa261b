"""Articles: what a dump, a file and their paragraphs become, and which topic they are of."""

import bz2
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.tasks.wikipedia_pt.articles import Article, read_articles
from trainables.data.tasks.wikipedia_pt.selection import (
    TOPICS,
    cut_at_paragraph,
    read_topics,
    topic_of,
)
from trainables.errors import SweepAborted

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


def dump(*pages: str) -> bytes:
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo/>'
    return bz2.compress((head + "".join(pages) + "</mediawiki>").encode())


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def test_dump_gives_plain_text_and_categories_of_articles_alone(tmp_path: Path) -> None:
    escaped = WIKITEXT.replace("&", "&amp;").replace("<", "&lt;")
    pages = (
        PAGE.format("Tejo", 0, "", escaped),
        PAGE.format("Discussão:Tejo", 1, "", "conversa"),
        PAGE.format("Rio Tejo", 0, '<redirect title="Tejo" />', "#REDIRECT [[Tejo]]"),
        PAGE.format("Vazio", 0, "", ""),
    )
    (tmp_path / "ptwiki.xml.bz2").write_bytes(dump(*pages))
    (article,) = read_articles(str(tmp_path / "ptwiki.xml.bz2"))
    assert article.title == "Tejo"
    assert article.categories == ("Rios de Portugal", "Península Ibérica")
    assert article.text == (
        "O Tejo é um rio da península.\n\nHistória\n\nA foz fica em Lisboa. É larga.\n\nReferências"
    )


def test_torn_dump_is_named(tmp_path: Path) -> None:
    whole = dump(*[PAGE.format(f"A{n}", 0, "", f"texto {n} " * 99) for n in range(500)])
    (tmp_path / "torn.xml.bz2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SweepAborted, match=r"torn\.xml\.bz2 cannot be read"):
        list(read_articles(str(tmp_path / "torn.xml.bz2")))


def test_line_that_is_no_article_is_told_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    path.write_text(json.dumps({"title": "a", "text": "b"}) + '\n{"title": "c"}\n')
    with pytest.raises(SweepAborted, match=r"line 2 of .*articles.jsonl is no article: KeyError"):
        list(read_articles(str(path)))


def test_unknown_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepAborted, match="there is no article file nowhere"):
        read_articles("nowhere")
    (tmp_path / "a.pdf").touch()
    with pytest.raises(SweepAborted, match="of no known type"):
        read_articles(str(tmp_path / "a.pdf"))


@pytest.mark.parametrize(
    ("article", "topic"),
    [
        (Article("Batalha de Ourique", "Combate de 1139."), "história"),
        (Article("Tejo", "Corre na península.", ("Rios de Portugal",)), "geografia"),
        (Article("Ana", "É uma ATLETA de futebol."), "esportes"),
        (Article("Quimica", "Estuda a matéria."), "ciência"),
        (Article("Ana", "Joga futebol."), None),
        (Article("Ana", "Nada.\nUm atleta de futebol."), None),
        (Article("Friorento", "Riograndense."), None),
    ],
)
def test_topic_follows_from_title_categories_and_first_paragraph(
    article: Article, topic: str | None
) -> None:
    assert topic_of(article, TOPICS) == topic


def test_topics_are_ours_by_name_or_the_users_own() -> None:
    assert len(TOPICS) == 5
    assert read_topics(["artes", "mares=oceano, praia"]) == {
        "artes": TOPICS["artes"],
        "mares": ("oceano", "praia"),
    }
    for bad in ("mares", "mares=", "=oceano"):
        with pytest.raises(SweepAborted, match="is unknown or has no keyword"):
            read_topics([bad])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 60))
def test_text_is_cut_at_the_last_paragraph_that_fits(lengths: list[int], limit: int) -> None:
    paragraphs = [" ".join(["palavra"] * length) for length in lengths]
    cut = cut_at_paragraph("\n".join(paragraphs), words, 1, limit)
    kept = cut.split("\n\n") if cut else []
    assert kept == paragraphs[: len(kept)]
    assert sum(length + 1 for length in lengths[: len(kept)]) <= limit
    is_more = len(kept) < len(lengths)
    assert not is_more or sum(length + 1 for length in lengths[: len(kept) + 1]) > limit


def test_short_articles_are_left_out_and_lists_at_the_end_are_not_counted() -> None:
    text = "Um dois três.\nReferências\n" + "livro " * 100
    assert cut_at_paragraph(text, words, 4, 50) == "Um dois três."
    assert cut_at_paragraph(text, words, 5, 50) is None


def test_unreachable_hub_tells_of_the_other_sources(tmp_path: Path) -> None:
    code = (
        "from trainables.data.tasks.wikipedia_pt.articles import read_articles as r; next(r('hub'))"
    )
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "SweepAborted: error: cannot read wikimedia/wikipedia" in ended.stderr
    assert "--source a dump or a .jsonl file" in ended.stderr
