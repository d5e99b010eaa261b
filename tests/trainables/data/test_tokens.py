"""Rows as tokens."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tests.examples import max_examples
from tests.trainables.conftest import TEMPLATE
from trainables.data.rows import Message, Row
from trainables.data.tokens import (
    IGNORED,
    compute_prompt_limit,
    cut_at_stop,
    encode_rows,
    encode_targets,
    encode_training_rows,
)
from trainables.errors import SweepAborted
from trainables.models.base_model import load_tokenizer
from trainables.models.chat_template import find_end_of_turn_id
from trainables.tiny import MODEL_DIR

ROW = Row(id="1", prompt="Summarize.\n\nAnn: Hi\nBob: Bye", target="Ann greets Bob.")


@pytest.fixture(scope="module")
def bundled() -> PreTrainedTokenizerFast:
    """The bundled model's, with Qwen3's own chat template."""
    return load_tokenizer(str(MODEL_DIR))


def test_training_text_is_the_generation_prompt_then_the_target_then_the_end_of_turn(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    (example,) = encode_training_rows(tokenizer, [ROW], 192, 16)
    message = {"role": "user", "content": ROW.prompt}
    prompt = tokenizer.apply_chat_template(
        [message], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert tokenizer.decode(example.input_ids) == f"{prompt}{ROW.target}<|im_end|>"
    answer = {"role": "assistant", "content": ROW.target}
    whole = tokenizer.apply_chat_template([message, answer], tokenize=False)
    assert tokenizer.decode(example.input_ids) + "\n" == whole
    assert tokenizer(whole)["input_ids"][: len(example.input_ids)] == example.input_ids


def test_labels_are_the_target_and_its_end_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    (example,) = encode_training_rows(tokenizer, [ROW], 192, 16)
    labelled = [label for label in example.labels if label != IGNORED]
    assert tokenizer.decode(labelled) == "Ann greets Bob.<|im_end|>"
    assert labelled[-1] == find_end_of_turn_id(tokenizer) != tokenizer.eos_token_id
    assert example.labels[: len(example.prompt_ids)] == [IGNORED] * len(example.prompt_ids)
    assert len(example.labels) == len(example.input_ids)


def test_long_prompt_loses_the_end_of_the_message_alike_in_training_and_evaluation(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    long = Row(id="2", prompt="Summarize.\n\n" + "Ann: Hi Bob\n" * 100, target="Ann greets Bob.")
    limit = compute_prompt_limit(96, 32)
    (trained,) = encode_training_rows(tokenizer, [long], 96, 32)
    (evaluated,) = encode_rows(tokenizer, [long], limit)
    assert trained.prompt_ids == evaluated.prompt_ids
    assert len(trained.prompt_ids) == limit == 64
    text = tokenizer.decode(trained.prompt_ids)
    assert text.startswith("<|im_start|>user\nSummarize.\n\nAnn: Hi")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert trained.target_ids == evaluated.target_ids


def test_targets_are_never_cut(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = "Ann: Hi Bob\n" * 100
    fits = Row(id="3", prompt=prompt, target="Bob " * 30)
    does_not = Row(id="4", prompt=prompt, target="Bob " * 400)
    (example,) = encode_training_rows(tokenizer, [fits, does_not], 128, 16)
    assert tokenizer.decode(example.target_ids) == fits.target + "<|im_end|>"
    assert len(example.input_ids) <= 128
    assert "1 rows left out" in caplog.text


def test_a_length_that_no_row_fits_in_is_refused_with_the_shortest(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = [Row(id=str(n), prompt="Ann: Hi Bob", target="Bob " * n) for n in (60, 40)]
    (shortest,) = encode_targets(tokenizer, [rows[1].target])
    with pytest.raises(SweepAborted, match="no training row fits in 24 tokens") as refused:
        encode_training_rows(tokenizer, rows, 24, 16)
    assert "--max-length-tokens" in refused.value.fix
    assert str(len(shortest)) in refused.value.fix


@pytest.mark.parametrize(("length", "answer", "limit"), [(1024, 96, 928), (128, 96, 64)])
def test_room_for_an_answer_is_at_most_half(length: int, answer: int, limit: int) -> None:
    assert compute_prompt_limit(length, answer) == limit


def test_prompts_are_those_of_the_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    prompts = ["Ann: Hi", "Message 0000 of a conversation.", "ığüşöç É 🙂\n\n  x"]
    rows = [Row(id="1", prompt=prompt, target="") for prompt in prompts]
    for prompt, example in zip(prompts, encode_rows(tokenizer, rows, 192), strict=True):
        ids = example.prompt_ids
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        assert ids == tokenizer(rendered)["input_ids"]


@pytest.mark.parametrize("unk_token", ["<unk>", None])
def test_without_turns_a_text_ends_as_its_tokenizer_says(unk_token: str | None) -> None:
    words = WordLevel({"<unk>": 0, "</s>": 1, "one": 2}, unk_token="<unk>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), eos_token="</s>", unk_token=unk_token
    )
    assert find_end_of_turn_id(tokenizer) == 1


def test_answer_ends_before_its_first_stop() -> None:
    assert cut_at_stop([4, 5, 2, 6, 2], [2, 3]) == [4, 5]
    assert cut_at_stop([4, 5], [2, 3]) == [4, 5]


@pytest.mark.parametrize(
    "wrong",
    [
        TEMPLATE.replace("message.content", "message.content | upper"),
        TEMPLATE.replace("message.content", "message.content + message.content"),
        TEMPLATE.replace("message.content", "''"),
        "{{- raise_exception('a system message is needed') }}",
        "{% for message in messages %}",
    ],
)
def test_template_that_does_not_write_messages_as_they_stand_is_refused(
    tokenizer: PreTrainedTokenizerFast, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", wrong)
    with pytest.raises(SweepAborted, match="chat template"):
        encode_rows(tokenizer, [ROW], 192)


def test_long_text_is_cut_inside_its_column_never_in_the_words_around_it(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text, question = "Ann: Hi Bob\n" * 100, "\n\nIs the mood good or bad?"
    row = Row(id="5", prompt=f"Text: {text}{question}", target="good", cut_from=6)
    row = replace(row, cut_to=6 + len(text))
    (example,) = encode_rows(tokenizer, [row], 96)
    assert len(example.prompt_ids) == 96
    assert example.is_cut
    cut = tokenizer.decode(example.prompt_ids)
    assert "user\nText: Ann: Hi Bob\nAnn: Hi Bob\n" in cut
    assert f"{question}<|im_end|>\n<|im_start|>assistant\n" in cut
    (whole,) = encode_rows(tokenizer, [row], 10_000)
    assert not whole.is_cut


def test_long_conversation_loses_its_oldest_turns_and_keeps_its_system_message(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    system = Message(role="system", content="Be brief.")
    turns = [
        Message(role=role, content=f"{role} says {n} " + "Ann " * 10)
        for n in range(6)
        for role in ("user", "assistant")
    ]
    row = Row(id="6", prompt="Who?", target="Bob.", history=(system, *turns))
    (whole,) = encode_rows(tokenizer, [row], 10_000)
    (cut,) = encode_rows(tokenizer, [row], len(whole.prompt_ids) - 1)
    (same,) = encode_rows(tokenizer, [replace(row, history=(system, *turns[2:]))], 10_000)
    assert (cut.prompt_ids, cut.is_cut) == (same.prompt_ids, True)
    (least,) = encode_rows(tokenizer, [row], 60)
    (single,) = encode_rows(tokenizer, [replace(row, history=(system,))], 10_000)
    assert least.prompt_ids == single.prompt_ids


def test_very_long_conversation_is_cut_to_what_fits_at_once(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    turns = [
        Message(role=role, content=f"{n}") for n in range(700) for role in ("user", "assistant")
    ]
    row = Row(id="8", prompt="Who?", target="Bob.", history=tuple(turns))
    (cut,) = encode_rows(tokenizer, [row], 100)
    assert cut.is_cut and len(cut.prompt_ids) <= 100
    text = tokenizer.decode(cut.prompt_ids)
    kept = [n for n in range(700) if f"user\n{n}<|im_end|>" in text]
    assert kept == list(range(kept[0], 700)) and len(kept) >= 2
    (longer,) = encode_rows(
        tokenizer, [replace(row, history=tuple(turns[2 * kept[0] - 2 :]))], 9999
    )
    assert len(longer.prompt_ids) > 100


def test_thought_is_trained_on_only_where_it_is_asked_for(bundled: PreTrainedTokenizerFast) -> None:
    row = replace(ROW, thought="Two people meet.")
    (plain,) = encode_training_rows(bundled, [row], 192, 16)
    (same,) = encode_training_rows(bundled, [ROW], 192, 16)
    assert plain == same
    (thinks,) = encode_training_rows(bundled, [row], 192, 16, thinking=True)
    answer = f"<think>\n{row.thought}\n</think>\n\n{row.target}"
    assert bundled.decode(thinks.target_ids) == f"{answer}<|im_end|>"
    turns = [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": answer}]
    whole = bundled.apply_chat_template(turns, tokenize=False)
    assert bundled.decode(thinks.input_ids) + "\n" == whole


texts = st.text(max_size=20).map(lambda text: f"x{text}x".replace("<", "")).map(str.strip)
"""Turns as they are read: without blanks around them."""


@max_examples(50)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.booleans(), texts)
def test_every_answer_of_a_conversation_is_trained_on_as_it_would_be_generated(
    bundled: PreTrainedTokenizerFast, pairs: list[tuple[str, str]], has_system: bool, system: str
) -> None:
    *turns, (prompt, target) = pairs
    history = [Message(role="system", content=system)] * has_system + [
        message
        for question, answer in turns
        for message in (
            Message(role="user", content=question),
            Message(role="assistant", content=answer, is_trained=True),
        )
    ]
    row = Row(id="7", prompt=prompt, target=target, history=tuple(history))
    (example,) = encode_training_rows(bundled, [row], 2048, 16)
    messages = [{"role": m.role, "content": m.content} for m in history]
    asked = {"role": "user", "content": prompt}
    whole = [*messages, asked, {"role": "assistant", "content": target}]
    rendered = bundled.apply_chat_template(whole, tokenize=False).removesuffix("\n")
    assert example.input_ids == bundled(rendered)["input_ids"]
    answers = [index for index, m in enumerate(history) if m.role == "assistant"]
    for index, (begin, end) in zip(answers, example.answer_spans, strict=True):
        given_turns = bundled.apply_chat_template(
            messages[:index], tokenize=False, add_generation_prompt=True
        )
        assert example.input_ids[:begin] == bundled(given_turns)["input_ids"]
        said = bundled(history[index].content + "<|im_end|>")["input_ids"]
        assert example.input_ids[begin:end] == said
    counted = [i for i, label in enumerate(example.labels) if label != IGNORED]
    spans = [*example.answer_spans, (len(example.prompt_ids), len(example.input_ids))]
    assert counted == [i for span in spans for i in range(*span)] == list(example.label_positions)
