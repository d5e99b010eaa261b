"""Conversations of files are the turns that they hold, or are left out with the reason."""

import json
from typing import Any

import numpy as np
import pytest

from trainables.data.conversations import Unusable, read_conversation
from trainables.data.rows import Message

OPENAI = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "How many legs has a spider?"},
    {"role": "assistant", "content": "<think>\nArachnids.\n</think>\n\nEight."},
]
NAMES = {"system": "system", "user": "human", "assistant": "gpt"}
SHAREGPT = [{"from": NAMES[turn["role"]], "value": turn["content"]} for turn in OPENAI]
HISTORY = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="Hi"),
    Message(role="assistant", content="Hello!", is_trained=True),
)


@pytest.mark.parametrize("value", [OPENAI, SHAREGPT, json.dumps(OPENAI), np.array(SHAREGPT)])
def test_both_shapes_are_the_same_conversation(value: object) -> None:
    conversation = read_conversation(value)
    assert conversation.history == HISTORY
    assert conversation.prompt == "How many legs has a spider?"
    assert (conversation.answer, conversation.thought) == ("Eight.", "Arachnids.")


def test_last_answer_alone_is_trained_on_where_that_is_asked() -> None:
    assert not any(message.is_trained for message in read_conversation(OPENAI, "last").history)


def test_parts_of_text_are_one_text() -> None:
    parts = [{"type": "text", "text": "How many"}, {"type": "text", "text": "legs?"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "Eight."}]
    assert read_conversation(turns).prompt == "How many\nlegs?"


def test_question_that_nothing_answers_is_dropped_and_counted() -> None:
    asked = read_conversation([*OPENAI, {"role": "user", "content": "And a fly?"}])
    assert (asked.answer, asked.num_dropped) == ("Eight.", 1)
    assert read_conversation(OPENAI).num_dropped == 0


def test_thought_of_its_own_key_is_kept_apart() -> None:
    answer = {"role": "assistant", "content": "Eight.", "reasoning_content": "Arachnids."}
    assert read_conversation([*OPENAI[:-1], answer]) == read_conversation(OPENAI)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("Hi", "not a conversation"),
        ({"role": "user"}, "not a conversation"),
        (["Hi", "Hello!"], "not a conversation"),
        (None, "not a conversation"),
        ([], "no answer to a user"),
        (OPENAI[:2], "no answer to a user"),
        (OPENAI[2:3], "no answer to a user"),
        ([*OPENAI, OPENAI[-1]], "no answer to a user"),
        ([*OPENAI[1:3], *OPENAI[:1], *OPENAI[3:]], "system message inside"),
        ([*OPENAI[:-1], {"role": "assistant", "content": " "}], "blank turn"),
        ([*OPENAI[:-1], {"role": "assistant", "content": None}], "blank turn"),
        ([{"role": "narrator", "content": "It rains."}], "unknown role"),
        ([*OPENAI, {"role": "tool", "content": "8"}], "tool calls"),
        ([{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}], "tool calls"),
        ([{"role": "user", "content": [{"type": "image_url"}]}, OPENAI[2]], "not text"),
        ([{"role": "user", "content": 8}, OPENAI[2]], "not text"),
    ],
)
def test_what_is_not_trained_on_is_left_out_with_its_reason(value: Any, reason: str) -> None:
    with pytest.raises(Unusable, match=f"^{reason}$"):
        read_conversation(value)


def test_blank_system_message_and_blank_last_question_are_passed_over() -> None:
    turns = [{"from": "system", "value": ""}, *SHAREGPT[1:], {"from": "human", "value": " "}]
    read = read_conversation(turns)
    assert read.history == HISTORY[1:]
    assert (read.answer, read.num_dropped) == ("Eight.", 1)


def test_keys_of_both_shapes_may_stand_side_by_side() -> None:
    merged = [{"role": None, "content": None, **turn} for turn in SHAREGPT]
    assert read_conversation(merged) == read_conversation(SHAREGPT)


def test_half_a_character_is_no_text() -> None:
    with pytest.raises(Unusable, match="not text"):
        read_conversation([{"role": "user", "content": "\ud83d"}, OPENAI[2]])
