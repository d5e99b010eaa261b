"""Which articles become rows: their topic, and their length in the trained model's tokens."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from trainables.data.tasks.wikipedia_pt.articles import Article
from trainables.errors import SweepAborted

TOPICS: Mapping[str, tuple[str, ...]] = {
    "história": ("história", "histórico", "império", "guerra", "batalha", "século", "rei",
                 "dinastia", "revolução", "colonial"),
    "ciência": ("ciência", "cientista", "física", "química", "biologia", "matemática", "teoria",
                "espécie", "astronomia", "planeta"),
    "geografia": ("geografia", "município", "cidade", "rio", "montanha", "ilha", "país", "região",
                  "habitantes", "clima"),
    "artes": ("arte", "pintor", "pintura", "literatura", "escritor", "romance", "música", "cantor",
              "cinema", "filme", "teatro"),
    "esportes": ("esporte", "desporto", "futebol", "clube", "atleta", "jogador", "campeonato",
                 "olímpicos", "torneio", "treinador"),
}  # fmt: skip
"""Keywords of each topic, whole words in the singular or plural, without regard to accents."""
MIN_SCORE = 2
"""A keyword in the title or a category counts two, one in the first paragraph counts one."""
END_SECTIONS = frozenset({"referências", "notas", "bibliografia", "ver também", "ligações externas",
                          "notas e referências", "leitura adicional"})  # fmt: skip
"""Headings after which an article has lists only."""

CountTokens = Callable[[Sequence[str]], list[int]]


def read_topics(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Keywords by topic: a name alone is one of TOPICS, NAME=WORD,WORD brings its own.

    Raises:
        SweepAborted: a name is unknown, or has no keyword.
    """
    topics = {}
    for given in names:
        name, has_words, words = given.partition("=")
        keywords = tuple(w.strip() for w in words.split(",") if w.strip())
        if not (name and keywords if has_words else name in TOPICS):
            raise SweepAborted(
                f"the topic {given!r} is unknown or has no keyword",
                f"name one of {', '.join(TOPICS)}, or give NAME=WORD,WORD,...",
            )
        topics[name] = keywords or TOPICS[name]
    return topics


def topic_of(article: Article, topics: Mapping[str, tuple[str, ...]]) -> str | None:
    """The topic with the highest score, the first of equals; None below MIN_SCORE."""
    strong = _words(" ".join((article.title, *article.categories)))
    weak = _words(article.text.split("\n", 1)[0])
    scores = {
        name: sum(2 * strong.count(word) + weak.count(word) for word in _forms(keywords))
        for name, keywords in topics.items()
    }
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= MIN_SCORE else None


def cut_at_paragraph(
    text: str, count_tokens: CountTokens, min_tokens: int, max_tokens: int
) -> str | None:
    """The first paragraphs that have max_tokens at most; None if they have fewer than min_tokens.

    The sections of lists at an article's end are left out.
    """
    paragraphs = []
    for paragraph in (line.strip() for line in text.splitlines()):
        if paragraph.casefold() in END_SECTIONS:
            break
        if paragraph:
            paragraphs.append(paragraph)
    num_tokens = [num + 1 for num in count_tokens(paragraphs)] if paragraphs else []  # + a newline
    total, kept = 0, 0
    while kept < len(paragraphs) and total + num_tokens[kept] <= max_tokens:
        total += num_tokens[kept]
        kept += 1
    return "\n\n".join(paragraphs[:kept]) if total >= min_tokens else None


def _forms(keywords: Sequence[str]) -> set[str]:
    """Each keyword, and with an s."""
    folded = {" ".join(_words(word)) for word in keywords}
    return folded | {word + "s" for word in folded}


def _words(text: str) -> list[str]:
    """The text's words in lower case without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"\w+", "".join(c for c in letters if not unicodedata.combining(c)))
