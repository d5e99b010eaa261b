"""python -m sweeps.judge RUN --endpoint URL --model M: a language model compares winner and base.

The judge reads what the winner and the untuned base answered to each test row
(best/test_predictions.jsonl). It is asked twice a row, with the answers in either order; where the
two verdicts differ the row is a tie, so that a liking for the first place wins nothing. Replies
without a verdict are counted and never guessed. Replies are kept in the run: a repeated or
interrupted command pays only for what is new.

Any OpenAI-compatible endpoint will do; vLLM, llama.cpp, Ollama and `transformers serve` are some.
"""

import asyncio
import hashlib
import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import tyro

from sweeps.cli import parse, run_command
from sweeps.export import find_best
from sweeps.finals import predictions
from sweeps.finals.predictions import Prediction
from trainables.errors import SweepAborted
from trainables.metrics.judge_prompts import CRITERIA, Case, pairwise_messages, read_choice

PROG = "python -m sweeps.judge"
NUM_RESAMPLES = 2_000
MAX_SHOWN_CHARACTERS = 300
"""Longest part of an endpoint's refusal that is shown."""
TITLES = {
    "rows": "test rows",
    "winner": "winner is better",
    "base": "untuned base is better",
    "tie": "equally good",
    "tie_by_disagreement": "  of these, the two orders disagreed",
    "unreadable": "replies without a verdict",
    "win_rate": "win rate of the winner, % (ties are half)",
    "win_rate_low": "  its 95% interval over rows, from",
    "win_rate_high": "  to",
}
Request = dict[str, Any]
"""The body of a chat completion."""


@dataclass(frozen=True, kw_only=True)
class JudgeArgs:
    """Has a language model judge the winner's test answers beside the untuned base's."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished sweep, e.g. runs/samsum."""
    endpoint: str
    """URL before /chat/completions, e.g. http://localhost:8000/v1."""
    model: str
    """The judge's name at the endpoint."""
    task: str = "Do what the source asks for."
    """What the answers were asked to do; the source is the row's whole prompt."""
    criteria: str = CRITERIA
    """When an answer is good."""
    num_rows: int | None = None
    """Test rows that are judged, the first of their fixed order; None is all of them."""
    with_reference: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show the judge the row's target too, as a good answer."""
    concurrency: int = 8
    """Requests under way at once."""
    max_retries: int = 5
    """Times that a request is repeated if the endpoint is busy or out of reach."""
    timeout_s: float = 120.0
    """Seconds to wait for a reply."""
    temperature: float | None = 0.0
    """None leaves it out, for models that refuse it."""
    max_tokens: int = 1024
    """Longest reply."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls it."""
    api_key_env: str = "JUDGE_API_KEY"
    """Environment variable with the key; no key is sent if it is unset."""
    price_prompt: float | None = None
    """Price of a million prompt tokens, in any currency."""
    price_completion: float | None = None
    """Price of a million completion tokens."""

    def __post_init__(self) -> None:
        least = {"num_rows": 1, "concurrency": 1, "max_retries": 0, "max_tokens": 1, "timeout_s": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                flag = "--" + name.replace("_", "-")
                raise SweepAborted(f"{flag} is {value}", f"give {flag} {bound} or more")
        parts = urlsplit(self.endpoint)
        if parts.username or parts.password or parts.query:
            raise SweepAborted(
                "the endpoint has a login or a query in its URL, where logs would show it",
                f"give the plain URL, and the key in the environment variable {self.api_key_env}",
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SweepAborted(
                f"the endpoint {self.endpoint!r} is no http(s) URL", "e.g. http://localhost:8000/v1"
            )


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the judge said, and the tokens that were paid for, 0 if the endpoint does not say."""

    text: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the judge said of one row."""

    id: str
    better: Literal["winner", "base", "tie"] | None
    """None where a reply could not be read."""
    is_split: bool = False
    """The two orders disagreed, and so the row is a tie."""


def main(argv: Sequence[str] | None = None) -> None:
    """Judges, prints the scores and the cost, and keeps both in RUN/judge."""
    args = parse(JudgeArgs, sys.argv[1:] if argv is None else argv, PROG)
    rows = predictions.read(find_best(args.run))[: args.num_rows]
    _refuse_labels(args.run)
    requests = [_requests(row, args) for row in rows]
    folder = args.run / "judge"
    with closing(_open_replies(folder / "replies.sqlite")) as replies:
        usage = _ask_missing([request for both in requests for request in both], args, replies)
        verdicts = [
            _compare(row.id, *(_find_reply(replies, request) for request in both))
            for row, both in zip(rows, requests, strict=True)
        ]
    scores = summarise(verdicts)
    for name, value in scores.items():
        print(f"{TITLES[name]:44} {value:.4g}")
    print(_describe_usage(usage, args))
    asked = {k: v for k, v in asdict(args).items() if k not in ("run", "endpoint", "api_key_env")}
    record = {"scores": scores, "asked": asked, "usage": usage}
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", args.model).strip("-.") or "judge"
    path, lines = folder / f"{name}.json", [json.dumps(asdict(verdict)) for verdict in verdicts]
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / f"{name}.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    print(f"scores: {path}")


def summarise(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Counts, and the win rate (0 to 100) over the rows that could be read, if there are any.

    A tie is half a win; the interval is a 95% percentile bootstrap over rows.
    """
    better = [verdict.better for verdict in verdicts]
    scores: dict[str, float] = {
        "rows": len(verdicts),
        **{name: better.count(name) for name in ("winner", "base", "tie")},
        "tie_by_disagreement": sum(verdict.is_split for verdict in verdicts),
        "unreadable": better.count(None),
    }
    worth = {"winner": 100.0, "tie": 50.0, "base": 0.0}
    values = [worth[name] for name in better if name is not None]
    if values:
        resamples = np.random.default_rng(0).choice(values, (NUM_RESAMPLES, len(values)))
        low, high = np.quantile(resamples.mean(axis=1), (0.025, 0.975))
        scores["win_rate"] = float(np.mean(values))
        scores |= {"win_rate_low": float(low), "win_rate_high": float(high)}
    return scores


def _compare(row_id: str, reply: str, swapped_reply: str) -> Verdict:
    """The verdict of the replies to (winner, base) and to (base, winner)."""
    choices = (read_choice(reply), read_choice(swapped_reply))
    if None in choices:
        return Verdict(id=row_id, better=None)
    if choices == ("1", "2"):
        return Verdict(id=row_id, better="winner")
    if choices == ("2", "1"):
        return Verdict(id=row_id, better="base")
    return Verdict(id=row_id, better="tie", is_split=choices != ("TIE", "TIE"))


def _refuse_labels(run: Path) -> None:
    """A label is right or wrong; nobody has to be paid to say so."""
    record: dict[str, object] = json.loads((run / "sweep.json").read_text(encoding="utf-8"))
    if record.get("labels"):
        raise SweepAborted(
            f"the answers of {run} are labels, which are right or wrong without a judge",
            f"see their accuracy in {run / 'best' / 'README.md'}",
        )


def _requests(row: Prediction, args: JudgeArgs) -> list[Request]:
    """Chat completions that show the answers in either order."""
    settings: Request = {"model": args.model, args.max_tokens_field: args.max_tokens}
    if args.temperature is not None:
        settings["temperature"] = args.temperature
    case = Case(
        task=args.task,
        criteria=args.criteria,
        source=_encodable(row.prompt),
        reference=_encodable(row.target) if args.with_reference else None,
    )
    winner, base = _encodable(row.prediction), _encodable(row.base_prediction)
    return [
        {**settings, "messages": pairwise_messages(case, *answers)}
        for answers in ((winner, base), (base, winner))
    ]


def _encodable(text: str) -> str:
    """Replaces halves of characters, which JSON can escape and UTF-8 cannot write."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def _open_replies(path: Path) -> sqlite3.Connection:
    """A SQLite file of replies, by a digest of the request: model, prompt, texts, sampling."""
    try:
        path.parent.mkdir(exist_ok=True)
        connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, model TEXT, text TEXT, "
            "prompt_tokens INTEGER, completion_tokens INTEGER)"
        )
    except (OSError, sqlite3.Error) as error:
        raise SweepAborted(
            f"the replies {path} cannot be used: {error}",
            "make its folder writable; a damaged file can be removed, and is then paid for again",
        ) from error
    return connection


def _key(request: Request) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _find_reply(replies: sqlite3.Connection, request: Request) -> str:
    query = "SELECT text FROM replies WHERE key = ?"
    return str(replies.execute(query, [_key(request)]).fetchone()[0])


def _ask_missing(
    requests: Sequence[Request], args: JudgeArgs, replies: sqlite3.Connection
) -> dict[str, int]:
    """Asks what is not in the file yet, equal requests once, and says what that took."""
    by_key = {_key(request): request for request in requests}
    known = {key for (key,) in replies.execute("SELECT key FROM replies")} & by_key.keys()
    usage = {"requests": 0, "cached": len(known), "prompt_tokens": 0, "completion_tokens": 0}

    def keep(request: Request, reply: Reply) -> None:
        row = (_key(request), args.model, reply.text, reply.prompt_tokens, reply.completion_tokens)
        replies.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", row)
        usage["requests"] += 1
        usage["prompt_tokens"] += reply.prompt_tokens
        usage["completion_tokens"] += reply.completion_tokens

    missing = [request for key, request in by_key.items() if key not in known]
    if missing:
        asyncio.run(_ask(missing, args, keep))
    return usage


async def _ask(
    requests: Sequence[Request], args: JudgeArgs, keep: Callable[[Request, Reply], None]
) -> None:
    """Keeps each reply as it comes; the first refusal cancels all other requests."""
    try:
        import openai  # an extra
    except ModuleNotFoundError:
        raise SweepAborted(
            "a judge is asked through openai, which is not installed", "pip install '.[judge]'"
        ) from None
    # Files of variables leave blanks and line ends behind a key.
    key = os.environ.get(args.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise SweepAborted(
            f"the key in {args.api_key_env} has a character that no HTTP header can carry",
            f"put the key alone, without quotes or line ends, into {args.api_key_env}",
        )
    # Without a key the client would send OPENAI_API_KEY, which is not the endpoint's to see.
    headers = {} if key else {"Authorization": openai.Omit()}
    under_way = asyncio.Semaphore(args.concurrency)

    async def ask(client: openai.AsyncOpenAI, request: Request) -> None:
        async with under_way:
            try:
                completion = await client.chat.completions.create(**request, extra_headers=headers)
            except openai.OpenAIError as error:
                raise _refusal(error, args, key) from None
            except ValueError as error:  # json's: the client passes it on
                raise _other_protocol(args, str(error)) from None
        keep(request, _read_reply(completion, args, key))

    async with openai.AsyncOpenAI(
        base_url=args.endpoint,
        api_key=key or "none",
        timeout=args.timeout_s,
        max_retries=args.max_retries,
        # A redirect would carry the rows, and perhaps the key, to another host.
        http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
    ) as client:
        try:
            async with asyncio.TaskGroup() as group:
                for request in requests:
                    group.create_task(ask(client, request))
        except BaseExceptionGroup as refusals:
            raise refusals.exceptions[0] from None


def _read_reply(completion: Any, args: JudgeArgs, key: str) -> Reply:
    """The first choice; the client does not check an answer of another protocol."""
    try:
        text, usage = completion.choices[0].message.content, completion.usage
    except (AttributeError, IndexError, TypeError):
        raise _other_protocol(args, _shown(str(completion), key)) from None
    counts = [getattr(usage, name, 0) for name in ("prompt_tokens", "completion_tokens")]
    prompt_tokens, completion_tokens = (n if isinstance(n, int) else 0 for n in counts)
    return Reply(
        text=_encodable(text) if isinstance(text, str) else "",
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


def _other_protocol(args: JudgeArgs, answer: str) -> SweepAborted:
    return SweepAborted(
        f"{args.endpoint} answers no chat completion: {answer}",
        "give the URL that /chat/completions follows; it often ends in /v1",
    )


def _refusal(error: Any, args: JudgeArgs, key: str) -> SweepAborted:
    status = getattr(error, "status_code", None)
    said = error.__cause__ or error if status is None else error.response.text
    reason = f"{status or type(error).__name__}: {_shown(str(said), key)}"
    if status is None or status in (408, 409, 429) or status >= 500:
        return SweepAborted(
            f"{args.endpoint} gave no answer in {args.max_retries + 1} attempts: {reason}",
            "run the same command again later, with a lower --concurrency; replies are kept",
        )
    fix = {
        401: f"put a valid key into the environment variable {args.api_key_env}",
        403: f"put a valid key into the environment variable {args.api_key_env}",
        404: "check --model, and --endpoint, which often ends in /v1",
    }.get(status, "change what the endpoint names; see --max-tokens-field and --temperature")
    return SweepAborted(f"{args.endpoint} answered {reason}", fix)


def _shown(text: str, key: str) -> str:
    """What an endpoint said, without the key and without what a terminal would obey."""
    hidden = text.replace(key, "***") if key else text
    printable = "".join(character if character.isprintable() else " " for character in hidden)
    return " ".join(printable.split())[:MAX_SHOWN_CHARACTERS]


def _describe_usage(usage: dict[str, int], args: JudgeArgs) -> str:
    """One line, with money if both prices are known."""
    text = (
        "{requests} requests, {cached} replies from the cache, {prompt_tokens} prompt and "
        "{completion_tokens} completion tokens"
    ).format(**usage)
    if args.price_prompt is None or args.price_completion is None:
        return text
    cost = usage["prompt_tokens"] * args.price_prompt
    cost += usage["completion_tokens"] * args.price_completion
    return f"{text}, cost {cost / 1e6:.4f}"


if __name__ == "__main__":
    run_command(main)
