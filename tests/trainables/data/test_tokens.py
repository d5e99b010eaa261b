"""Rows as tokens."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from trainables.data.rows import Row
from trainables.data.tokens import (
    IGNORED,
    encode_prompts,
    encode_rows,
    encode_targets,
    encode_training_rows,
    end_of_turn_id,
    prompt_limit,
    until_stop,
)
from trainables.errors import SweepAborted

ROW = Row(id="1", prompt="Summarize.\n\nAnn: Hi\nBob: Bye", target="Ann greets Bob.")


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
    assert labelled[-1] == end_of_turn_id(tokenizer) != tokenizer.eos_token_id
    assert example.labels[: len(example.prompt_ids)] == [IGNORED] * len(example.prompt_ids)
    assert len(example.labels) == len(example.input_ids)


def test_long_prompt_loses_the_end_of_the_message_alike_in_training_and_evaluation(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    long = Row(id="2", prompt="Summarize.\n\n" + "Ann: Hi Bob\n" * 100, target="Ann greets Bob.")
    limit = prompt_limit(96, 32)
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
    assert prompt_limit(length, answer) == limit


def test_prompts_are_those_of_the_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    prompts = ["Ann: Hi", "a user's message", "ığüşöç É 🙂\n\n  x"]
    for prompt, ids in zip(prompts, encode_prompts(tokenizer, prompts, 192), strict=True):
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
    assert end_of_turn_id(tokenizer) == 1


def test_answer_ends_before_its_first_stop() -> None:
    assert until_stop([4, 5, 2, 6, 2], [2, 3]) == [4, 5]
    assert until_stop([4, 5], [2, 3]) == [4, 5]
