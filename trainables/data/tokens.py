"""Rows as tokens: the same prompt in training and in evaluation, labels on the answers alone."""

import logging
import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from trainables.data.rows import Row
from trainables.errors import SweepAborted
from trainables.models.chat_template import (
    BEGIN_THOUGHT,
    END_OF_TURN,
    ChatTokenizer,
    find_end_of_turn_id,
    has_open_thought,
    render_template,
)

IGNORED = -100
"""Label of a token that no loss counts (torch.nn.functional.cross_entropy's ignore_index)."""
CHUNK_ROWS = 2000
"""Rows that are tokenised at once."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One row as tokens, which take four bytes each; as a list of Python's numbers they take 36."""

    ids: "array[int]"
    """Prompt and target."""
    num_prompt_tokens: int
    answer_spans: tuple[tuple[int, int], ...] = ()
    """Begin and end in the prompt of the earlier answers that are trained on too."""
    is_cut: bool = False
    """Whether the prompt has lost something to fit."""

    @classmethod
    def from_ids(
        cls,
        prompt_ids: Sequence[int],
        target_ids: Sequence[int],
        answer_spans: tuple[tuple[int, int], ...] = (),
        is_cut: bool = False,
    ) -> "Example":
        """The example of a prompt and its target."""
        return cls(array("i", [*prompt_ids, *target_ids]), len(prompt_ids), answer_spans, is_cut)

    @property
    def prompt_ids(self) -> list[int]:
        """Generation prompt: what the model is given when it is evaluated."""
        return self.ids[: self.num_prompt_tokens].tolist()

    @property
    def target_ids(self) -> list[int]:
        """Answer with its end of turn: what it is trained to say."""
        return self.ids[self.num_prompt_tokens :].tolist()

    @property
    def input_ids(self) -> list[int]:
        """Prompt and target."""
        return self.ids.tolist()

    @cached_property
    def tokens(self) -> np.ndarray:
        """A view of ids as int32: a pack lays thousands of rows together every second."""
        return np.asarray(self.ids, dtype=np.int32)

    @cached_property
    def label_positions(self) -> np.ndarray:
        """Places in input_ids of the tokens that the loss counts, ascending; int64."""
        spans = (*self.answer_spans, (self.num_prompt_tokens, len(self.ids)))
        return np.concatenate([np.arange(*span) for span in spans])

    @property
    def labels(self) -> list[int]:
        """As long as input_ids: the tokens that the loss counts, IGNORED elsewhere."""
        labels = np.full(len(self.ids), IGNORED)
        labels[self.label_positions] = self.tokens[self.label_positions]
        return list(map(int, labels))


def cut_at_stop(ids: list[int], stops: Sequence[int]) -> list[int]:
    """The tokens before the first stop."""
    end = next((index for index, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]


def compute_prompt_limit(max_length_tokens: int, max_new_tokens: int) -> int:
    """Most tokens of a prompt.

    Room for an answer is set aside whatever the row's target is, so that a row's prompt is cut
    alike in training and in evaluation; never more than half of the length.
    """
    return max(max_length_tokens - max_new_tokens, max_length_tokens // 2)


def encode_training_rows(
    tokenizer: ChatTokenizer,
    rows: Sequence[Row],
    max_length_tokens: int,
    max_new_tokens: int,
    *,
    thinking: bool = False,
) -> list[Example]:
    """The rows as examples of at most max_length_tokens tokens.

    Targets are never cut: a row whose target is longer than the room set aside for it loses more
    of its prompt, and is left out, with a warning, if its target leaves no room for the prompt.

    Args:
        thinking: rows that hold a thought are trained to think it; others, and all rows without
            this, answer at once.

    Raises:
        SweepAborted: no row is left, or the chat template cannot hold these turns.
    """
    fitted = fit_training_rows(
        tokenizer, rows, max_length_tokens, max_new_tokens, thinking=thinking
    )
    examples = [example for example in fitted if example is not None]
    if len(examples) < len(rows):
        left_out = len(rows) - len(examples)
        logger.warning("%d rows left out: longer than %d tokens", left_out, max_length_tokens)
    return examples


def fit_training_rows(
    tokenizer: ChatTokenizer,
    rows: Sequence[Row],
    max_length_tokens: int,
    max_new_tokens: int,
    *,
    thinking: bool = False,
) -> list[Example | None]:
    """Each row as encode_training_rows gives it; None where its target leaves no room.

    Raises:
        SweepAborted: no row fits, or the chat template cannot hold these turns.
    """
    limit = compute_prompt_limit(max_length_tokens, max_new_tokens)
    fitted: list[Example | None] = []
    shortest = math.inf
    for some in _split_rows(rows):
        thinks = [thinking and bool(row.thought) for row in some]
        targets = _encode_answers(tokenizer, some, thinks)
        shortest = min(shortest, *map(len, targets))
        limits = [min(limit, max_length_tokens - len(target_ids)) for target_ids in targets]
        examples = _encode_rows(tokenizer, some, targets, limits, thinks)
        fitted += [e if len(e.ids) <= max_length_tokens else None for e in examples]
    if not any(fitted):
        raise SweepAborted(
            f"no training row fits in {max_length_tokens} tokens with its whole target",
            f"raise --max-length-tokens: the shortest target alone has {shortest}",
        )
    return fitted


def encode_rows(
    tokenizer: ChatTokenizer,
    rows: Sequence[Row],
    prompt_limit_tokens: int,
    *,
    thinking: bool = False,
) -> list[Example]:
    """Every row as an example for evaluation, its target in full.

    Args:
        thinking: let the model think before it answers.

    Raises:
        SweepAborted: the chat template cannot hold these turns.
    """
    examples: list[Example] = []
    for some in _split_rows(rows):
        targets = _encode_answers(tokenizer, some, [thinking and bool(row.thought) for row in some])
        limits = [prompt_limit_tokens] * len(some)
        examples += _encode_rows(tokenizer, some, targets, limits, [thinking] * len(some))
    return [replace(example, answer_spans=()) for example in examples]  # the last answer is scored


def _split_rows(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows in parts: what is between text and Example takes 20 times the memory of either."""
    return (rows[first : first + CHUNK_ROWS] for first in range(0, len(rows), CHUNK_ROWS))


def encode_targets(tokenizer: ChatTokenizer, targets: Sequence[str]) -> list[list[int]]:
    """Tokens of each answer and of its end."""
    end = find_end_of_turn_id(tokenizer)
    return [[*ids, end] for ids in _tokenize(tokenizer, targets)]


def _encode_rows(
    tokenizer: ChatTokenizer,
    rows: Sequence[Row],
    targets: Sequence[list[int]],
    limits: Sequence[float],
    thinks: Sequence[bool],
) -> list[Example]:
    """Prompts up to where the assistant begins to answer, cut to their limits, with targets."""
    pieces: dict[tuple[tuple[str, ...], bool], list[str]] = {}
    segments = []
    for row, thinking in zip(rows, thinks, strict=True):
        roles = (*(message.role for message in row.history), "user")
        if (roles, thinking) not in pieces:
            pieces[roles, thinking] = render_template(tokenizer, roles, thinking=thinking)
        segments.append(_split_prompt(row, pieces[roles, thinking]))
    ids = iter(_tokenize(tokenizer, [text for row in segments for text, _ in row]))
    examples = []
    for row, target_ids, limit, parts, thinking in zip(
        rows, targets, limits, segments, thinks, strict=True
    ):
        prompt_ids: list[int] = []
        spans = []
        for _, is_trained in parts:
            begin = len(prompt_ids)
            prompt_ids += next(ids)
            if is_trained:
                spans.append((begin, len(prompt_ids)))
        example = Example.from_ids(prompt_ids, target_ids, tuple(spans))
        if len(prompt_ids) > limit:
            example = _shorten_prompt(tokenizer, row, example, limit, thinking)
        examples.append(example)
    return examples


def _split_prompt(row: Row, pieces: Sequence[str]) -> list[tuple[str, bool]]:
    """The prompt's text in parts that are tokenised by themselves, and whether each is trained on.

    An answer that is trained on is a part of its own with its end of turn, as a target is, so that
    its tokens are those that it would be generated as.
    """
    segments: list[tuple[str, bool]] = []
    text = pieces[0]
    for message, after in zip(row.history, pieces[1:], strict=False):
        if message.is_trained:
            end = END_OF_TURN if after.startswith(END_OF_TURN) else ""
            segments += [(text, False), (message.content + end, True)]
            text = after.removeprefix(end)
        else:
            text += message.content + after
    return [*segments, (text + row.prompt + pieces[-1], False)]


def _shorten_prompt(
    tokenizer: ChatTokenizer, row: Row, example: Example, limit: float, thinking: bool
) -> Example:
    """The example with a prompt of at most limit tokens, if that can be.

    A conversation loses its oldest turns, a system message excepted; then the prompt loses the end
    of its text. The template and the words around the text stay, even if they are above limit.
    """
    shorter = _drop_turns(row)
    if shorter:

        def encode(turns: Row, most: float) -> Example:
            (cut,) = _encode_rows(tokenizer, [turns], [example.target_ids], [most], [thinking])
            return replace(cut, is_cut=True)

        # Each is shorter than the one before, so halving finds the first that fits.
        index = bisect_left(
            shorter[:-1], True, key=lambda r: encode(r, math.inf).num_prompt_tokens <= limit
        )
        return encode(shorter[index], limit)
    roles = (*(message.role for message in row.history), "user")
    *first, last = render_template(tokenizer, roles, thinking=thinking)
    (*_, (before, _)) = _split_prompt(replace(row, prompt=""), [*first, ""])
    head, text = before + row.prompt[: row.cut_from], row.prompt[row.cut_from : row.cut_to]
    tail = row.prompt[len(row.prompt) if row.cut_to is None else row.cut_to :] + last
    head_ids, text_ids, tail_ids = _tokenize(tokenizer, [head, text, tail])
    room = max(int(limit) - len(head_ids) - len(tail_ids), 0)
    return Example.from_ids(head_ids + text_ids[:room] + tail_ids, example.target_ids, is_cut=True)


def _drop_turns(row: Row) -> list[Row]:
    """The row without its first question and what follows up to the next, without two, and so on
    to its prompt alone; [] if it is that."""
    system = row.history[:1] if row.history and row.history[0].role == "system" else ()
    turns = row.history[len(system) :]
    questions = [index for index, turn in enumerate(turns) if index and turn.role == "user"]
    starts = [*questions, len(turns)] if turns else []
    return [replace(row, history=(*system, *turns[start:])) for start in starts]


def _encode_answers(
    tokenizer: ChatTokenizer, rows: Sequence[Row], thinks: Sequence[bool]
) -> list[list[int]]:
    """Targets, behind their thoughts where these are wanted, as Qwen's template writes both."""
    begin = f"{BEGIN_THOUGHT}\n"
    if any(thinks) and has_open_thought(tokenizer, thinking=True):
        begin = ""  # which the prompt has
    texts = [
        f"{begin}{row.thought}\n</think>\n\n{row.target}" if thinks_it else row.target
        for row, thinks_it in zip(rows, thinks, strict=True)
    ]
    return encode_targets(tokenizer, texts)


def _tokenize(tokenizer: ChatTokenizer, texts: Sequence[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids
