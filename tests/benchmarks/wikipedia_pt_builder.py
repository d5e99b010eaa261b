"""python -m tests.benchmarks.wikipedia_pt_builder --out DIR --endpoint URL --writer MODEL: rows.

It makes the rows of the task wikipedia_pt: articles of the wanted topics and lengths, each with a
summary that a larger model wrote, split alike in length. The articles are kept once all are chosen
and every row as soon as it has its summary, so the same command goes on with a build that was
stopped, and tries again what failed. Any OpenAI-compatible endpoint will do; `vllm serve MODEL` is
one. Dumps need `pip install mwparserfromhell`.
"""

import asyncio
import bz2
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from sweeps.checks.endpoint import check_endpoint, read_api_key
from sweeps.cli import parse, run_command
from trainables.data.rows import Document
from trainables.data.splitting import split_by_content
from trainables.errors import SweepAborted
from trainables.files import JsonLines, encode_lines, read_json_lines, write_atomic
from trainables.metrics.sentences import sentences_of
from trainables.models.hub_files import download_hub_file
from trainables.shell import write_command

Topic = Literal["história", "ciência", "geografia", "artes", "esportes"]
HUB_DATASET = ("wikimedia/wikipedia", "20231101.pt")
TOPICS: dict[Topic, str] = {
    "história": "história histórico império guerra batalha século rei dinastia revolução colonial",
    "ciência": "ciência cientista física química biologia matemática teoria espécie astronomia "
    "planeta",
    "geografia": "geografia município cidade rio montanha ilha país região habitantes clima",
    "artes": "arte pintor pintura literatura escritor romance música cantor cinema filme teatro",
    "esportes": "esporte desporto futebol clube atleta jogador campeonato olímpicos torneio "
    "treinador",
}
"""Keywords of each topic: whole words, singular or plural, accents do not matter."""
MIN_SCORE = 2
"""A keyword in the title or a category counts two, one in the first paragraph counts one."""
END_SECTIONS = {
    *("referências", "notas", "notas e referências", "bibliografia", "ver também"),
    *("ligações externas", "leitura adicional"),
}
"""Headings after which an article has lists only."""
PROMPT = (
    "Escreva um resumo do texto a seguir em português, em um só parágrafo de no máximo {max_words} "
    "palavras. Use apenas informações do texto e responda somente com o resumo.\n\n{text}"
)
SECOND_PROMPT = (
    "Escreva um resumo muito curto do texto a seguir em português, em um só parágrafo. O limite "
    "de {max_words} palavras é absoluto: um resumo anterior tinha {num_words} e foi recusado. "
    "Responda somente com o resumo.\n\n{text}"
)
MAX_TOKENS_PER_WORD = 4
"""Room of an answer: Portuguese takes about two tokens a word, and a long answer has to show."""
MAX_FAILED_IN_A_ROW = 24

Json = dict[str, str]
CountTokens = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True, kw_only=True)
class Build:
    """Collects articles, has a larger model summarise them, and splits the rows."""

    out: Path
    """Folder of the rows: train.jsonl, validation.jsonl and test.jsonl."""
    endpoint: str
    """OpenAI-compatible server, e.g. http://localhost:8000/v1."""
    writer: str
    """The name of the writing model at the endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key."""
    source: str = "hub"
    """hub (wikimedia/wikipedia 20231101.pt), a .xml.bz2 dump, or a .jsonl file of {title, text}."""
    topics: tuple[Topic, ...] = tuple(TOPICS)
    articles_per_topic: int = 400
    """Articles of each topic at most, the first of the source."""
    tokenizer: str = "Qwen/Qwen2.5-0.5B-Instruct"
    """Hub id or folder of the model whose tokens measure the articles."""
    min_tokens: int = 500
    """Shorter articles are left out."""
    max_tokens: int = 4000
    """Longer articles are cut at the end of a paragraph."""
    max_words: int = 120
    """Longest summary."""
    concurrency: int = 8
    """Requests under way at once."""


def main(argv: Sequence[str] | None = None) -> None:
    """Builds the rows and prints what was counted."""
    args = parse(Build, argv, "python -m tests.benchmarks.wikipedia_pt_builder")
    for name, number in build(args).items():
        print(f"{name}: {number:,}")
    print(f"next: python -m sweeps.run wikipedia_pt --data {write_command(args.out)}")


def build(args: Build) -> Counter[str]:
    """Writes train.jsonl, validation.jsonl and test.jsonl into args.out."""
    check_endpoint(args.endpoint, args.api_key_env)
    api_key = read_api_key(args.api_key_env)
    args.out.mkdir(parents=True, exist_ok=True)
    _check_settings(args)
    articles_path, rows_path = args.out / "articles.jsonl", args.out / "rows.jsonl"
    if not articles_path.is_file():
        articles = list(choose_articles(args, load_token_counter(args.tokenizer)))
        if not articles:
            raise SweepAborted(f"no article of {args.source} fits", "check --source and --topics")
        _write_rows(articles_path, articles)
    articles = read_json_lines(articles_path)
    rows_file = JsonLines(rows_path)  # which cuts off half a line of a build that was killed
    written = {row["id"] for row in read_json_lines(rows_path)}
    counts = Counter({"articles": len(articles), "rows written before": len(written)})
    missing = [article for article in articles if article["id"] not in written]
    with closing(rows_file):
        asyncio.run(_summarise_all(missing, args, api_key, rows_file, counts))

    by_id = {row["id"]: row for row in read_json_lines(rows_path)}
    rows = [by_id[article["id"]] for article in articles if article["id"] in by_id]
    documents = [Document(id=r["id"], source=r["text"], target=r["summary"]) for r in rows]
    for split, kept in split_by_content(documents, {}).items():
        if not kept:
            raise SweepAborted(f"{len(rows)} rows are too few for three splits", "collect more")
        _write_rows(args.out / f"{split}.jsonl", [by_id[document.id] for document in kept])
        counts[split] = len(kept)
    return +counts


def _check_settings(args: Build) -> None:
    """A build goes on only where all that decides its rows is unchanged."""
    path = args.out / "build.json"
    left_out = ("out", "endpoint", "api_key_env", "concurrency")
    wanted = {name: value for name, value in asdict(args).items() if name not in left_out}
    wanted["topics"] = list(args.topics)
    if not path.is_file():
        path.write_text(json.dumps(wanted, ensure_ascii=False), encoding="utf-8")
    elif json.loads(path.read_text(encoding="utf-8")) != wanted:
        raise SweepAborted(f"{path} is of a build with other settings", "choose another --out")


def _write_rows(path: Path, rows: Sequence[Json]) -> None:
    write_atomic(path, encode_lines(rows).decode())


def choose_articles(args: Build, count_tokens: CountTokens) -> Iterator[Json]:
    """The source's first articles of each topic that are long enough, each text once."""
    num_chosen: Counter[str] = Counter()
    digests: set[str] = set()
    for title, text, categories in read_articles(args.source):
        topic = find_topic(title, text, categories, {name: TOPICS[name] for name in args.topics})
        if topic is None or num_chosen[topic] >= args.articles_per_topic:
            continue
        cut = cut_at_paragraph(text, count_tokens, args.min_tokens, args.max_tokens)
        digest = hashlib.sha256((cut or "").encode()).hexdigest()[:16]
        if cut is None or digest in digests:
            continue
        digests.add(digest)
        num_chosen[topic] += 1
        yield {"id": digest, "title": title, "topic": topic, "text": cut}
        if all(num_chosen[name] >= args.articles_per_topic for name in args.topics):
            return


def read_articles(source: str) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Title, text (a line a paragraph) and categories (of dumps only) of the source's articles."""
    if source == "hub":
        from datasets import load_dataset  # seconds to load, and other sources need none

        for row in load_dataset(*HUB_DATASET, split="train", streaming=True):
            yield row["title"], row["text"], ()
    elif source.endswith(".jsonl"):
        for row in read_json_lines(Path(source)):
            yield row["title"], row["text"], ()
    else:
        for title, wikitext in _read_dump(Path(source)):
            categories = re.findall(r"\[\[\s*categor(?:ia|y)\s*:\s*([^\]|]+)", wikitext, re.I)
            yield title, extract_text(wikitext), [name.strip() for name in categories]


def _read_dump(path: Path) -> Iterator[tuple[str, str]]:
    """Title and wikitext of every article of a dump; no redirect, talk page or template."""
    with bz2.open(path) if path.suffix == ".bz2" else path.open("rb") as file:
        events = ElementTree.iterparse(file, events=("start", "end"))
        _, root = next(events)
        for event, page in events:
            if event == "start" or not page.tag.endswith("}page"):
                continue
            wikitext = page.findtext("{*}revision/{*}text")
            if wikitext and page.findtext("{*}ns") == "0" and page.find("{*}redirect") is None:
                yield page.findtext("{*}title") or "", wikitext
            root.clear()  # a dump is larger than memory


def extract_text(wikitext: str) -> str:
    """The text that a reader sees, with a blank line between paragraphs."""
    import mwparserfromhell  # other sources need none

    tags = ("ref", "table", "gallery", "math", "timeline", "style")
    links = re.compile(r"\s*(ficheiro|arquivo|imagem|file|image|categoria|category)\s*:", re.I)
    code = mwparserfromhell.parse(wikitext)
    unwanted = [
        *code.filter_tags(recursive=True, matches=lambda tag: str(tag.tag) in tags),
        *code.filter_wikilinks(matches=lambda link: bool(links.match(str(link.title)))),
    ]
    for node in unwanted:
        if code.contains(node):  # not within one that went already
            code.remove(node)
    lines = (" ".join(line.split()) for line in code.strip_code().splitlines())
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip()


def find_topic(
    title: str, text: str, categories: Sequence[str], topics: Mapping[Topic, str]
) -> Topic | None:
    """The topic with the highest score, the first of equals; None below MIN_SCORE."""
    strong, weak = _list_words(" ".join((title, *categories))), _list_words(text.split("\n", 1)[0])
    scores: dict[Topic, int] = {}
    for name, keywords in topics.items():
        forms = {form for word in _list_words(keywords) for form in (word, word + "s")}
        scores[name] = sum(2 * strong.count(form) + weak.count(form) for form in forms)
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= MIN_SCORE else None


def _list_words(text: str) -> list[str]:
    """The text's words in lower case without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"\w+", "".join(c for c in letters if not unicodedata.combining(c)))


def cut_at_paragraph(
    text: str, count_tokens: CountTokens, min_tokens: int, max_tokens: int
) -> str | None:
    """The first paragraphs that have max_tokens at most; None if they have fewer than min_tokens.

    The sections of lists at an article's end are left out.
    """
    paragraphs = [line.strip() for line in text.splitlines() if line.strip()]
    ends = [i for i, line in enumerate(paragraphs) if line.casefold() in END_SECTIONS]
    paragraphs = paragraphs[: ends[0]] if ends else paragraphs
    total, num_kept = 0, 0
    for num_tokens in count_tokens(paragraphs):
        if total + num_tokens + 1 > max_tokens:  # 1 is a newline
            break
        total, num_kept = total + num_tokens + 1, num_kept + 1
    return "\n\n".join(paragraphs[:num_kept]) if total >= min_tokens else None


def load_token_counter(model: str) -> CountTokens:
    """Counts tokens with the model's tokenizer alone: no weights, no torch."""
    from tokenizers import Tokenizer

    folder, file = Path(model), "tokenizer.json"
    path = folder / file if folder.is_dir() else download_hub_file(model, file)
    tokenizer = Tokenizer.from_file(str(path))
    return lambda texts: [
        len(encoding) for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)
    ]


async def _summarise_all(
    articles: Sequence[Json], args: Build, api_key: str, rows_file: JsonLines, counts: Counter[str]
) -> None:
    """Appends each article with its summary as soon as it has one; failures are only counted."""
    import openai  # an extra

    under_way = asyncio.Semaphore(args.concurrency)
    failed_in_a_row = 0
    client = openai.AsyncOpenAI(base_url=args.endpoint, api_key=api_key or "none")

    async def ask(prompt: str) -> str:
        completion: Any = await client.chat.completions.create(
            model=args.writer,
            messages=[{"role": "user", "content": prompt}],
            temperature=0,
            max_tokens=MAX_TOKENS_PER_WORD * args.max_words,
        )
        answer = completion.choices[0].message.content or ""
        return re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL).strip()

    async def summarise(article: Json) -> None:
        nonlocal failed_in_a_row
        async with under_way:
            try:
                text = await ask(PROMPT.format(max_words=args.max_words, **article))
                num_words = len(text.split())
                if num_words > args.max_words:
                    counts["summaries asked for twice"] += 1
                    prompt = SECOND_PROMPT.format(
                        max_words=args.max_words, num_words=num_words, **article
                    )
                    text = cut_at_sentence(await ask(prompt), args.max_words)
            except (openai.APIConnectionError, openai.APIStatusError) as refused:
                if getattr(refused, "status_code", 0) in (401, 403, 404):
                    raise SweepAborted(
                        f"the endpoint answers HTTP {refused.status_code}",  # type: ignore[union-attr]
                        f"check --endpoint, --writer and the key in {args.api_key_env}",
                    ) from None
                text = ""
            failed_in_a_row = 0 if text else failed_in_a_row + 1
            if failed_in_a_row >= MAX_FAILED_IN_A_ROW:
                raise SweepAborted(
                    f"{args.writer} wrote no summary of {failed_in_a_row} articles in a row",
                    "check the endpoint; the same command goes on where this build stopped",
                )
            counts["rows written" if text else "rows failed"] += 1
            if text:
                rows_file.append(article | {"summary": text})

    try:
        async with client, asyncio.TaskGroup() as group:
            for article in articles:
                group.create_task(summarise(article))
    except BaseExceptionGroup as refusals:
        raise refusals.exceptions[0] from None


def cut_at_sentence(text: str, max_words: int) -> str:
    """The first sentences that have max_words words at most; "" if the first has more."""
    kept = ""
    for sentence in sentences_of(text, "portuguese"):
        longer = f"{kept} {sentence}".strip()
        if len(longer.split()) > max_words:
            break
        kept = longer
    return kept


if __name__ == "__main__":
    run_command(main)
