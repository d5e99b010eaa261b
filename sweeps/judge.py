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
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from sweeps.checks.endpoint import check_endpoint, read_api_key
from sweeps.cli import JsonFlag, Result, parse, run_command
from sweeps.finals import predictions
from sweeps.finals.predictions import Prediction
from sweeps.publish.best_folder import find_best_folder
from sweeps.records.paths import find_run
from sweeps.records.redact import join_lines
from sweeps.records.run import read_record
from trainables.config import require
from trainables.errors import SweepAborted
from trainables.files import DamagedLine, JsonLines, read_json_lines
from trainables.metrics.judge_prompts import CRITERIA, make_pairwise_messages, read_choice

PROG = "python -m sweeps.judge"
REPLIES_FILE = "_replies.jsonl"
"""No judge's own file has this name, for theirs do not begin with "_"."""
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
CHOICES: dict[tuple[str | None, ...], str] = {
    ("1", "2"): "winner",
    ("2", "1"): "base",
    ("TIE", "TIE"): "tie",
}
"""What the replies to (winner, base) and to (base, winner) say together; else they disagree."""
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
    json: JsonFlag = False

    def __post_init__(self) -> None:
        least = {"num_rows": 1, "concurrency": 1, "max_retries": 0, "max_tokens": 1, "timeout_s": 1}
        least |= {"temperature": 0, "price_prompt": 0, "price_completion": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            require(value is None or value >= bound, name, value, f"at least {bound}")
        is_whole = (self.price_prompt is None) == (self.price_completion is None)
        lacking = "price_prompt" if self.price_prompt is None else "price_completion"
        require(is_whole, lacking, None, "given with the other price")
        check_endpoint(self.endpoint, self.api_key_env)


def main(argv: Sequence[str] | None = None) -> Result:
    """Judges, prints the scores and the cost, and keeps both in RUN/judge."""
    args = parse(JudgeArgs, argv, PROG)
    paths = find_run(args.run)
    rows = predictions.read(find_best_folder(paths))[: args.num_rows]
    if read_record(paths).get("labels"):
        raise SweepAborted(
            f"the answers of {args.run} are labels, which are right or wrong without a judge",
            f"see their accuracy in {args.run / 'best' / 'README.md'}",
        )
    pairs = [_make_requests(row, args) for row in rows]
    folder = args.run / "judge"
    replies, usage = _ask_missing([request for pair in pairs for request in pair], args, folder)
    choices = [tuple(read_choice(replies[_digest_request(r)]) for r in pair) for pair in pairs]
    verdicts = [None if None in c else CHOICES.get(c, "tie_by_disagreement") for c in choices]
    scores = summarise(verdicts)
    for name, value in scores.items():
        print(f"{TITLES[name]:44} {value:.4g}")
    print(_describe_usage(usage, args))
    left_out = ("run", "endpoint", "api_key_env", "json")
    asked = {k: v for k, v in asdict(args).items() if k not in left_out}
    record = {"scores": scores, "asked": asked, "usage": usage}
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", args.model).strip("-.") or "judge"
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [
        json.dumps({"id": row.id, "better": verdict}) + "\n"
        for row, verdict in zip(rows, verdicts, strict=True)
    ]
    (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"scores: {path}")
    return Result({**record, "file": path})


def summarise(verdicts: Sequence[str | None]) -> dict[str, float]:
    """Counts, and the win rate (0 to 100) over the rows that could be read, if there are any.

    A tie is half a win; the interval is a 95% percentile bootstrap over rows.

    Args:
        verdicts: "winner", "base", "tie" or "tie_by_disagreement"; None of an unreadable reply.
    """
    counts = Counter(verdicts)
    scores: dict[str, float] = {
        "rows": len(verdicts),
        "winner": counts["winner"],
        "base": counts["base"],
        "tie": counts["tie"] + counts["tie_by_disagreement"],
        "tie_by_disagreement": counts["tie_by_disagreement"],
        "unreadable": counts[None],
    }
    values = [{"winner": 100.0, "base": 0.0}.get(name, 50.0) for name in verdicts if name]
    if values:
        resamples = np.random.default_rng(0).choice(values, (NUM_RESAMPLES, len(values)))
        low, high = np.quantile(resamples.mean(axis=1), (0.025, 0.975))
        scores["win_rate"] = float(np.mean(values))
        scores |= {"win_rate_low": float(low), "win_rate_high": float(high)}
    return scores


def _make_requests(row: Prediction, args: JudgeArgs) -> list[Request]:
    """Chat completions that show the answers in either order."""
    settings: Request = {"model": args.model, args.max_tokens_field: args.max_tokens}
    if args.temperature is not None:
        settings["temperature"] = args.temperature
    texts = (row.prompt, row.target, row.prediction, row.base_prediction)
    source, target, winner, base = map(_replace_surrogates, texts)
    reference = target if args.with_reference else None
    ask = partial(make_pairwise_messages, args.task, args.criteria, source, reference)
    return [{**settings, "messages": ask(pair)} for pair in ((winner, base), (base, winner))]


def _replace_surrogates(text: str) -> str:
    """Replaces halves of characters, which JSON can escape and UTF-8 cannot write."""
    return text.encode(errors="replace").decode()


def _digest_request(request: Request) -> str:
    """A digest of all that decides the reply: model, prompt, texts, sampling."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _ask_missing(
    requests: Sequence[Request], args: JudgeArgs, folder: Path
) -> tuple[dict[str, str], Counter[str]]:
    """The replies by key, and what they took; what the folder has is not asked again."""
    by_key = {_digest_request(request): request for request in requests}
    path = folder / REPLIES_FILE
    try:
        lines = JsonLines(path)
        replies = {line["key"]: str(line["text"]) for line in read_json_lines(path)}
    except (OSError, DamagedLine, TypeError, KeyError) as error:
        raise SweepAborted(
            f"the replies {path} cannot be used: {error}",
            "make its folder writable; a damaged file can be removed, and is then paid for again",
        ) from error
    missing = [request for key, request in by_key.items() if key not in replies]
    usage = Counter(requests=0, prompt_tokens=0, completion_tokens=0)
    usage["cached"] = len(by_key) - len(missing)

    def keep(request: Request, text: str, tokens: dict[str, int]) -> None:
        replies[_digest_request(request)] = text
        usage.update(requests=1, **tokens)
        lines.append({"key": _digest_request(request), "model": args.model, "text": text, **tokens})

    with closing(lines):
        if missing:
            asyncio.run(_ask_judge(missing, args, keep))
    return replies, usage


async def _ask_judge(
    requests: Sequence[Request],
    args: JudgeArgs,
    keep: Callable[[Request, str, dict[str, int]], None],
) -> None:
    """Keeps each reply as it comes; the first refusal cancels all other requests."""
    try:
        import openai  # an extra
    except ModuleNotFoundError:
        raise SweepAborted(
            "a judge is asked through openai, which is not installed", "pip install '.[judge]'"
        ) from None
    key = read_api_key(args.api_key_env)
    # Without a key the client would send OPENAI_API_KEY, which is not the endpoint's to see.
    headers = {} if key else {"Authorization": openai.Omit()}
    under_way = asyncio.Semaphore(args.concurrency)

    async def ask(client: openai.AsyncOpenAI, request: Request) -> None:
        async with under_way:
            try:
                completion = await client.chat.completions.create(**request, extra_headers=headers)
            except openai.OpenAIError as error:
                raise _explain_refusal(error, args, key) from None
            except (ValueError, RecursionError) as error:  # json's: the client passes it on
                raise _make_protocol_error(args, str(error)) from None
        try:  # the client does not check an answer of another protocol
            text, usage = completion.choices[0].message.content, completion.usage
        except (AttributeError, IndexError, TypeError):
            raise _make_protocol_error(args, _hide_key(str(completion), key)) from None
        counts = {k: getattr(usage, k, 0) for k in ("prompt_tokens", "completion_tokens")}
        tokens = {k: count if isinstance(count, int) else 0 for k, count in counts.items()}
        keep(request, _replace_surrogates(text) if isinstance(text, str) else "", tokens)

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


def _make_protocol_error(args: JudgeArgs, answer: str) -> SweepAborted:
    return SweepAborted(
        f"{args.endpoint} answers no chat completion: {answer}",
        "give the URL that /chat/completions follows; it often ends in /v1",
    )


def _explain_refusal(error: Any, args: JudgeArgs, key: str) -> SweepAborted:
    status = getattr(error, "status_code", None)
    message = error.__cause__ or error if status is None else error.response.text
    reason = f"{status or type(error).__name__}: {_hide_key(str(message), key)}"
    if status is None or status in (408, 409, 429) or status >= 500:
        return SweepAborted(
            f"{args.endpoint} gave no answer in {args.max_retries + 1} attempts: {reason}",
            "run the same command again later, with a lower --concurrency; replies are kept",
        )
    valid_key = f"put a valid key into the environment variable {args.api_key_env}"
    name = "check --model, and --endpoint, which often ends in /v1"
    field = "change what the endpoint names; see --max-tokens-field and --temperature"
    fix = {401: valid_key, 403: valid_key, 404: name}.get(status, field)
    return SweepAborted(f"{args.endpoint} answered {reason}", fix)


def _hide_key(text: str, key: str) -> str:
    """What an endpoint said, without the key."""
    return join_lines(text.replace(key, "***") if key else text)[:MAX_SHOWN_CHARACTERS]


def _describe_usage(usage: Counter[str], args: JudgeArgs) -> str:
    """One line, with money if both prices are known."""
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    text = f"{usage['requests']} requests, {usage['cached']} replies from the cache, "
    text += f"{prompt} prompt and {completion} completion tokens"
    if args.price_prompt is None or args.price_completion is None:
        return text
    cost = prompt * args.price_prompt + completion * args.price_completion
    return f"{text}, cost {cost / 1e6:.4f}"


if __name__ == "__main__":
    run_command(main)
