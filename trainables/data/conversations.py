"""Conversations as OpenAI's and ShareGPT's files hold them: turns before an answer, and the answer.

OpenAI: [{"role": "user", "content": ...}, ...]; ShareGPT: [{"from": "human", "value": ...}, ...].
"""

import ast
import io
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainables.config import TrainedTurns
from trainables.data.rows import Message, Role
from trainables.data.tables.table import read_cell
from trainables.files import parse_json

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
"""What files call the one who speaks."""


class Unusable(ValueError):
    """A row that is no conversation with an answer; its text is the reason, as it is counted."""


@dataclass(frozen=True)
class Conversation:
    """What is said before the last answer, and the answer."""

    history: tuple[Message, ...]
    """All turns before the prompt."""
    prompt: str
    """The user's message that the last answer answers."""
    answer: str
    thought: str
    """What stands between <think> and </think> before the answer."""
    num_dropped: int
    """Turns behind the last answer, which nothing answers."""


def read_conversation(value: object, trained: TrainedTurns = "all") -> Conversation:
    """The conversation of one cell: a list of turns, or its JSON text.

    Args:
        value: turns are objects with role and content, or from and value.
        trained: whether the loss counts all of the assistant's turns or the last.

    Raises:
        Unusable: it is none, or has turns that are not trained on.
    """
    all_turns = given = _read_turns(value)
    while given and _get_role(given[-1]) == "user":
        given = given[:-1]  # nothing answers it
    turns = [_read_turn(t) for t in given if _get_role(t) != "system" or _get_content(t)]
    answers = [index for index, (message, _) in enumerate(turns) if message.role == "assistant"]
    if not answers or answers[-1] == 0 or turns[answers[-1] - 1][0].role != "user":
        raise Unusable("no answer to a user")
    if any(message.role == "system" for message, _ in turns[1:]):
        raise Unusable("system message inside")
    last = answers[-1]
    history = [message for message, _ in turns[: last - 1]]
    if trained == "all":
        history = [replace(m, is_trained=m.role == "assistant") for m in history]
    answer, thought = turns[last]
    return Conversation(
        history=tuple(history),
        prompt=turns[last - 1][0].content,
        answer=answer.content,
        thought=thought,
        num_dropped=len(all_turns) - len(given) + len(turns) - last - 1,
    )


def read_question(value: object, trained: TrainedTurns = "all") -> Conversation:
    """The conversation of one cell that may end with the user's message; the answer is "" then.

    Raises:
        Unusable: as read_conversation.
    """
    turns = _read_turns(value)
    if not turns or _get_role(turns[-1]) != "user":
        return read_conversation(turns, trained)
    answered = [*turns, {"role": "assistant", "content": "to come"}]
    return replace(read_conversation(answered, trained), answer="")


def add_system(history: tuple[Message, ...], system_prompt: str | None) -> tuple[Message, ...]:
    """The turns behind the system prompt, unless they begin with one of their own."""
    if not system_prompt or (history and history[0].role == "system"):
        return history
    return (Message(role="system", content=system_prompt), *history)


def is_conversation(value: object) -> bool:
    """Whether read_conversation would take it, or leave it out for what its turns are."""
    try:
        read_conversation(value)
    except Unusable as reason:
        return str(reason) not in ("not a conversation", "no answer to a user", "unknown role")
    return True


def split_thought(text: str) -> tuple[str, str]:
    """An answer, and the thought that stands before it between <think> and </think>."""
    thought, end, answer = text.partition("</think>")
    if not end:
        return text.strip(), ""
    return answer.strip(), thought.strip().removeprefix("<think>").strip()


def _read_turns(value: object) -> Sequence[Any]:
    if isinstance(value, str):
        text = value
        try:
            value = parse_json(text)
        except ValueError:
            value = _read_literal(text)
    value = _to_list(value)
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise Unusable("not a conversation")
    return value


def _read_literal(text: str) -> Any:
    """What pandas writes of a list into a CSV file: Python's own spelling, or NumPy's, in which no
    commas stand between the turns."""
    if not text.lstrip().startswith("["):
        raise Unusable("not a conversation")
    try:
        tokens = [t[:2] for t in tokenize.generate_tokens(io.StringIO(text).readline)]
        kept = [t for t in tokens if t[0] not in (tokenize.NL, tokenize.NEWLINE)]
        pairs = zip(kept, [*kept[1:], kept[-1]], strict=True)
        spelled = [t if (t[1], after[1]) != ("}", "{") else (t[0], "},") for t, after in pairs]
        return ast.literal_eval(tokenize.untokenize(spelled).strip())
    except (ValueError, SyntaxError, tokenize.TokenError, MemoryError, RecursionError):
        raise Unusable("not a conversation") from None


def _to_list(value: Any) -> Any:
    """Lists of a table may be NumPy's; all else as it is."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def _read_turn(turn: dict[str, Any]) -> tuple[Message, str]:
    """The message, and the thought that stood in it."""
    is_tools = _get_speaker(turn) in ("tool", "function")
    if turn.get("tool_calls") or turn.get("function_call") or is_tools:
        raise Unusable("tool calls")
    role = _get_role(turn)
    if role is None:
        raise Unusable("unknown role")
    content = _read_text(_get_content(turn))
    thought = _read_text(turn.get("reasoning_content") or "")
    if role == "assistant":
        content, inside = split_thought(content)
        thought = thought or inside
    if not content:
        raise Unusable("blank turn")
    return Message(role=role, content=content), thought


def _get_speaker(turn: dict[str, Any]) -> str:
    return str(turn.get("role") or turn.get("from"))


def _get_role(turn: dict[str, Any]) -> Role | None:
    return ROLES.get(_get_speaker(turn).lower())


def _get_content(turn: dict[str, Any]) -> Any:
    content = turn.get("content")
    return turn.get("value") if content is None else content


def _read_text(content: Any) -> str:
    """A turn's text; of OpenAI's list of parts, which may also be pictures, the texts."""
    content = _to_list(content)
    if isinstance(content, list):
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            raise Unusable("not text")
        content = "\n".join(str(part.get("text") or "") for part in content)
    if content is None:
        raise Unusable("blank turn")
    text = read_cell(content) if isinstance(content, str) else None
    if text is None:
        raise Unusable("not text")
    return text
