"""The page of sweeps.demo answers as the rows were scored, for this machine alone."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import psutil
import pytest
import torch
from gradio_client import Client

from sweeps import demo
from sweeps.cli import run_command
from sweeps.finals import predictions
from sweeps.publish.demo.page import launch, make_page
from sweeps.publish.demo.side_by_side import (
    Answer,
    Example,
    SideBySide,
    Values,
    make_row,
    take_apart,
)
from sweeps.publish.trained_run import open_trained_run
from tests.conftest import CHROMIUM
from tests.sweeps.commands import world
from trainables.data.prepared_rows import read_rows
from trainables.data.rows import Scoring, Splits, TableColumns

pytestmark = pytest.mark.slow
HOSTILE = '<b>x</b><img src=x onerror="window.hurt=1;alert(1)"><script>window.hurt=1</script>'
LIMIT_MS = 60_000.0
"""A machine may be slow; what is waited for comes."""
KINDS = ("samsum", "turkish_tweets", "table", "solo")


def list_tested(run: Path) -> list[Example]:
    """The rows whose answers were scored, as a user would give them."""
    splits = read_rows(run / "rows")
    rows = {row.id: row for row in splits.test}
    scored = [rows[line.id] for line in predictions.read(run / "best")]
    given = [take_apart(row, splits) for row in scored]
    assert scored and None not in given
    return [Example(v, row.target) for v, row in zip(given, scored, strict=True) if v is not None]


@contextmanager
def serve(run: Path, examples: list[Example]) -> Iterator[str]:
    """The page of a run in this process."""
    torch.set_num_threads(1)
    opened = open_trained_run(run, trial=None, model=None, batch_size=2)
    page = make_page(SideBySide(opened), examples, "Tuned")
    try:
        yield launch(page, None)
    finally:
        page.close(verbose=False)


def read_said(kind: str, client: Client, index: int) -> tuple[Any, Any]:
    """What the page says to an example: base and adapter."""
    shown = client.predict(index, api_name="/show_example")
    answered = client.predict(shown[0], api_name="/ask")
    base, tuned = answered[1:3] if kind == "table" else answered
    return base, tuned


@pytest.mark.parametrize("kind", KINDS)
def test_page_answers_as_the_rows_were_scored(kind: str, runs: dict[str, Path]) -> None:
    scored = predictions.read(runs[kind] / "best")
    examples = list_tested(runs[kind])
    with serve(runs[kind], examples) as url:
        client = Client(url, verbose=False)
        for index, row in enumerate(scored):
            base, tuned = read_said(kind, client, index)
            if row.probabilities is None:
                assert (base, tuned) == (row.base_prediction, row.prediction)
                continue
            assert (base["label"], tuned["label"]) == (row.base_prediction, row.prediction)
            likely = {one["label"]: one["confidence"] for one in tuned["confidences"]}
            assert likely == pytest.approx(row.probabilities, abs=2e-6)
    assert len({row.prediction for row in scored}) > 1


def test_each_of_two_chats_goes_on_from_its_own_answers(runs: dict[str, Path]) -> None:
    asked: list[tuple[Values, Values]] = []

    class Noted(SideBySide):
        """Notes what it is asked."""

        def ask(self, for_base: Values, for_adapter: Values) -> tuple[Answer, Answer]:
            asked.append((for_base, for_adapter))
            return Answer("of base", None), Answer("of adapter", None)

    opened = open_trained_run(runs["table"], trial=None, model=None)
    page = make_page(Noted(opened), list_tested(runs["table"]), "Tuned")
    client = Client(launch(page, None), verbose=False)
    for text in ("one", "two"):
        client.predict(text, api_name="/ask")
    page.close(verbose=False)
    said = [[turn["content"] for turn in values["messages"]] for values in asked[1]]
    assert said == [["one", "of base", "two"], ["one", "of adapter", "two"]]


class Silent(SideBySide):
    """Answers nothing, without a model."""

    def ask(self, for_base: Values, for_adapter: Values) -> tuple[Answer, Answer]:
        return Answer("of base", None), Answer("of adapter", None)


def test_text_that_is_cut_is_noted(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: noted.append(text))
    for kind in ("samsum", "table"):
        opened = open_trained_run(runs[kind], trial=None, model=None)
        page = make_page(Silent(opened), [], "Tuned")
        client = Client(launch(page, None), verbose=False)
        for text in ("short", "so " * 5000):
            client.predict(text, api_name="/ask")
        page.close(verbose=False)
        limit = opened.count_cut([])[0]
        assert noted == [f"The text was cut: the prompt has {limit:,} tokens at most."]
        noted.clear()


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["samsum", "table"])
def test_example_that_is_edited_or_pasted_over_has_no_right_answer(
    kind: str, runs: dict[str, Path]
) -> None:
    from playwright.sync_api import sync_playwright

    opened = open_trained_run(runs[kind], trial=None, model=None)
    turns = [{"role": "user", "content": "the question"}]
    column = opened.splits.columns.prompt[opened.splits.source] if opened.splits.columns else ""
    example = Example({column: turns if kind == "table" else "the question"}, "the answer")
    page = make_page(Silent(opened), [example], "Tuned")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = chromium.new_page(viewport={"width": 1280, "height": 2000})
        shown.set_default_timeout(LIMIT_MS)
        shown.goto(launch(page, None))
        values = "[...document.querySelectorAll('textarea')].map(box => box.value)"
        question = shown.locator("textarea:not([disabled])").first
        for text, is_right in (("the question", True), ("another", False)):
            shown.locator("td:visible", has_text="the answer").first.dispatch_event("click")
            shown.wait_for_function(f"() => {values}.includes('the answer')")
            question.fill(text)
            shown.locator("button:visible", has_text=re.compile("Send|Ask both")).click()
            shown.wait_for_function(f"() => {values}.includes('of base')")
            shown.wait_for_function(f"() => {values}.includes('the answer') == {int(is_right)}")
            shown.locator("button:visible", has_text=re.compile("Clear|New conv")).click()
            shown.wait_for_function(f"() => {values}.every(value => value != 'of base')")
            shown.wait_for_function(f"() => {values}.every(value => value != 'the answer')")
        chromium.close()
    page.close(verbose=False)


def test_command_serves_this_machine_alone_until_it_is_interrupted(runs: dict[str, Path]) -> None:
    examples = list_tested(runs["turkish_tweets"])
    row = predictions.read(runs["turkish_tweets"] / "best")[0]
    words = [sys.executable, "-m", "sweeps.demo", str(runs["turkish_tweets"])]
    environment = world(runs["turkish_tweets"].parent)
    # What others may have set for their own pages is not for this one.
    environment |= {
        "GRADIO_SHARE": "True",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_MCP_SERVER": "1",
    }
    environment["HTTP_PROXY"] = environment["http_proxy"] = "http://127.0.0.1:9"
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None and command.stderr is not None
        line = command.stdout.readline()
        assert line.startswith("open http://127.0.0.1:"), line + command.stderr.read()
        client = Client(line.split()[1], verbose=False)
        text = examples[0].values["Tweets"]
        base, tuned = client.predict(text, api_name="/ask")
        assert (base["label"], tuned["label"]) == (row.base_prediction, row.prediction)
        sockets = psutil.Process(command.pid).net_connections("inet")
        listening = {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
        assert {s.raddr.ip for s in sockets if s.raddr} <= {"127.0.0.1"}
        command.send_signal(signal.SIGINT)
        rest, said = command.communicate(timeout=60)
    assert (command.returncode, rest) == (0, "")
    assert "Traceback" not in said and "loading the model" in said


def refusal(*words: object, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: demo.main([str(word) for word in words]))
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    error, fix = err.splitlines()
    assert not out and error.startswith("error: ") and fix.startswith("fix: ")
    return error, fix


def test_mistakes_are_told_before_the_model_is_loaded(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs["samsum"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error, fix = refusal(run, "--port", port, capsys=capsys)
        assert f"port {port} of 127.0.0.1 cannot be had" in error and "leave out --port" in fix
    assert "port is 0" in refusal(run, "--port", "0", capsys=capsys)[0]
    assert "--share" in refusal(run, "--share", capsys=capsys)[0]
    assert "there is no sweep in" in refusal(run / "rows", capsys=capsys)[0]
    monkeypatch.setitem(sys.modules, "gradio", None)  # as where it is not installed
    error, fix = refusal(run, capsys=capsys)
    assert "gradio, which is not installed" in error and fix == "fix: pip install '.[demo]'"


TWO_COLUMNS = Splits(
    train=(),
    validation=(),
    test=(),
    counts={},
    scoring=Scoring(kind="generate"),
    prompt_template="{{Title}}: {title}\n\n{text}\n\nAgain {title}: {text}",
    source="text",
    columns=TableColumns(prompt={"title": "Title", "text": "Body"}, target="Out"),
)


@pytest.mark.parametrize("text", ["a: b", "{x} \\d+ (.*)\n\nAgain", "<b>\n\n</b>"])
def test_prompt_is_taken_apart_into_what_it_was_made_of(text: str) -> None:
    values = {"Title": "One: {two}", "Body": text}
    row = make_row(values, TWO_COLUMNS)
    assert take_apart(row, TWO_COLUMNS) == values
    assert take_apart(replace(row, prompt=row.prompt + "!"), TWO_COLUMNS) is None


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["samsum", "turkish_tweets", "table"])
def test_what_data_and_models_say_is_text_and_nothing_is_asked_of_others(
    kind: str, runs: dict[str, Path]
) -> None:
    from playwright.sync_api import sync_playwright

    class Said(SideBySide):
        """Answers with what would hurt a page that does not escape."""

        def ask(self, for_base: Values, for_adapter: Values) -> tuple[Answer, Answer]:
            probabilities = {HOSTILE: 0.75, "b": 0.25} if kind == "turkish_tweets" else None
            return Answer(HOSTILE, probabilities), Answer(HOSTILE, probabilities)

    opened = open_trained_run(runs[kind], trial=None, model=None)
    columns = replace(opened.splits.columns, prompt={opened.splits.source: HOSTILE})
    opened = replace(opened, splits=replace(opened.splits, columns=columns))
    turns = [{"role": role, "content": HOSTILE} for role in ("user", "assistant", "user")]
    example = Example({HOSTILE: turns if kind == "table" else HOSTILE}, HOSTILE)
    page = make_page(Said(opened), [example] * 2, HOSTILE)
    url = launch(page, None)
    asked: list[str] = []
    said: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = chromium.new_page(viewport={"width": 1280, "height": 2000})
        shown.set_default_timeout(LIMIT_MS)
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        shown.goto(url)
        shown.locator("td:visible", has_text="onerror").first.dispatch_event("click")
        wait_for_texts(shown, 1 if kind != "table" else 4)
        shown.locator("button:visible", has_text="Send" if kind == "table" else "Ask both").click()
        if kind == "turkish_tweets":
            shown.locator("[data-testid=label-output-value]", has_text="onerror").first.wait_for()
        else:
            wait_for_texts(shown, 4)
        assert shown.locator("img[src=x]").count() == 0
        assert shown.evaluate("window.hurt") is None
        chromium.close()
    page.close(verbose=False)
    assert said == []
    assert asked and all(one.startswith((url, "data:", "blob:")) for one in asked)


def wait_for_texts(page: Any, num_boxes: int) -> None:
    """Until so many boxes hold what would hurt a page that does not escape."""
    boxes = "[...document.querySelectorAll('textarea')]"
    held = f"{boxes}.filter(box => box.value.includes('onerror')).length"
    page.wait_for_function(f"() => {held} >= {num_boxes}")
