"""Writers of summaries: a real HTTP server, and the bundled model."""

import logging

import pytest

from tests.trainables.data.tasks.wikipedia_pt.chat_server import serving
from trainables.data.tasks.wikipedia_pt.summaries import num_words, summarise
from trainables.data.tasks.wikipedia_pt.writers import EndpointWriter, ModelWriter
from trainables.errors import SweepAborted
from trainables.tiny import MODEL_DIR

KEY = "a-key-that-nobody-sees"


def writer(url: str, api_key: str | None = KEY) -> EndpointWriter:
    return EndpointWriter(endpoint=url, model="large", api_key=api_key, backoff_s=0.01)


def test_endpoint_is_asked_for_each_prompt_with_model_and_key() -> None:
    with serving(lambda prompt, _: f"<think>hm</think>\n\n{prompt}!") as asked:
        assert writer(asked.url).write(["a", "b", "c"], 99) == ["a!", "b!", "c!"]
    assert sorted(asked.prompts) == ["a", "b", "c"]
    assert set(asked.keys) == {f"Bearer {KEY}"}
    assert {(b["model"], b["max_tokens"], b["temperature"]) for b in asked.bodies} == {
        ("large", 99, 0)
    }


def test_without_a_key_none_is_sent() -> None:
    with serving(lambda prompt, _: prompt) as asked:
        writer(asked.url, None).write(["a"], 9)
    assert asked.keys == [None]


def test_busy_server_is_asked_again_and_others_are_not() -> None:
    def answer(prompt: str, number: int) -> str | int:
        return {"busy": 503 if number < 3 else "yes", "bad": 400}.get(prompt, 500)

    with serving(answer) as asked:
        assert writer(asked.url).write(["busy", "bad", "broken"], 9) == ["yes", None, None]
    counts = {prompt: asked.prompts.count(prompt) for prompt in asked.prompts}
    assert counts == {"busy": 3, "bad": 1, "broken": 4}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refused_login_or_model_stops_at_once(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(lambda *_: status) as asked, pytest.raises(SweepAborted) as told:
        writer(asked.url).write(["a"], 9)
    assert f"HTTP {status}" in told.value.error
    assert len(asked.prompts) == 1
    assert KEY not in str(told.value) + caplog.text + repr(writer(asked.url))


def test_server_that_is_away_gives_no_answer_and_no_crash() -> None:
    with serving(lambda *_: "") as asked:
        pass
    assert writer(asked.url).write(["a"], 9) == [None]
    with pytest.raises(SweepAborted, match="no HTTP address"):
        writer("file:///etc/passwd")


def test_long_summaries_are_asked_for_twice_then_cut_at_a_sentence() -> None:
    short, long = "Uma frase curta.", "Uma frase curta. " + "Outra frase que passa do limite. " * 2
    second = {"stubborn": long, "obliging": short, "endless": "palavra " * 30, "away": 400}

    def answer(prompt: str, _: int) -> str | int:
        name = prompt.rsplit("\n", 1)[-1]
        if name in ("short", "failing"):
            return short if name == "short" else 400
        return second[name] if "absoluto" in prompt else long

    texts = ["short", "stubborn", "obliging", "endless", "away", "failing"]
    with serving(answer) as asked:
        made = summarise(writer(asked.url), texts, max_words=8)
    assert [s.text for s in made] == [short, short, short, None, short, None]
    assert [s.is_second for s in made] == [False, True, True, True, True, False]
    assert [s.is_cut for s in made] == [False, True, False, False, True, False]
    assert all(num_words(s.text) <= 8 for s in made if s.text)
    assert len(asked.prompts) == 10


def test_bundled_model_writes_answers() -> None:
    model = ModelWriter.load(str(MODEL_DIR), max_prompt_tokens=200)
    answers = model.write(["Summarize the following dialogue.\n\nAda: Hi!", "Oi " * 400], 12)
    assert len(answers) == 2
    assert answers[0]


def test_writer_that_is_no_model_is_named() -> None:
    with pytest.raises(SweepAborted, match=r"the writer .*nowhere cannot be loaded"):
        ModelWriter.load("/nowhere", 10)
