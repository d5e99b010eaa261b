"""python -m trainables.metrics.judge --rows FILE: answers graded, or compared, by a language model.

Pairwise each row is asked twice, with the answers in either order; where the two verdicts differ
the row is a tie, so that a judge's liking for the first place wins nothing. Replies without a
verdict are counted and never guessed. Replies are kept on disk, so that a run that was interrupted,
or is repeated, pays only for what is new.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from trainables.errors import SweepAborted
from trainables.metrics.judge_cache import ReplyCache, key_of
from trainables.metrics.judge_client import ChatClient, Reply
from trainables.metrics.judge_prompts import (
    CRITERIA,
    Case,
    graded_messages,
    pairwise_messages,
)
from trainables.metrics.judge_rows import JudgedRow, read_rows
from trainables.metrics.judge_verdicts import Mode, Verdict, compared, graded, scores_of


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """By whom answers are judged, and how."""

    mode: Mode = "pairwise"
    """pairwise: which of two answers is better; graded: 1 to 5 for each answer."""
    endpoint: str
    """URL before /chat/completions, e.g. http://localhost:8000/v1."""
    model: str
    """The judge's name at the endpoint."""
    task: str = "Summarise the source."
    """What the answers were asked to do."""
    criteria: str = CRITERIA
    """When an answer is good."""
    concurrency: int = 8
    """Requests under way at once."""
    max_attempts: int = 6
    """Tries of a request that the endpoint is too busy for."""
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
        for name in ("concurrency", "max_attempts", "max_tokens", "timeout_s"):
            value = getattr(self, name)
            if value <= 0:
                flag = name.replace("_", "-")
                raise SweepAborted(f"--{flag} is {value}", f"give a --{flag} above 0")


@dataclass(frozen=True, kw_only=True)
class JudgeArgs(JudgeOptions):
    """What is judged, and by whom."""

    rows: Path
    """JSON Lines: source, answer_a, and if there are any answer_b, reference, id."""
    cache: Path = Path("judge-replies.sqlite")
    """SQLite file of the replies."""
    out: Path | None = None
    """JSON Lines of each row's verdict; none are written if None."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What this run asked for and what it cost."""

    num_requests: int
    num_cached: int
    """Replies that were on disk already."""
    prompt_tokens: int
    completion_tokens: int

    def shown(self, price_prompt: float | None, price_completion: float | None) -> str:
        """One line, with money if both prices are known."""
        text = (
            f"{self.num_requests} requests, {self.num_cached} replies from the cache, "
            f"{self.prompt_tokens} prompt and {self.completion_tokens} completion tokens"
        )
        if price_prompt is None or price_completion is None:
            return text
        cost = self.prompt_tokens * price_prompt + self.completion_tokens * price_completion
        return f"{text}, cost {cost / 1e6:.4f}"


def main() -> None:
    """Judges the rows and prints the scores; exit code 2 if something is wrong with the input."""
    try:
        args = tyro.cli(JudgeArgs, prog="python -m trainables.metrics.judge")
        rows = read_rows(args.rows, args.mode == "pairwise")
        verdicts, usage = judge(rows, args, args.cache)
        if args.out is not None:
            write_verdicts(args.out, verdicts)
    except SweepAborted as refused:
        print(refused, file=sys.stderr)
        sys.exit(2)
    for name, value in scores_of(verdicts, args.mode).items():
        print(f"{name:24} {value:.4g}")
    print(usage.shown(args.price_prompt, args.price_completion))


def judge(
    rows: Sequence[JudgedRow], args: JudgeOptions, cache_path: Path
) -> tuple[list[Verdict], Usage]:
    """Each row's verdict, in order.

    Args:
        cache_path: SQLite file of the replies; made if it is not there.

    Raises:
        SweepAborted: the endpoint refuses or cannot be reached; what it said so far is kept.
    """
    judged = compared if args.mode == "pairwise" else graded
    asked = [list(_requests(row, args)) for row in rows]
    with ReplyCache(cache_path) as cache:
        replies, usage = _replies([body for bodies in asked for body in bodies], args, cache)
    verdicts = [
        judged(row, [replies[key_of(body)].text for body in bodies])
        for row, bodies in zip(rows, asked, strict=True)
    ]
    return verdicts, usage


def _requests(row: JudgedRow, args: JudgeOptions) -> Iterator[dict[str, Any]]:
    case = Case(task=args.task, source=row.source, reference=row.reference, criteria=args.criteria)
    settings: dict[str, Any] = {"model": args.model, args.max_tokens_field: args.max_tokens}
    if args.temperature is not None:
        settings["temperature"] = args.temperature
    answers = [row.answer_a] if row.answer_b is None else [row.answer_a, row.answer_b]
    if args.mode == "graded":
        for answer in answers:
            yield {**settings, "messages": graded_messages(case, answer)}
    else:
        for first, second in (answers, reversed(answers)):
            yield {**settings, "messages": pairwise_messages(case, first, second)}


def _replies(
    bodies: Sequence[dict[str, Any]], args: JudgeOptions, cache: ReplyCache
) -> tuple[dict[str, Reply], Usage]:
    """Replies by key; equal requests are sent once."""
    known: dict[str, Reply] = {}
    missing: dict[str, dict[str, Any]] = {}
    for body in bodies:
        key, kept = key_of(body), cache.get(body)
        if kept is None:
            missing[key] = body
        else:
            known[key] = kept
    num_cached = len(known)
    for body, reply in _asked(list(missing.values()), args):
        cache.put(body, reply)
        known[key_of(body)] = reply
    new = [known[key] for key in missing]
    return known, Usage(
        num_requests=len(new),
        num_cached=num_cached,
        prompt_tokens=sum(reply.prompt_tokens or 0 for reply in new),
        completion_tokens=sum(reply.completion_tokens or 0 for reply in new),
    )


def _asked(
    bodies: Sequence[dict[str, Any]], args: JudgeOptions
) -> Iterator[tuple[dict[str, Any], Reply]]:
    """Requests with their replies, as they come; the first refusal ends all others."""
    client = ChatClient(
        args.endpoint,
        api_key=os.environ.get(args.api_key_env),
        timeout_s=args.timeout_s,
        max_attempts=args.max_attempts,
    )
    pool = ThreadPoolExecutor(max_workers=args.concurrency)
    try:
        complete: Callable[[dict[str, Any]], Reply] = client.complete
        futures = {pool.submit(complete, body): body for body in bodies}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        client.stop()
        pool.shutdown(cancel_futures=True)
        client.close()


def write_verdicts(path: Path, verdicts: Sequence[Verdict]) -> None:
    """A JSON object a row.

    Raises:
        SweepAborted: the file cannot be written.
    """
    try:
        path.write_text(
            "".join(json.dumps(vars(verdict)) + "\n" for verdict in verdicts), encoding="utf-8"
        )
    except OSError as error:
        raise SweepAborted(
            f"the verdicts cannot be written to {path}: {error}",
            "make its folder writable; the replies are in the cache",
        ) from error


if __name__ == "__main__":
    main()
