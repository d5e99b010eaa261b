"""A judge asked over HTTP: verdicts, the cache, retries, and what is never shown."""

import json
import re
import runpy
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.metrics.judge_server import Answer, completion, judge_server
from trainables.errors import SweepAborted
from trainables.metrics import judge as judging
from trainables.metrics import judge_client
from trainables.metrics.judge import JudgeArgs, Usage, main
from trainables.metrics.judge_client import ChatClient
from trainables.metrics.judge_rows import JudgedRow, read_rows
from trainables.metrics.judge_verdicts import Verdict, scores_of

ROWS = [
    JudgedRow(id="1", source="Ann bakes.", answer_a="Ann bakes a cake.", answer_b="Ann."),
    JudgedRow(id="2", source="Bob sings.", answer_a="B", answer_b="Bob sings a song."),
    JudgedRow(id="3", source="Cem swims.", answer_a="same", answer_b="four"),
]
BODY = {"model": "m", "messages": []}


def args_of(folder: Path, url: str, **changes: Any) -> JudgeArgs:
    plain = JudgeArgs(
        rows=folder / "rows.jsonl", mode="pairwise", endpoint=url, model="judge",
        cache=folder / "cache.sqlite", max_attempts=2, timeout_s=30,
    )  # fmt: skip
    return replace(plain, **changes)


def judge(rows: Sequence[JudgedRow], args: JudgeArgs) -> tuple[list[Verdict], Usage]:
    return judging.judge(rows, args, args.cache)


def answers_in(body: dict[str, Any]) -> list[str]:
    user = body["messages"][1]["content"]
    return [
        found[1] for found in re.findall(r"\[(TEXT \w+ ANSWER[ 12]*)\]\n(.*?)\n\[/\1", user, re.S)
    ]


def prefer_longer(body: dict[str, Any]) -> Answer:
    first, second = map(len, answers_in(body))
    verdict = "TIE" if first == second else "1" if first > second else "2"
    return completion(f"I counted.\nVERDICT: {verdict}")


def test_the_better_answer_wins_in_both_orders(tmp_path: Path) -> None:
    with judge_server(prefer_longer) as server:
        verdicts, usage = judge(ROWS, args_of(tmp_path, server.url))
    assert [verdict.winner for verdict in verdicts] == ["a", "b", "tie"]
    assert len(server.requests) == usage.num_requests == 6
    assert (usage.prompt_tokens, usage.completion_tokens) == (600, 60)
    assert usage.shown(1.0, 10.0).endswith("cost 0.0012")
    assert {body["temperature"] for body in server.requests} == {0.0}


def test_liking_for_the_first_place_wins_nothing(tmp_path: Path) -> None:
    with judge_server(lambda body: completion("VERDICT: 1")) as server:
        verdicts, _ = judge(ROWS, args_of(tmp_path, server.url))
    assert all(verdict.winner == "tie" and verdict.is_split for verdict in verdicts)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["x", "yy", "zzz", "no verdict"]), min_size=2, max_size=6))
def test_swapping_the_answers_swaps_the_verdict(tmp_path_factory, answers: list[str]) -> None:  # type: ignore[no-untyped-def]
    def judge_of_its_own(body: dict[str, Any]) -> Answer:
        texts = answers_in(body)
        says = "12T"[sum(map(ord, texts[0] + texts[1][:1])) % 3].replace("T", "TIE")
        return completion("what?" if "no verdict" in texts[:1] else f"VERDICT: {says}")

    rows = [
        JudgedRow(id=str(place), source="s", answer_a=one, answer_b=other)
        for place, (one, other) in enumerate(pairwise(answers))
    ]
    swapped = [replace(row, answer_a=row.answer_b, answer_b=row.answer_a) for row in rows]
    folders = [tmp_path_factory.mktemp("judge") for _ in range(2)]
    with judge_server(judge_of_its_own) as server:
        one, other = (
            judge(which, args_of(folder, server.url))[0]
            for which, folder in zip((rows, swapped), folders, strict=True)
        )
    turned = {"a": "b", "b": "a", "tie": "tie", None: None}
    assert [turned[verdict.winner] for verdict in one] == [verdict.winner for verdict in other]
    assert [verdict.is_split for verdict in one] == [verdict.is_split for verdict in other]


def test_what_was_asked_once_is_not_asked_again(tmp_path: Path) -> None:
    with judge_server(prefer_longer) as server:
        args = args_of(tmp_path, server.url)
        first, _ = judge([*ROWS, ROWS[0]], args)
        assert len(server.requests) == 6
        again, usage = judge(ROWS, args)
        assert len(server.requests) == 6
        assert (usage.num_requests, usage.num_cached, usage.prompt_tokens) == (0, 6, 0)
        judge(ROWS, replace(args, model="other"))
        assert len(server.requests) == 12
    assert first[:3] == again


def test_graded_answers_are_read_by_the_rubric(tmp_path: Path) -> None:
    def grade(body: dict[str, Any]) -> Answer:
        return completion(f"SCORE: {min(5, len(answers_in(body)[0]))}")

    with judge_server(grade) as server:
        verdicts, _ = judge(ROWS, args_of(tmp_path, server.url, mode="graded"))
    assert [(v.grade_a, v.grade_b) for v in verdicts] == [(5, 4), (1, 5), (4, 4)]
    scores = scores_of(verdicts, "graded")
    assert scores["grade_a"] == pytest.approx(10 / 3) and scores["graded_b"] == 3


@pytest.mark.parametrize("text", ["", None, "Both are fine.", "VERDICT: 1\nVERDICT: 2"])
def test_replies_without_a_verdict_are_counted_not_guessed(
    tmp_path: Path, text: str | None
) -> None:
    with judge_server(lambda body: completion(text)) as server:
        verdicts, _ = judge(ROWS, args_of(tmp_path, server.url))
    scores = scores_of(verdicts, "pairwise")
    assert scores["unreadable"] == 3
    assert "win_rate_a" not in scores


def test_win_rate_is_of_the_rows_that_were_read() -> None:
    winners = ["a", "a", "b", "tie", None]
    verdicts = [Verdict(id="", winner=winner) for winner in winners]  # type: ignore[arg-type]
    scores = scores_of(verdicts, "pairwise")
    assert scores["win_rate_a"] == pytest.approx(62.5)
    assert scores["wins_a"] + scores["wins_b"] + scores["ties"] + scores["unreadable"] == 5


def failing(times: int, status: int, headers: dict[str, str]) -> Callable[[Any], Answer]:
    left = [completion("VERDICT: 1")] + [(status, headers, "busy")] * times
    return lambda body: left.pop() if len(left) > 1 else left[0]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(status: int) -> None:
    with judge_server(failing(2, status, {})) as server:
        client = ChatClient(server.url, max_attempts=3, first_delay_s=0.01)
        assert client.complete(BODY).text == "VERDICT: 1"
    assert len(server.requests) == 3


def test_the_wait_that_an_endpoint_names_is_kept() -> None:
    with judge_server(failing(1, 429, {"Retry-After": "0.4"})) as server:
        begin = time.monotonic()
        ChatClient(server.url, first_delay_s=0.001).complete(BODY)
    assert 0.4 <= time.monotonic() - begin < 5


def test_waits_grow() -> None:
    with judge_server(failing(4, 429, {})) as server:
        begin = time.monotonic()
        ChatClient(server.url, first_delay_s=0.05).complete(BODY)
    assert time.monotonic() - begin > 0.5 * 0.05 * (1 + 2 + 4 + 8)


def only_ann(body: dict[str, Any]) -> Answer:
    return prefer_longer(body) if "Ann" in str(body) else (400, {}, "no")


def test_replies_before_a_failure_are_kept(tmp_path: Path) -> None:
    with judge_server(prefer_longer) as server:
        args = args_of(tmp_path, server.url, concurrency=1)
        with judge_server(only_ann) as bad, pytest.raises(SweepAborted, match="400: no"):
            judge(ROWS, replace(args, endpoint=bad.url))
        _, usage = judge(ROWS, args)
    assert usage.num_cached == 2


def test_an_endpoint_that_stays_busy_ends_the_run_with_a_remedy(tmp_path: Path) -> None:
    busy = (503, {"Retry-After": "0.01"}, "busy")
    message = "in 2 attempts: 503: busy"
    with (
        judge_server(lambda _: busy) as server,
        pytest.raises(SweepAborted, match=message) as refused,
    ):
        judge(ROWS, args_of(tmp_path, server.url))
    assert "--concurrency" in refused.value.fix


def test_a_refusal_ends_the_run_although_others_are_under_way(tmp_path: Path) -> None:
    def refuse_one(body: dict[str, Any]) -> Answer:
        if "Ann" in str(body):
            return 401, {}, "no"
        time.sleep(0.5)
        return prefer_longer(body)

    begin = time.monotonic()
    with judge_server(refuse_one) as server, pytest.raises(SweepAborted, match="401"):
        judge(ROWS, args_of(tmp_path, server.url))
    assert time.monotonic() - begin < 10


def test_an_endpoint_that_nobody_serves_is_named() -> None:
    client = ChatClient("http://127.0.0.1:9/v1", max_attempts=2, first_delay_s=0.01)
    with pytest.raises(SweepAborted, match="ConnectError"):
        client.complete(BODY)


@pytest.mark.parametrize("garbage", ["<html>hi</html>", "[]", "{}", '{"choices": []}'])
def test_an_endpoint_of_another_protocol_is_named(garbage: str) -> None:
    message = "no chat completion"
    with (
        judge_server(lambda _: (200, {}, garbage)) as server,
        pytest.raises(SweepAborted, match=message),
    ):
        ChatClient(server.url).complete(BODY)
    assert len(server.requests) == 1


def test_redirects_do_not_carry_the_key_away() -> None:
    with judge_server(lambda body: completion("VERDICT: 1")) as other:
        headers = {"Location": f"{other.url}/chat/completions"}
        moved = (307, headers, "")
        with judge_server(lambda _: moved) as server, pytest.raises(SweepAborted, match="307"):
            ChatClient(server.url, api_key="secret-key").complete(BODY)
    assert not other.requests


def test_requests_are_under_way_at_once_but_no_more_than_asked(tmp_path: Path) -> None:
    three = threading.Barrier(3, timeout=10)

    def wait_for_others(body: dict[str, Any]) -> Answer:
        three.wait()
        time.sleep(0.1)
        return prefer_longer(body)

    with judge_server(wait_for_others) as server:
        judge(ROWS, args_of(tmp_path, server.url, concurrency=3))
    assert server.most_at_once == 3


def test_the_key_is_sent_and_neither_shown_nor_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "secret-key")
    caplog.set_level(0)
    no, message = (401, {}, "bad key secret-key"), r"401: bad key \*\*\*"
    with (
        judge_server(lambda _: no) as server,
        pytest.raises(SweepAborted, match=message) as refused,
    ):
        judge(ROWS, args_of(tmp_path, server.url))
    with judge_server(prefer_longer) as other:
        judge(ROWS, args_of(tmp_path, other.url))
    assert set(server.authorizations) == set(other.authorizations) == {"Bearer secret-key"}
    assert "secret-key" not in str(refused.value) + caplog.text
    assert b"secret-key" not in (tmp_path / "cache.sqlite").read_bytes()


def test_a_missing_httpx_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    loaded = runpy.run_path(judge_client.__file__)  # by itself it tells nothing: --help needs none
    with pytest.raises(SweepAborted, match="httpx, which is not installed") as refused:
        loaded["ChatClient"]("http://localhost:8000/v1")
    assert "[judge]" in refused.value.fix


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://me:secret@x/v1"])
def test_endpoints_that_are_no_plain_urls_are_refused(url: str) -> None:
    with pytest.raises(SweepAborted, match="endpoint"):
        ChatClient(url)


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    args = args_of(tmp_path, "http://127.0.0.1:9/v1")
    args.cache.write_text("no database " * 100)
    with pytest.raises(SweepAborted, match="cannot be used"):
        judge(ROWS, args)
    args.cache.unlink()
    sqlite3.connect(args.cache).close()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 of .* is no JSON"),
        ("[]", "no JSON object"),
        ('{"source": "s", "answer_b": "b"}', "no text 'answer_a'"),
        ('{"source": "s", "answer_a": "a"}', "no text 'answer_b'"),
        ('{"source": 3, "answer_a": "a", "answer_b": "b"}', "no text 'source'"),
        ('{"source": "\\ud800", "answer_a": "a", "answer_b": "b"}', "no text 'source'"),
    ],
)
def test_rows_that_cannot_be_judged_are_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"source": "s", "answer_a": "a", "answer_b": "b"}\n' + line)
    with pytest.raises(SweepAborted, match=message):
        read_rows(file, needs_both=True)


def test_command_prints_scores_and_cost_and_writes_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "verdicts.jsonl"
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in ROWS) + "\n")
    with judge_server(prefer_longer) as server:
        words = ["--rows", str(file), "--mode", "pairwise", "--endpoint", server.url]
        words += ["--model", "judge", "--cache", str(tmp_path / "c.sqlite"), "--out", str(out)]
        words += ["--price-prompt", "1", "--price-completion", "10"]
        monkeypatch.setattr(sys, "argv", ["judge", *words])
        main()
    shown = capsys.readouterr().out
    assert re.search(r"win_rate_a +50\n", shown)
    assert "6 requests, 0 replies from the cache, 600 prompt and 60 completion" in shown
    assert "cost 0.0012" in shown
    written = [json.loads(line)["winner"] for line in out.read_text().splitlines()]
    assert written == ["a", "b", "tie"]


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "cannot be read"), (["--concurrency", "0"], "--concurrency is 0")],
)
def test_command_ends_with_2_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], message: str,
) -> None:  # fmt: skip
    given_words = ["--rows", str(tmp_path / "none"), "--mode", "graded", "--model", "m"]
    monkeypatch.setattr(sys, "argv", ["judge", *given_words, "--endpoint", "http://x/v1", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown and "fix: " in shown
